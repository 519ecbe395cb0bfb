"""Schema steps on a real node."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tidewire_kit.cassandra import CassandraSession, CassandraSettings, schema
from tidewire_kit.cassandra.schema_lock import SchemaLock, create_table
from tidewire_kit.cassandra.steps import MANIFEST, SchemaSet, write_manifest
from tidewire_kit.errors import FailedPrecondition, Unavailable
from tidewire_testkit.cassandra import (
    administrator,
    assert_steps_make_snapshot,
    keyspace,
    new_settings,
    tables,
)
from tidewire_testkit.faults.injection import At, Crash, Fault
from tidewire_testkit.faults.losing_session import LosingReplies

pytestmark = pytest.mark.servers

FIRST = """
-- Two tables; and a comment with a semicolon
CREATE TABLE IF NOT EXISTS demo_a (k text PRIMARY KEY, v blob) WITH comment = 'a;b';
CREATE TABLE IF NOT EXISTS demo_b (k text, c int, v blob, PRIMARY KEY (k, c))
    WITH compaction = {'class': 'TimeWindowCompactionStrategy'};
"""
SECOND = "ALTER TABLE demo_a ADD IF NOT EXISTS w int;"
SNAPSHOT = """
CREATE TABLE IF NOT EXISTS demo_a (k text PRIMARY KEY, v blob, w int) WITH comment = 'a;b';
CREATE TABLE IF NOT EXISTS demo_b (k text, c int, v blob, PRIMARY KEY (k, c))
    WITH compaction = {'class': 'TimeWindowCompactionStrategy'};
"""


@pytest.fixture
def demo(tmp_path: Path) -> SchemaSet:
    (tmp_path / "0001_first.cql").write_text(FIRST)
    (tmp_path / "0002_second.cql").write_text(SECOND)
    (tmp_path / "snapshot.cql").write_text(SNAPSHOT)
    write_manifest(tmp_path)
    return SchemaSet("demo", tmp_path)


@pytest.fixture
async def settings(cassandra_contact_points: str) -> AsyncIterator[CassandraSettings]:
    """A keyspace that is not there yet, and is dropped."""
    settings = new_settings(cassandra_contact_points)
    yield settings
    async with administrator(settings) as session:
        await session.execute_cql(f"DROP KEYSPACE IF EXISTS {settings.keyspace}")


@pytest.fixture
async def admin(settings: CassandraSettings) -> AsyncIterator[CassandraSession]:
    async with administrator(settings) as session:
        yield session


async def reason(awaitable: object) -> str:
    with pytest.raises(FailedPrecondition) as caught:
        await awaitable  # type: ignore[misc]
    return caught.value.reason


async def test_steps_one_by_one_make_the_snapshot(cassandra_contact_points: str, demo: SchemaSet) -> None:
    await assert_steps_make_snapshot(cassandra_contact_points, demo)


async def test_a_snapshot_that_says_something_else_is_noticed(
    cassandra_contact_points: str, demo: SchemaSet
) -> None:
    (demo.directory / "snapshot.cql").write_text(SNAPSHOT.replace("w int", "w bigint"))
    with pytest.raises(AssertionError):
        await assert_steps_make_snapshot(cassandra_contact_points, demo)


async def test_plan_says_what_apply_does(admin: CassandraSession, demo: SchemaSet) -> None:
    settings = admin.settings
    plan = await schema.plan(admin, [demo])
    assert plan.create_keyspace is not None
    assert f"'{admin.datacenter}': 1" in plan.create_keyspace
    assert [step.title for step in plan.steps] == ["demo 0001_first", "demo 0002_second"]
    assert await reason(schema.check(admin, [demo])) == "STORE_KEYSPACE_MISSING"
    done = await schema.apply(admin, [demo])
    assert done.steps == plan.steps
    assert (await schema.plan(admin, [demo])).empty
    assert (await schema.apply(admin, [demo])).empty
    await schema.check(admin, [demo])
    replication = await schema.replication(admin)
    assert replication is not None
    assert replication[admin.datacenter] == "1"
    assert replication["class"].endswith("NetworkTopologyStrategy")
    session = await schema.open_session(settings, [demo])
    assert session.keyspace == settings.keyspace
    await session.close()

    (demo.directory / "0003_third.cql").write_text("DROP TABLE IF EXISTS demo_b;")
    write_manifest(demo.directory)
    assert await reason(schema.open_session(settings, [demo])) == "SCHEMA_OUTDATED"
    assert [step.version for step in (await schema.apply(admin, [demo])).steps] == [3]
    assert "demo_b" not in await tables(admin, settings.keyspace)

    (demo.directory / "0003_third.cql").unlink()
    (demo.directory / MANIFEST).unlink()
    write_manifest(demo.directory)
    assert await reason(schema.check(admin, [demo])) == "SCHEMA_NEWER"

    (demo.directory / "0001_first.cql").write_text(FIRST.replace("v blob", "v text"))
    (demo.directory / "0003_third.cql").write_text("DROP TABLE IF EXISTS demo_b;")
    (demo.directory / MANIFEST).unlink()
    write_manifest(demo.directory)
    assert await reason(schema.apply(admin, [demo])) == "SCHEMA_CHANGED"


async def test_the_start_applies_steps_where_that_is_wished(
    settings: CassandraSettings, demo: SchemaSet
) -> None:
    automatic = CassandraSettings(
        settings.contact_points, keyspace=settings.keyspace, replication_factor=1, auto_schema=True
    )
    sessions = await asyncio.gather(*(schema.open_session(automatic, [demo]) for _ in range(3)))
    for session in sessions:
        await session.close()


async def test_eight_processes_apply_at_once(settings: CassandraSettings, demo: SchemaSet) -> None:
    async def one() -> int:
        async with administrator(settings) as session:
            done = await schema.apply(session, [demo])
            await schema.check(session, [demo])
            return len(done.steps)

    counts = await asyncio.gather(*(one() for _ in range(8)))
    assert sum(counts) == 2, "each step was applied by one of them"


async def test_who_takes_over_from_a_dead_process_finishes_its_steps(
    admin: CassandraSession, demo: SchemaSet
) -> None:
    # Lock, renewal and first statement, renewal and second, renewal: dies before it notes the first step.
    dying = LosingReplies(admin, At(4, Fault.CRASH_BEFORE))
    with pytest.raises(Crash):
        await schema.apply(dying, [demo], lease_seconds=10)
    assert "demo_b" in await tables(admin, admin.settings.keyspace)
    assert [step.version for step in (await schema.plan(admin, [demo])).steps] == [1, 2]
    done = await schema.apply(admin, [demo])
    assert [step.version for step in done.steps] == [1, 2]
    await schema.check(admin, [demo])


async def test_a_lock_that_is_held_makes_others_wait_and_say_why(
    admin: CassandraSession, demo: SchemaSet
) -> None:
    await schema.apply(admin, [])
    name = admin.settings.keyspace
    await admin.execute_cql(create_table(name))
    lock, other = SchemaLock(admin, name), SchemaLock(admin, name)
    assert await lock.try_acquire()
    assert not await other.try_acquire()
    with pytest.raises(Unavailable) as caught:
        await schema.apply(admin, [demo], wait_seconds=0.5)
    assert caught.value.reason == "SCHEMA_LOCKED"
    with pytest.raises(Unavailable):
        await other.renew()
    await other.release()  # of a lock that is not ours: does nothing
    await lock.renew()
    await lock.release()
    assert await other.try_acquire()


async def test_somebody_elses_keyspace_is_refused(cassandra_contact_points: str, demo: SchemaSet) -> None:
    users = "CREATE TABLE users (id int PRIMARY KEY)"
    async with keyspace(cassandra_contact_points, cql=[users]) as theirs, administrator(theirs) as session:
        assert await reason(schema.plan(session, [demo])) == "STORE_KEYSPACE_FOREIGN"
        assert await reason(schema.apply(session, [demo])) == "STORE_KEYSPACE_FOREIGN"
        await session.execute_cql(f"CREATE TABLE {theirs.keyspace}.schema_steps (id int PRIMARY KEY)")
        assert await reason(schema.apply(session, [demo])) == "STORE_KEYSPACE_FOREIGN"
        assert sorted(await tables(session, theirs.keyspace)) == ["schema_steps", "users"]


async def test_more_copies_than_nodes_are_refused_at_the_creation(
    settings: CassandraSettings, demo: SchemaSet
) -> None:
    three = CassandraSettings(settings.contact_points, keyspace=settings.keyspace, replication_factor=3)
    async with administrator(three) as session:
        assert await reason(schema.apply(session, [demo])) == "STORE_REPLICATION"
        assert (await schema.plan(session, [demo])).create_keyspace is not None
