"""`tidewire device`: the things that measure, their gateways and sites."""

from pathlib import Path
from typing import Annotated

import typer

from tidewire_cli.given import parse_location, parse_pairs
from tidewire_cli.output import Column
from tidewire_cli.plain import to_plain
from tidewire_cli.session import Session, command

app = typer.Typer(help="Devices, gateways and sites of a tenant.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="DEVICE", help="Device id.", show_default=False)]
Ids = Annotated[list[str], typer.Argument(metavar="DEVICE...", help="Device ids.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Type = Annotated[str, typer.Option("--type", help="Device type, such as thermometer.", show_default=False)]
DisplayName = Annotated[str, typer.Option("--display-name", help="Name for people.", show_default=False)]
Parent = Annotated[
    str, typer.Option("--parent", help="Device id of the gateway or site it belongs to.", show_default=False)
]
Location = Annotated[
    str, typer.Option("--location", metavar="LAT,LON", help="Where it is, in degrees.", show_default=False)
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", "-l", metavar="KEY=VALUE", help="Label; may be repeated.", show_default=False),
]


def _labels_look(labels: dict[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in labels.items())


_COLUMNS = (
    Column("id", "DEVICE"),
    Column("state", "STATE"),
    Column("type", "TYPE"),
    Column("parent", "PARENT", lambda name: name.rpartition("/")[2]),
    Column("labels", "LABELS", _labels_look),
    Column("create_time", "CREATED"),
)


def _row(device: object) -> dict[str, object]:
    from google.protobuf.message import Message

    assert isinstance(device, Message)
    plain = to_plain(device)
    return {"id": str(plain["name"]).rpartition("/")[2], **plain}


@command(app, "create")
async def create(
    session: Session,
    device_ids: Ids,
    type: Type = "",
    display_name: DisplayName = "",
    parent: Parent = "",
    location: Location = "",
    label: Labels = None,
    allow_existing: Annotated[
        bool, typer.Option("--allow-existing", help="Leave devices that exist as they are.")
    ] = False,
) -> None:
    """Create devices."""
    from tidewire_client import new_device
    from tidewire_client.names import device_name

    tenant = await session.tenant()
    device = new_device(
        display_name=display_name,
        type=type,
        labels=parse_pairs(label or [], "--label", "floor=3"),
        parent=device_name(tenant, parent) if parent else "",
        location=parse_location(location, "--location") if location else None,
    )
    admin = await session.admin()
    if len(device_ids) == 1 and not allow_existing:
        made = [await admin.create_device(device_ids[0], device, tenant=tenant)]
    else:
        made = await admin.batch_create_devices(
            dict.fromkeys(device_ids, device), tenant=tenant, allow_existing=allow_existing
        )
    rows = [_row(one) for one in made]
    session.out.done(
        f"Created device {device_ids[0]} in tenant {tenant}."
        if len(made) == 1
        else f"{len(made)} devices are in tenant {tenant}.",
        rows[0] if len(rows) == 1 else rows,
    )
    if len(made) == 1:
        session.out.note(f"Next: tidewire credential create {device_ids[0]} --generate")


@command(app, "list")
async def list_(
    session: Session,
    filter: Annotated[
        str,
        typer.Option(
            "--filter",
            "-f",
            help='Only those, such as \'type = "meter" AND labels.floor = "3"\'.',
            show_default=False,
        ),
    ] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 1000,
) -> None:
    """List devices by name."""
    admin, tenant = await session.admin(), await session.tenant()
    rows: list[dict[str, object]] = []
    more = False
    async for device in admin.list_devices(filter=filter, tenant=tenant, page_size=min(limit + 1, 10_000)):
        if len(rows) == limit:
            more = True
            break
        rows.append(_row(device))
    session.out.rows(
        rows,
        _COLUMNS,
        empty="No device matches."
        if filter
        else "There is no device. Create one: tidewire device create NAME",
    )
    if more:
        session.out.warn(f"There are more than {limit}; see them with --limit, or choose with --filter.")


@command(app, "count")
async def count(
    session: Session,
    filter: Annotated[str, typer.Option("--filter", "-f", help="Only those.", show_default=False)] = "",
) -> None:
    """Count devices."""
    number = await (await session.admin()).count_devices(filter=filter, tenant=await session.tenant())
    session.out.done(str(number), {"devices": number})


@command(app, "get")
async def get(session: Session, device: Id) -> None:
    """Show a device."""
    session.out.one(_row(await (await session.admin()).get_device(device, tenant=await session.tenant())))


@command(app, "update")
async def update(
    session: Session,
    device: Id,
    type: Annotated[str | None, typer.Option("--type", show_default=False)] = None,
    display_name: Annotated[str | None, typer.Option("--display-name", show_default=False)] = None,
    parent: Annotated[str | None, typer.Option("--parent", help='"" for none.', show_default=False)] = None,
    location: Location = "",
    label: Labels = None,
) -> None:
    """Change a device; labels are replaced as a whole."""
    from tidewire_client import InvalidArgument
    from tidewire_client.names import device_name

    admin, tenant = await session.admin(), await session.tenant()
    now = await admin.get_device(device, tenant=tenant)
    mask = []
    if type is not None:
        now.type = type
        mask.append("type")
    if display_name is not None:
        now.display_name = display_name
        mask.append("display_name")
    if parent is not None:
        now.parent = device_name(tenant, parent) if parent else ""
        mask.append("parent")
    if location:
        now.location.latitude, now.location.longitude = parse_location(location, "--location")
        mask.append("location")
    if label is not None:
        now.labels.clear()
        now.labels.update(parse_pairs(label, "--label", "floor=3"))
        mask.append("labels")
    if not mask:
        raise InvalidArgument(
            "nothing to change; give --type, --display-name, --parent, --location or --label",
            field="update_mask",
        )
    session.out.done(f"Changed device {device}.", _row(await admin.update_device(now, mask)))


@command(app, "delete")
async def delete(session: Session, device_ids: Ids, yes: Yes = False) -> None:
    """Delete devices with their data."""
    admin, tenant = await session.admin(), await session.tenant()
    what = f"device {device_ids[0]}" if len(device_ids) == 1 else f"{len(device_ids)} devices"
    session.confirm(f"Delete {what} of tenant {tenant} with all data?", yes=yes)
    for device in device_ids:
        await admin.delete_device(device, tenant=tenant)
    session.out.done(f"Deleted {what}.", {"deleted": device_ids})


@command(app, "block")
async def block(session: Session, device: Id) -> None:
    """Block a device: its telemetry is refused within 10 seconds."""
    blocked = await (await session.admin()).block_device(device, tenant=await session.tenant())
    session.out.done(f"Blocked device {device}.", _row(blocked))


@command(app, "unblock")
async def unblock(session: Session, device: Id) -> None:
    """End a device's block."""
    unblocked = await (await session.admin()).unblock_device(device, tenant=await session.tenant())
    session.out.done(f"Unblocked device {device}.", _row(unblocked))


@command(app, "token")
async def token(
    session: Session,
    device: Id,
    credential: Annotated[
        str,
        typer.Option("--credential", help="Credential id; by default the one made here.", show_default=False),
    ] = "",
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", help="Private key; by default the one made here.", show_default=False),
    ] = None,
    ttl: Annotated[str, typer.Option("--ttl", metavar="SPAN", help="How long it holds, at most 1h.")] = "1h",
) -> None:
    """Print a token that the device's private key signs, for trying things with other tools. Asks no server."""
    from tidewire_cli.given import parse_span
    from tidewire_cli.keyring import find_key
    from tidewire_client import DeviceKey, InvalidArgument

    if key_file is None or not credential:
        found = find_key(device, tenant=session.options.tenant, credential=credential)
        if found is None:
            raise InvalidArgument(
                f"no key of {device} is kept here; make one with `tidewire credential create {device} --generate`, "
                "or give --key-file and --credential",
                field="key_file",
            )
        credential, key_file = credential or found.credential, key_file or found.path
    seconds = round(parse_span(ttl, "--ttl").total_seconds())
    made = DeviceKey(device, credential, key_file, lifetime_seconds=seconds).token()
    session.out.done(made, {"token": made})
