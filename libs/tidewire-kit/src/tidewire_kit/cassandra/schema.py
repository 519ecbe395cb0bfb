"""The tables of the platform in a keyspace: what is there, what is missing, and how it gets there.

    await plan(session, sets)       # `tidewire schema plan`: what `apply` would do
    await apply(session, sets)      # `tidewire schema apply`: safe when every pod runs it at once
    session = await open_session(settings, sets, metrics=registry)    # a service at its start: checks, changes nothing

`plan` and `apply` take a session that is connected without a keyspace (`connect(settings, keyspace=None)`), as there
may be none yet; the keyspace is the one of its settings. What was applied is recorded in table `schema_steps` with the
checksum of each step; `schema_lock` lets one process at a time change tables.

Errors, all but the last FailedPrecondition: STORE_KEYSPACE_FOREIGN (it has tables, and not ours), SCHEMA_CHANGED (an
applied step has another text here), SCHEMA_NEWER (a newer version has applied steps that this one does not know),
SCHEMA_OUTDATED and STORE_KEYSPACE_MISSING (for `check`: run `tidewire schema apply`), STORE_REPLICATION (fewer nodes
than copies); Unavailable (SCHEMA_LOCKED: another process holds the lock for too long).
"""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog
from prometheus_client import CollectorRegistry

from tidewire_kit.cassandra import schema_lock
from tidewire_kit.cassandra.connecting import connect
from tidewire_kit.cassandra.schema_lock import SchemaLock
from tidewire_kit.cassandra.session import CassandraSession, Consistency, Prepared
from tidewire_kit.cassandra.settings import CassandraSettings, variable
from tidewire_kit.cassandra.steps import SchemaSet, Step
from tidewire_kit.errors import FailedPrecondition, TidewireError, Unavailable

_log = structlog.get_logger(__name__)

STEPS_TABLE = "schema_steps"
_OWN_TABLES = frozenset({STEPS_TABLE, schema_lock.TABLE})
_STEPS_COLUMNS = frozenset({"component", "version", "name", "checksum", "applied_us"})
_LOCK_WAIT_SECONDS = 180.0
_APPEARS_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class SchemaPlan:
    """What is to be done."""

    keyspace: str
    create_keyspace: str | None
    """The statement, when the keyspace is missing."""
    steps: tuple[Step, ...]
    """Missing steps, in order."""

    @property
    def empty(self) -> bool:
        """Whether all is there."""
        return self.create_keyspace is None and not self.steps


async def plan(session: CassandraSession, sets: Sequence[SchemaSet]) -> SchemaPlan:
    """Returns what `apply` would do, changing nothing. Raises as above."""
    keyspace = session.settings.checked_keyspace()
    tables = await _tables(session, keyspace)
    if tables is None:
        steps = tuple(step for one in sets for step in one.steps())
        return SchemaPlan(keyspace, _create_keyspace(session), steps)
    await _refuse_foreign(session, keyspace, tables)
    applied = await _applied(session, keyspace) if STEPS_TABLE in tables else {}
    return SchemaPlan(keyspace, None, tuple(_missing(sets, applied, keyspace)))


async def apply(
    session: CassandraSession,
    sets: Sequence[SchemaSet],
    *,
    wait_seconds: float = _LOCK_WAIT_SECONDS,
    lease_seconds: int = schema_lock.LEASE_SECONDS,
) -> SchemaPlan:
    """Does what is to be done and returns it (what this process did; another may have done the rest).

    Returns when all steps are applied and the nodes agree on the schema. A process that dies on the way leaves whole
    statements done; the next one goes on. `wait_seconds`: longest wait for the lock;
    `lease_seconds`: how long it holds after the last sign of life of who has it.
    """
    first = await plan(session, sets)
    if first.empty:
        return first
    keyspace = first.keyspace
    if first.create_keyspace is not None:
        _refuse_too_few_nodes(session)
        await session.execute_cql(first.create_keyspace)
    await session.execute_cql(schema_lock.create_table(keyspace))
    lock = SchemaLock(session, keyspace, lease_seconds)
    deadline = time.monotonic() + wait_seconds
    while not await lock.try_acquire():
        if time.monotonic() > deadline:
            raise schema_lock.locked()
        await asyncio.sleep(random.uniform(0.2, 0.6))
        if (await plan(session, sets)).empty:
            return SchemaPlan(keyspace, first.create_keyspace, ())
    try:
        done = await _apply_locked(session, sets, keyspace, lock)
    finally:
        await lock.release()
    return SchemaPlan(keyspace, first.create_keyspace, done)


async def check(session: CassandraSession, sets: Sequence[SchemaSet]) -> None:
    """Raises when the keyspace is not exactly as this software needs it; says what to run."""
    found = await plan(session, sets)
    if found.create_keyspace is not None:
        raise FailedPrecondition(
            f"there is no keyspace {found.keyspace}; run `tidewire schema apply`, or correct {variable('keyspace')}",
            reason="STORE_KEYSPACE_MISSING",
            subject=found.keyspace,
        )
    if found.steps:
        raise FailedPrecondition(
            f"keyspace {found.keyspace} lacks {', '.join(step.title for step in found.steps)}; run "
            "`tidewire schema apply`",
            reason="SCHEMA_OUTDATED",
            subject=found.keyspace,
        )


async def open_session(
    settings: CassandraSettings, sets: Sequence[SchemaSet], *, metrics: CollectorRegistry | None = None
) -> CassandraSession:
    """Connects to the keyspace and checks its tables; with `auto_schema` applies what is missing first."""
    if settings.auto_schema:
        session = await connect(settings, keyspace=None)
        try:
            await apply(session, sets)
        finally:
            await session.close()
    session = await connect(settings, metrics=metrics)
    try:
        await check(session, sets)
    except BaseException:
        await session.close()
        raise
    return session


async def replication(session: CassandraSession) -> Mapping[str, str] | None:
    """Returns how the settings' keyspace is replicated: `class`, and copies by datacenter. None: there is none."""
    select = await session.prepare("SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?")
    rows = await session.execute(
        select, (session.settings.checked_keyspace(),), consistency=Consistency.LOCAL_ONE
    )
    return dict(rows[0].replication) if rows else None


async def _apply_locked(
    session: CassandraSession, sets: Sequence[SchemaSet], keyspace: str, lock: SchemaLock
) -> tuple[Step, ...]:
    await session.execute_cql(
        f"CREATE TABLE IF NOT EXISTS {keyspace}.{STEPS_TABLE} (component text, version int, name text, checksum text, "
        "applied_us bigint, PRIMARY KEY (component, version)) WITH comment = 'steps that were applied'"
    )
    record = await session.prepare(
        f"INSERT INTO {keyspace}.{STEPS_TABLE} (component, version, name, checksum, applied_us) "  # noqa: S608
        "VALUES (?, ?, ?, ?, ?)"
    )
    missing = (await plan(session, sets)).steps
    for step in missing:
        for statement in step.statements:
            await lock.renew()
            await session.execute_cql(statement, keyspace=keyspace)
        await lock.renew()
        now_us = time.time_ns() // 1000
        await session.execute(record, (step.component, step.version, step.name, step.checksum, now_us))
        _log.info("schema step applied", keyspace=keyspace, step=step.title)
    return missing


async def _tables(session: CassandraSession, keyspace: str) -> frozenset[str] | None:
    """Tables of the keyspace; None: there is no keyspace."""
    select = await session.prepare("SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?")
    if await replication(session) is None:
        return None
    # The schema is the same on every node once they agree, and each has all of it.
    rows = await session.execute(select, (keyspace,), consistency=Consistency.LOCAL_ONE)
    return frozenset(row.table_name for row in rows)


async def _refuse_foreign(session: CassandraSession, keyspace: str, tables: frozenset[str]) -> None:
    foreign = bool(tables - _OWN_TABLES) and STEPS_TABLE not in tables
    if STEPS_TABLE in tables:
        select = await session.prepare(
            "SELECT column_name FROM system_schema.columns WHERE keyspace_name = ? AND table_name = ?"
        )
        rows = await session.execute(select, (keyspace, STEPS_TABLE), consistency=Consistency.LOCAL_ONE)
        foreign = not {row.column_name for row in rows} >= _STEPS_COLUMNS
    if foreign:
        raise FailedPrecondition(
            f"keyspace {keyspace} has tables that are not Tidewire's; set {variable('keyspace')} to another one",
            reason="STORE_KEYSPACE_FOREIGN",
            subject=keyspace,
        )


async def _applied(session: CassandraSession, keyspace: str) -> dict[tuple[str, int], str]:
    """(component, version) → checksum."""
    text = f"SELECT component, version, checksum FROM {keyspace}.{STEPS_TABLE}"  # noqa: S608
    select = await _prepared_when_there(session, text)
    return {(row.component, row.version): row.checksum for row in await session.execute(select)}


async def _prepared_when_there(session: CassandraSession, text: str) -> Prepared:
    """A node lists a table that is just being made a moment before it can be read."""
    deadline = time.monotonic() + _APPEARS_SECONDS
    while True:
        try:
            return await session.prepare(text)
        except TidewireError as error:
            if isinstance(error, Unavailable | FailedPrecondition) or time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.1)


def _missing(sets: Sequence[SchemaSet], applied: Mapping[tuple[str, int], str], keyspace: str) -> list[Step]:
    missing = []
    for one in sets:
        steps = one.steps()
        newest = max((version for component, version in applied if component == one.component), default=0)
        if newest > len(steps):
            raise FailedPrecondition(
                f"keyspace {keyspace} has step {newest} of {one.component} and this software knows {len(steps)}; start "
                "a version at least as new",
                reason="SCHEMA_NEWER",
                subject=keyspace,
            )
        for step in steps:
            checksum = applied.get((step.component, step.version))
            if checksum is None:
                missing.append(step)
            elif checksum != step.checksum:
                raise FailedPrecondition(
                    f"step {step.title} was applied to keyspace {keyspace} with another text; use the release that "
                    "applied it: steps never change",
                    reason="SCHEMA_CHANGED",
                    subject=keyspace,
                )
    return missing


def _create_keyspace(session: CassandraSession) -> str:
    copies = session.settings.replication_factor
    return (
        f"CREATE KEYSPACE IF NOT EXISTS {session.settings.checked_keyspace()} WITH replication = "
        f"{{'class': 'NetworkTopologyStrategy', '{session.datacenter}': {copies}}}"
    )


def _refuse_too_few_nodes(session: CassandraSession) -> None:
    nodes, copies = session.nodes, session.settings.replication_factor
    if nodes < copies:
        raise FailedPrecondition(
            f"datacenter {session.datacenter} has {nodes} node(s), fewer than the {copies} copies of "
            f"{variable('replication_factor')}; add nodes, or set it to {nodes} (one copy: a failing node stops the "
            "platform and its disk is all there is)",
            reason="STORE_REPLICATION",
        )
