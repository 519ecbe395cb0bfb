"""`tidewire token`: tokens of people and programs."""

from pathlib import Path
from typing import Annotated

import typer

from tidewire_cli.given import parse_span
from tidewire_cli.looks import ago, utc_text
from tidewire_cli.session import Session, command

app = typer.Typer(help="Tokens of users and services.", no_args_is_help=True)

ROLES = ("platform-admin", "tenant-admin", "operator", "reader", "service")


@command(app, "create")
async def create(
    session: Session,
    subject: Annotated[
        str,
        typer.Argument(metavar="SUBJECT", help="Who it is for, as logs show it.", show_default=False),
    ],
    role: Annotated[
        list[str],
        typer.Option(
            "--role",
            "-r",
            help=f"One of {', '.join(ROLES)}; may be repeated.",
            autocompletion=lambda: list(ROLES),
        ),
    ] = ["reader"],  # noqa: B006 - Typer's way to say the default
    ttl: Annotated[
        str, typer.Option("--ttl", metavar="SPAN", help="How long it holds, at most 365d.")
    ] = "24h",
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            help="Write it to this file, for you alone to read, and do not print it.",
            show_default=False,
        ),
    ] = None,
    save_context: Annotated[
        str,
        typer.Option(
            "--save-context", metavar="NAME", help="Keep it in a context of this name.", show_default=False
        ),
    ] = "",
) -> None:
    """Make a token and print it, or keep it in a file or a context."""
    from tidewire_cli.contexts import Context, write_context
    from tidewire_client import InvalidArgument
    from tidewire_client.times import timestamp_us

    unknown = [one for one in role if one not in ROLES]
    if unknown:
        raise InvalidArgument(f"there is no role '{unknown[0]}'; roles are {', '.join(ROLES)}", field="role")
    tenant = "" if {"platform-admin", "service"} & set(role) else await session.tenant()
    admin = await session.admin()
    made = await admin.create_token(subject, role, tenant=tenant, ttl=parse_span(ttl, "--ttl"))
    until = utc_text(timestamp_us(made.expire_time))
    answer: dict[str, object] = {
        "subject": subject,
        "tenant": tenant,
        "roles": list(role),
        "expire_time": until,
    }
    if file is not None:
        _write_private(file, made.token)
        answer["file"] = str(file)
    if save_context:
        endpoint = (await session.connection()).endpoint
        write_context(
            save_context,
            Context(
                endpoint if session.release is None else "",
                tenant,
                token_file=str(file.absolute()) if file else "",
                token="" if file else made.token,
                kubernetes=session.release,
            ),
            use=False,
        )
        answer["context"] = save_context
    if file is None and not save_context:
        answer["token"] = made.token
        session.out.text(made.token)
    else:
        session.out.text(f"The token is in {file or f'the context {save_context}'}.")
    session.out.data(answer)
    session.out.note(f"It holds until {until}.")


def _write_private(path: Path, token: str) -> None:
    import os

    from tidewire_client import InvalidArgument

    try:
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(token + "\n")
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be written: {error.strerror}", field="file") from error


@command(app, "show")
async def show(session: Session) -> None:
    """Show what the token in use says of you: subject, tenant, roles, end. The token itself is not shown."""
    from tidewire_cli.claims import claims_of
    from tidewire_client.times import now_us

    connection = await session.connection()
    assert connection.token_source is not None
    claims = claims_of(connection.token_source.token())
    session.out.one(
        {
            "endpoint": connection.endpoint,
            "subject": claims.subject,
            "roles": list(claims.roles) or (["device"] if claims.device else []),
            "tenant_uid": claims.tenant_uid,
            "expire_time": utc_text(claims.expires_at * 1_000_000) if claims.expires_at else "",
        }
    )
    if claims.expires_at:
        session.out.note(f"Ends {ago(claims.expires_at * 1_000_000, now_us())}.")
