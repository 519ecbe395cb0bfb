"""Cassandra: reached, its version, the keyspace's copies, the schema against its steps, its clock."""

from collections.abc import Mapping
from typing import Any, Final

from tidewire_kit.cassandra import CassandraSession, CassandraSettings, connect, schema
from tidewire_kit.errors import TidewireError
from tidewire_platform.doctor.clocks import check_clock
from tidewire_platform.doctor.finding import Finding, ok, warning, wrong
from tidewire_platform.topology import plan_schema

CHECK: Final = "cassandra"
SCHEMA: Final = "schema"
COPIES: Final = "copies"

_APPLY = "run `tidewire schema apply`, or correct TIDEWIRE_CASSANDRA_KEYSPACE"
_SYNC = "SELECT value FROM system_views.settings WHERE name = 'commitlog_sync'"
_NOW = "SELECT toUnixTimestamp(now()) AS now_ms FROM system.local"


async def check_cassandra(settings: CassandraSettings) -> list[Finding]:
    """Looks at the cluster. What depends on a connection is left out when there is none."""
    subject = settings.contact_points
    try:
        session = await connect(settings, keyspace=None)
    except TidewireError as error:
        return [wrong(CHECK, subject, error.message, "correct what the message names, then look again")]
    try:
        reached = ok(CHECK, subject, f"Cassandra {session.server_version}, datacenter {session.datacenter}")
        return [
            reached,
            *await _guarded(COPIES, settings.keyspace, _copies(session, settings)),
            *await _guarded(SCHEMA, settings.keyspace, _schema(settings)),
            *await _guarded(CHECK, subject, _clock(session, subject)),
        ]
    finally:
        await session.close()


async def _guarded(check: str, subject: str, looking: Any) -> list[Finding]:
    """What a look found; an error that it met is a finding too."""
    try:
        found: list[Finding] = await looking
    except TidewireError as error:
        return [wrong(check, subject, error.message, "correct what the message names, then look again")]
    return found


async def _copies(session: CassandraSession, settings: CassandraSettings) -> list[Finding]:
    replication = await schema.replication(session)
    if replication is None:
        return []  # the schema's finding says so
    copies = copies_of(replication, session.datacenter)
    if copies is None:
        return [
            wrong(
                COPIES,
                settings.keyspace,
                f"the keyspace has no copies in the datacenter {session.datacenter}",
                "correct TIDEWIRE_CASSANDRA_DATACENTER, or ALTER KEYSPACE and repair",
            )
        ]
    if copies >= 3:
        return [ok(COPIES, settings.keyspace, f"{copies} copies of every row")]
    if copies == 2:
        return [
            warning(
                COPIES,
                settings.keyspace,
                "two copies: a majority of two is both, so no node may fail",
                "ALTER KEYSPACE to three copies, then `nodetool repair`",
            )
        ]
    return [await _single_copy(session, settings)]


async def _single_copy(session: CassandraSession, settings: CassandraSettings) -> Finding:
    text = "one copy: what was written is lost with its node's disk"
    remedy = (
        "for production three nodes and TIDEWIRE_CASSANDRA_REPLICATION_FACTOR=3 before the keyspace is made"
    )
    try:
        rows = await session.execute_cql(_SYNC)
    except TidewireError:  # a managed service may hide its settings
        rows = []
    if rows and rows[0].value == "periodic":
        text += (
            "; and with commitlog_sync: periodic a node that crashes forgets what it acknowledged last: devices and "
            "their changes are gone, readings are read from the log again"
        )
        remedy = f"at least `commitlog_sync: batch` in cassandra.yaml; {remedy}"
    return warning(COPIES, settings.keyspace, text, remedy)


def copies_of(replication: Mapping[str, str], datacenter: str) -> int | None:
    """The number of copies in a datacenter by the keyspace's replication; None: none there."""
    if replication.get("class", "").endswith("NetworkTopologyStrategy"):
        text = replication.get(datacenter)
        return int(text.partition("/")[0]) if text else None
    return int(replication.get("replication_factor", "1").partition("/")[0])


async def _schema(settings: CassandraSettings) -> list[Finding]:
    plan = await plan_schema(settings)
    if plan.create_keyspace is not None:
        return [wrong(SCHEMA, settings.keyspace, "there is no such keyspace", _APPLY)]
    if plan.steps:
        names = ", ".join(step.title for step in plan.steps)
        return [wrong(SCHEMA, settings.keyspace, f"lacks {names}", _APPLY)]
    return [ok(SCHEMA, settings.keyspace, "every step is applied")]


async def _clock(session: CassandraSession, subject: str) -> list[Finding]:
    statement = await session.prepare(_NOW)

    async def ask() -> float:
        return float((await session.execute(statement))[0].now_ms) / 1000

    return [await check_clock(subject, ask)]
