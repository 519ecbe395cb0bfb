"""`tidewire credential`: the public keys by which devices are known. Private keys are made and stay here."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from tidewire_cli.given import parse_span
from tidewire_cli.output import Column
from tidewire_cli.plain import to_plain
from tidewire_cli.session import Session, command

app = typer.Typer(
    help="Public keys of devices. A private key never leaves this machine.", no_args_is_help=True
)

Device = Annotated[str, typer.Argument(metavar="DEVICE", help="Device id.", show_default=False)]


def _row(credential: object) -> dict[str, object]:
    from google.protobuf.message import Message

    assert isinstance(credential, Message)
    plain = to_plain(credential)
    return {"id": str(plain["name"]).rpartition("/")[2], **plain}


@command(app, "create")
async def create(
    session: Session,
    device: Device,
    generate: Annotated[bool, typer.Option("--generate", help="Make a key pair here.")] = False,
    public_key: Annotated[
        Path | None,
        typer.Option("--public-key", help="PEM file of a public key that exists.", show_default=False),
    ] = None,
    algorithm: Annotated[str, typer.Option(help="Of the key pair: ed25519 or es256.")] = "ed25519",
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--key-file",
            help="Where to write the private key; by default beside the other keys made here.",
            show_default=False,
        ),
    ] = None,
    expires: Annotated[
        str,
        typer.Option(
            "--expires", metavar="SPAN", help="How long it holds, such as 365d.", show_default=False
        ),
    ] = "",
) -> None:
    """Register a device's public key; with --generate also make the pair.

    The private key is written to a file that only you may read, and is not shown.
    """
    from tidewire_cli.contexts import data_home
    from tidewire_cli.keyring import keep
    from tidewire_client import InvalidArgument, generate_private_key, public_key_pem, save_private_key

    if generate == (public_key is not None):
        raise InvalidArgument("give either --generate or --public-key FILE", field="generate")
    tenant = await session.tenant()
    expire_time = datetime.now(UTC) + parse_span(expires, "--expires") if expires else None
    admin = await session.admin()
    draft: Path | None = None
    if public_key is not None:
        try:
            pem = public_key.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidArgument(
                f"{public_key} cannot be read as PEM: {error}", field="public_key"
            ) from error
    else:
        await admin.get_device(device, tenant=tenant)  # no key for a device that does not exist
        pair = generate_private_key(algorithm)
        pem = public_key_pem(pair)
        # Written before it is registered, so that no credential is ever without its key.
        draft = key_file or data_home() / "device-keys" / f"draft-{datetime.now(UTC).timestamp():.6f}.pem"
        save_private_key(pair, draft)
    try:
        made = await admin.create_credential(device, pem, expire_time=expire_time, tenant=tenant)
    except BaseException:
        if draft is not None:
            draft.unlink(missing_ok=True)
        raise
    row = _row(made)
    if draft is not None:
        place = draft if key_file else keep(draft, tenant, device, str(row["id"]))
        row["key_file"] = str(place)
        session.out.note(f"The private key is in {place}")
    session.out.done(f"Registered credential {row['id']} of device {device}.", row)


@command(app, "list")
async def list_(session: Session, device: Device) -> None:
    """List a device's credentials."""
    admin = await session.admin()
    rows = [_row(one) async for one in admin.list_credentials(device, tenant=await session.tenant())]
    session.out.rows(
        rows,
        (
            Column("id", "CREDENTIAL"),
            Column("algorithm", "ALGORITHM"),
            Column("create_time", "CREATED"),
            Column("expire_time", "EXPIRES"),
        ),
        empty=f"{device} has no credential. Make one: tidewire credential create {device} --generate",
    )


@command(app, "delete")
async def delete(
    session: Session,
    device: Device,
    credential: Annotated[str, typer.Argument(metavar="CREDENTIAL", help="Its id.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a credential; tokens that its key signed are refused within 10 seconds."""
    session.confirm(f"Delete credential {credential} of device {device}?", yes=yes)
    admin = await session.admin()
    await admin.delete_credential(device, credential, tenant=await session.tenant())
    session.out.done(f"Deleted credential {credential}.", {"deleted": credential})
