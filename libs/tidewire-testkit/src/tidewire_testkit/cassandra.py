"""Keyspaces for tests on a real Cassandra, and what is in them.

    @pytest.fixture(scope="module")
    def keyspace(cassandra_contact_points: str) -> Iterator[CassandraSettings]:
        with fresh_keyspace(cassandra_contact_points, [SchemaSet("registry", SCHEMA)]) as settings:
            yield settings

    @pytest.fixture
    async def session(keyspace: CassandraSettings) -> AsyncIterator[CassandraSession]:
        async with connected(keyspace) as session:
            yield session

Making a table takes 100 ms and more, so a module shares one keyspace, and its tests use keys of their own (random
tenants); where a test must find nothing, `truncate` first. A session belongs to one event loop, so each test connects.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

from tidewire_kit.cassandra import CassandraSession, CassandraSettings, Consistency, connect
from tidewire_kit.cassandra.schema import STEPS_TABLE, apply
from tidewire_kit.cassandra.schema_lock import TABLE as LOCK_TABLE
from tidewire_kit.cassandra.steps import SchemaSet

_DROP_SECONDS = 60.0


def new_settings(contact_points: str, replication_factor: int = 1) -> CassandraSettings:
    """Settings with the name of a keyspace that nobody has."""
    name = f"tidewire_test_{os.getpid()}_{secrets.token_hex(4)}"
    return CassandraSettings(
        contact_points=contact_points, keyspace=name, replication_factor=replication_factor
    )


@contextmanager
def fresh_keyspace(
    contact_points: str,
    sets: Sequence[SchemaSet] = (),
    *,
    cql: Sequence[str] = (),
    replication_factor: int = 1,
    drop: bool = True,
) -> Iterator[CassandraSettings]:
    """A new keyspace with the steps of `sets` applied, then the statements `cql`; dropped at the end, unless `drop` is
    False: on nodes that a test has killed they may not agree on that for a while, and are thrown away anyhow.

    Not for use within a running event loop; there is `keyspace`.
    """
    settings = new_settings(contact_points, replication_factor)
    asyncio.run(_with_admin(settings, lambda session: _create(session, sets, cql)))
    try:
        yield settings
    finally:
        if drop:
            asyncio.run(_with_admin(settings, _drop))


@asynccontextmanager
async def keyspace(
    contact_points: str, sets: Sequence[SchemaSet] = (), *, cql: Sequence[str] = ()
) -> AsyncIterator[CassandraSettings]:
    """The same within an event loop, for a test that changes the schema itself."""
    settings = new_settings(contact_points)
    try:
        await _with_admin(settings, lambda session: _create(session, sets, cql))
        yield settings
    finally:
        await _with_admin(settings, _drop)


@asynccontextmanager
async def connected(settings: CassandraSettings) -> AsyncIterator[CassandraSession]:
    """A session on the keyspace of `settings`, closed at the end."""
    session = await connect(settings)
    try:
        yield session
    finally:
        await session.close()


@asynccontextmanager
async def administrator(settings: CassandraSettings) -> AsyncIterator[CassandraSession]:
    """A session without a keyspace, as `plan` and `apply` of the schema take it."""
    session = await connect(settings, keyspace=None)
    try:
        yield session
    finally:
        await session.close()


async def truncate(session: CassandraSession) -> None:
    """Empties all tables of the session's keyspace but those of the schema steps."""
    for table in await tables(session, session.settings.keyspace):
        if table not in (STEPS_TABLE, LOCK_TABLE):
            await session.execute_cql(f"TRUNCATE {session.settings.keyspace}.{table}")


async def tables(session: CassandraSession, keyspace: str) -> list[str]:
    """Names of the tables of a keyspace."""
    select = await session.prepare("SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?")
    rows = await session.execute(select, (keyspace,), consistency=Consistency.LOCAL_ONE)
    return [row.table_name for row in rows]


async def described(session: CassandraSession, keyspace: str) -> dict[str, list[dict[str, object]]]:
    """The whole schema of a keyspace by kind of object, comparable with another keyspace's: names of keyspaces and ids
    of tables are left out, and so are the tables of the schema steps."""
    found: dict[str, list[dict[str, object]]] = {}
    for kind in ("tables", "columns", "indexes", "types", "views", "dropped_columns"):
        rows = await session.execute_cql(
            f"SELECT * FROM system_schema.{kind} WHERE keyspace_name = '{keyspace}'"
        )
        found[kind] = [
            {name: value for name, value in row._asdict().items() if name not in ("keyspace_name", "id")}
            for row in rows
            if getattr(row, "table_name", "") not in (STEPS_TABLE, LOCK_TABLE)
        ]
    return found


async def assert_steps_make_snapshot(contact_points: str, one: SchemaSet) -> None:
    """The steps of a component applied one by one give the same tables as its snapshot."""
    async with (
        keyspace(contact_points, [one]) as stepped,
        keyspace(contact_points, cql=one.snapshot()) as whole,
        administrator(stepped) as session,
    ):
        by_steps = await described(session, stepped.keyspace)
        # A column that a step drops is remembered by the table; a snapshot never had it.
        by_steps.pop("dropped_columns")
        by_snapshot = await described(session, whole.keyspace)
        by_snapshot.pop("dropped_columns")
        assert by_steps == by_snapshot


async def _create(session: CassandraSession, sets: Sequence[SchemaSet], cql: Sequence[str]) -> None:
    if sets:
        await apply(session, sets)
    else:
        await session.execute_cql(
            f"CREATE KEYSPACE {session.settings.keyspace} WITH replication = "
            f"{{'class': 'NetworkTopologyStrategy', '{session.datacenter}': {session.settings.replication_factor}}}"
        )
    for statement in cql:
        await session.execute_cql(statement, keyspace=session.settings.keyspace)


async def _drop(session: CassandraSession) -> None:
    await session.execute_cql(
        f"DROP KEYSPACE IF EXISTS {session.settings.keyspace}", timeout_seconds=_DROP_SECONDS
    )


async def _with_admin(
    settings: CassandraSettings, work: Callable[[CassandraSession], Awaitable[None]]
) -> None:
    patient = replace(settings, request_timeout_seconds=_DROP_SECONDS)
    async with administrator(patient) as session:
        await work(session)
