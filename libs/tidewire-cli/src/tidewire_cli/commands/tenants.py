"""`tidewire tenant`: the platform's customers, their limits and what they use of them."""

from typing import Annotated

import typer

from tidewire_cli.given import parse_pairs, parse_span
from tidewire_cli.looks import human_bytes, human_count
from tidewire_cli.output import Column
from tidewire_cli.plain import to_plain
from tidewire_cli.session import Session, command

app = typer.Typer(
    help="Tenants: isolated customers with their own devices, data and limits.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="TENANT", help="Tenant id, such as demo.", show_default=False)]
OwnName = Annotated[
    str, typer.Argument(metavar="TENANT", help="Tenant id; by default your own.", show_default=False)
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DisplayName = Annotated[str, typer.Option("--display-name", help="Name for people.", show_default=False)]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", "-l", metavar="KEY=VALUE", help="Label; may be repeated.", show_default=False),
]
Quotas = Annotated[
    list[str] | None,
    typer.Option(
        "--quota",
        metavar="NAME=NUMBER",
        help="Limit, such as readings_per_second=10000 or devices=500; 0 is the default. Rates are for all of the "
        "platform together. May be repeated.",
        show_default=False,
    ),
]
Retention = Annotated[
    str,
    typer.Option(
        "--retention", metavar="SPAN", help="How long readings are kept, such as 90d.", show_default=False
    ),
]

_COLUMNS = (
    Column("id", "TENANT"),
    Column("state", "STATE"),
    Column("display_name", "NAME"),
    Column("create_time", "CREATED"),
)


def _row(tenant: object) -> dict[str, object]:
    from google.protobuf.message import Message

    assert isinstance(tenant, Message)
    plain = to_plain(tenant)
    return {"id": str(plain["name"]).rpartition("/")[2], **plain}


def _parsed_quotas(given: list[str] | None) -> dict[str, int]:
    from tidewire_client import InvalidArgument

    quotas = {}
    for name, text in parse_pairs(given or [], "--quota", "devices=500").items():
        digits = text.replace("_", "").replace(",", "")
        if not digits.isdigit():
            raise InvalidArgument(f"--quota: {name}={text} is not a whole number", field="quota")
        quotas[name.replace("-", "_")] = int(digits)
    return quotas


@command(app, "create")
async def create(
    session: Session,
    tenant_id: Name,
    display_name: DisplayName = "",
    label: Labels = None,
    quota: Quotas = None,
    retention: Retention = "",
) -> None:
    """Create a tenant (platform administrators)."""
    made = await (await session.admin()).create_tenant(
        tenant_id,
        display_name=display_name,
        labels=parse_pairs(label or [], "--label", "region=north"),
        quotas=_parsed_quotas(quota),
        raw_retention=parse_span(retention, "--retention") if retention else None,
    )
    session.out.done(f"Created tenant {tenant_id}.", _row(made))
    session.out.note(f"Next: tidewire token create --tenant {tenant_id} --role tenant-admin")


@command(app, "list")
async def list_(session: Session) -> None:
    """List tenants; who is no platform administrator sees the own one."""
    admin = await session.admin()
    rows = [_row(tenant) async for tenant in admin.list_tenants()]
    session.out.rows(rows, _COLUMNS, empty="There is no tenant. Create one: tidewire tenant create NAME")


@command(app, "get")
async def get(session: Session, tenant_id: OwnName = "") -> None:
    """Show a tenant."""
    session.out.one(_row(await (await session.admin()).get_tenant(tenant_id or await session.tenant())))


@command(app, "update")
async def update(
    session: Session,
    tenant_id: Name,
    display_name: Annotated[str | None, typer.Option("--display-name", show_default=False)] = None,
    label: Labels = None,
    quota: Quotas = None,
    retention: Retention = "",
) -> None:
    """Change a tenant's name, labels (all of them are replaced), limits (those given) or retention."""
    from tidewire_client import InvalidArgument
    from tidewire_client.times import to_duration

    admin = await session.admin()
    now = await admin.get_tenant(tenant_id)
    mask = []
    if display_name is not None:
        now.display_name = display_name
        mask.append("display_name")
    if label is not None:
        now.labels.clear()
        now.labels.update(parse_pairs(label, "--label", "region=north"))
        mask.append("labels")
    for name, limit in _parsed_quotas(quota).items():
        if name not in now.quotas.DESCRIPTOR.fields_by_name:
            known = ", ".join(now.quotas.DESCRIPTOR.fields_by_name)
            raise InvalidArgument(f"--quota: there is no limit '{name}'; there are {known}", field="quota")
        setattr(now.quotas, name, limit)
        mask.append(f"quotas.{name}")
    if retention:
        now.retention.raw_duration.CopyFrom(to_duration(parse_span(retention, "--retention")))
        mask.append("retention.raw_duration")
    if not mask:
        raise InvalidArgument(
            "nothing to change; give --display-name, --label, --quota or --retention", field="update_mask"
        )
    session.out.done(f"Changed tenant {tenant_id}.", _row(await admin.update_tenant(now, mask)))


@command(app, "delete")
async def delete(session: Session, tenant_id: Name, yes: Yes = False) -> None:
    """Delete a tenant with all its devices and data."""
    admin = await session.admin()
    now = await admin.get_tenant(tenant_id)
    session.confirm(f"Delete tenant {tenant_id} with all its devices and data?", yes=yes)
    await admin.delete_tenant(tenant_id, etag=now.etag)
    session.out.done(f"Deleted tenant {tenant_id}.", {"deleted": f"tenants/{tenant_id}"})


@command(app, "block")
async def block(session: Session, tenant_id: Name) -> None:
    """Block a tenant: nothing is taken in or served within 10 seconds."""
    session.out.done(
        f"Blocked tenant {tenant_id}.", _row(await (await session.admin()).block_tenant(tenant_id))
    )


@command(app, "unblock")
async def unblock(session: Session, tenant_id: Name) -> None:
    """End a tenant's block."""
    session.out.done(
        f"Unblocked tenant {tenant_id}.", _row(await (await session.admin()).unblock_tenant(tenant_id))
    )


@command(app, "usage")
async def usage(session: Session, tenant_id: OwnName = "") -> None:
    """Show what a tenant uses of its limits. Rates hold for all processes of the platform together."""
    used = await (await session.admin()).get_tenant_usage(tenant_id or await session.tenant())
    if not session.out.for_people:
        session.out.data(to_plain(used))
        return
    quotas = used.quotas
    rows = [
        ("devices", human_count(used.devices), human_count(quotas.devices) if quotas.devices else "default"),
        ("credentials", human_count(used.credentials), ""),
        ("accepted readings", human_count(used.accepted_readings), ""),
        ("stored readings", human_count(used.stored_readings), ""),
        (
            "stored bytes",
            human_bytes(used.stored_bytes),
            human_bytes(quotas.stored_bytes) if quotas.stored_bytes else "unlimited",
        ),
        (
            "readings per second",
            "",
            human_count(quotas.readings_per_second) if quotas.readings_per_second else "unlimited",
        ),
        (
            "readings per second of a device",
            "",
            human_count(quotas.device_readings_per_second)
            if quotas.device_readings_per_second
            else "unlimited",
        ),
        (
            "batches per second",
            "",
            human_count(quotas.batches_per_second) if quotas.batches_per_second else "unlimited",
        ),
    ]
    session.out.rows(
        [{"what": what, "used": now, "limit": limit} for what, now, limit in rows],
        (Column("what", used.name), Column("used", "USED", right=True), Column("limit", "LIMIT", right=True)),
    )
