"""`tidewire ledger` and `tidewire storage`: whether every accepted reading is accounted for, and where it is."""

from typing import TYPE_CHECKING, Annotated

import typer

from tidewire_cli.given import parse_moment, parse_span
from tidewire_cli.looks import human_bytes
from tidewire_cli.output import Column
from tidewire_cli.plain import to_plain
from tidewire_cli.session import FAILED, Session, command

if TYPE_CHECKING:
    from tidewire_client import AsyncQueryClient

app = typer.Typer(
    help="The loss ledger: accepted = stored + duplicate + dead-lettered + in flight.", no_args_is_help=True
)
storage = typer.Typer(help="What is kept in storage.", no_args_is_help=True)


async def ledger_client(session: Session) -> "tuple[AsyncQueryClient, str]":
    """Who asks, and about which tenant: administrators without --tenant about all, others about their own."""
    from tidewire_cli.claims import claims_of
    from tidewire_client import AsyncQueryClient

    connection = await session.connection()
    assert connection.token_source is not None
    claims = claims_of(connection.token_source.token())
    if "platform-admin" in claims.roles and not session.options.tenant:
        return AsyncQueryClient(connection), ""
    return AsyncQueryClient(connection), await session.tenant()


@command(app, "show")
async def show(
    session: Session,
    last: Annotated[
        str, typer.Option("--last", metavar="SPAN", help="Only so far back.", show_default=False)
    ] = "",
    start: Annotated[str, typer.Option("--start", metavar="TIME", show_default=False)] = "",
    end: Annotated[str, typer.Option("--end", metavar="TIME", show_default=False)] = "",
) -> None:
    """Show the ledger by hour and tenant. Ends with status 1 when its difference is not 0."""
    from datetime import UTC, datetime

    query, tenant = await ledger_client(session)
    since = datetime.now(UTC) - parse_span(last, "--last") if last else None
    if start:
        since = parse_moment(start, "--start")
    answer = await query.ledger(tenant=tenant, start=since, end=parse_moment(end, "--end") if end else None)
    if answer.difference_readings:
        session.exit_code = FAILED
    if not session.out.for_people:
        session.out.data(to_plain(answer))
        return
    number = "{:,}".format
    session.out.rows(
        [to_plain(entry) for entry in answer.entries],
        (
            Column("hour_time", "HOUR"),
            Column("tenant", "TENANT", lambda name: name.removeprefix("tenants/")),
            Column("accepted_readings", "ACCEPTED", number, right=True),
            Column("stored_readings", "STORED", number, right=True),
            Column("duplicate_readings", "DUPLICATE", number, right=True),
            Column("dead_lettered_readings", "DEAD", number, right=True),
            Column("present_readings", "PRESENT", number, right=True),
            Column("purged_readings", "PURGED", number, right=True),
        ),
        empty="The ledger is empty: no reading has been stored yet.",
    )
    verdict = "all accounted for" if not answer.difference_readings else "readings are lost or counted twice"
    print(
        f"Difference {answer.difference_readings:,} ({verdict}); in flight {answer.in_flight_readings:,} readings; "
        f"lag {answer.lag_records:,} records."
    )


@command(storage, "seal")
async def seal(session: Session) -> None:
    """Seal what is stored now: fewer blocks, each device's readings side by side (platform administrators)."""
    from tidewire_client import AsyncQueryClient

    partitions = await AsyncQueryClient(await session.connection()).seal_epochs()
    session.out.done(f"Sealed what {partitions} partitions had.", {"partitions": partitions})


@command(storage, "usage")
async def usage(session: Session) -> None:
    """Show what tenants keep in storage."""
    query, tenant = await ledger_client(session)
    names = {one.uid: one.name.rpartition("/")[2] async for one in (await session.admin()).list_tenants()}
    rows = [
        {"tenant": names.get(one.tenant_uid, "-"), **to_plain(one)}
        for one in await query.storage_usage(tenant=tenant)
    ]
    number = "{:,}".format
    session.out.rows(
        rows,
        (
            Column("tenant", "TENANT"),
            Column("accepted_readings", "ACCEPTED", number, right=True),
            Column("stored_readings", "STORED", number, right=True),
            Column("stored_bytes", "BYTES", human_bytes, right=True),
        ),
        empty="Nothing is stored yet.",
    )
