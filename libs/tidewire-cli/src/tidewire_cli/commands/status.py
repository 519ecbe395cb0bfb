"""`tidewire status`: is it well? Services and their health, what waits, whether anything is lost, who uses what."""

from typing import TYPE_CHECKING

from tidewire_cli.looks import human_bytes, human_count
from tidewire_cli.output import Column
from tidewire_cli.plain import to_plain
from tidewire_cli.session import FAILED, Session

if TYPE_CHECKING:
    from tidewire_client import Health


async def status(session: Session) -> None:
    """Show services and their health, lag, the loss ledger and tenants.

    Ends with status 1 when a service does not serve or the ledger does not add up, with 3 when nobody answers.
    """
    from tidewire_cli.commands.ledger import ledger_client
    from tidewire_client import PermissionDenied, TidewireError, check_all

    connection = await session.connection()
    health = await check_all(connection)
    answer: dict[str, object] = {
        "endpoint": connection.endpoint,
        "services": [_service(one) for one in health],
    }
    well = all(one.serving for one in health)
    out = session.out
    if out.for_people:
        out.rows([_service(one) for one in health], _SERVICES)
    try:
        query, tenant = await ledger_client(session)
        ledger = await query.ledger(tenant=tenant)
    except PermissionDenied as error:
        out.note(f"\nThe ledger is not for you: {error}")
    except TidewireError as error:
        well = False
        out.warn(f"\nThe ledger cannot be read: {error}")
    else:
        well = well and not ledger.difference_readings
        answer["ledger"] = {
            "difference_readings": ledger.difference_readings,
            "in_flight_readings": ledger.in_flight_readings,
            "lag_records": ledger.lag_records,
            "accepted_readings": sum(entry.accepted_readings for entry in ledger.entries),
            "stored_readings": sum(entry.stored_readings for entry in ledger.entries),
        }
        verdict = "all accounted for" if not ledger.difference_readings else "LOST OR COUNTED TWICE"
        out.text(
            f"\nLedger   difference {ledger.difference_readings:,} ({verdict})\n"
            f"Waiting  {ledger.in_flight_readings:,} readings in flight, {ledger.lag_records:,} records of lag"
        )
    tenants = await _tenants(session)
    answer["tenants"] = tenants
    answer["well"] = well
    if out.for_people:
        print()
        out.rows(tenants, _TENANTS, empty="There is no tenant yet. Create one: tidewire tenant create NAME")
    else:
        out.data(answer)
    if not well:
        session.exit_code = FAILED


async def _tenants(session: Session) -> list[dict[str, object]]:
    """The first twenty tenants the caller sees, with what they use."""
    from tidewire_client import TidewireError

    admin = await session.admin()
    rows: list[dict[str, object]] = []
    try:
        async for tenant in admin.list_tenants(page_size=20):
            if len(rows) == 20:
                session.out.note("There are more tenants: tidewire tenant list")
                break
            name = tenant.name.rpartition("/")[2]
            row: dict[str, object] = {"tenant": name, "state": to_plain(tenant).get("state", "")}
            try:
                used = await admin.get_tenant_usage(name)
            except TidewireError as error:
                row["error"] = error.reason
            else:
                row |= {
                    "devices": used.devices,
                    "accepted_readings": used.accepted_readings,
                    "stored_readings": used.stored_readings,
                    "stored_bytes": used.stored_bytes,
                }
            rows.append(row)
    except TidewireError as error:
        session.out.warn(f"Tenants cannot be listed: {error}")
    return rows


def _service(one: "Health") -> dict[str, object]:
    return {
        "service": one.service,
        "address": one.address,
        "status": one.status,
        "round_trip_ms": round(one.round_trip_seconds * 1000, 2),
        **({"detail": one.detail} if one.detail else {}),
    }


_SERVICES = (
    Column("service", "SERVICE"),
    Column("address", "ADDRESS"),
    Column("status", "HEALTH"),
    Column("round_trip_ms", "MS", "{:.1f}".format, right=True),
    Column("detail", ""),
)
_TENANTS = (
    Column("tenant", "TENANT"),
    Column("state", "STATE"),
    Column("devices", "DEVICES", human_count, right=True),
    Column("accepted_readings", "ACCEPTED", human_count, right=True),
    Column("stored_readings", "STORED", human_count, right=True),
    Column("stored_bytes", "BYTES", human_bytes, right=True),
    Column("error", ""),
)
