"""Nodes of Cassandra die, hang and come back under load: refused or kept, never lost, and on again by itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tidewire_kit import settings
from tidewire_kit.cassandra import OUTCOME_UNKNOWN, CassandraSession, CassandraSettings, connect
from tidewire_kit.errors import Unavailable
from tidewire_testkit.faults.progress import progress
from tidewire_testkit.faults.row_load import KEYSPACE, RowLoad, create_table
from tidewire_testkit.polling import until
from tidewire_testkit.servers.cassandra import CassandraCluster

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300, func_only=True)]


REFUSED_SECONDS = 5.0
"""A request is tried elsewhere until its own deadline before it is refused; tests that wait for refusals set it low."""


@asynccontextmanager
async def connected(
    cluster: CassandraCluster, request_timeout_seconds: float = 15.0
) -> AsyncIterator[CassandraSession]:
    loaded = settings.load(CassandraSettings, cluster.environ())
    session = await connect(replace(loaded, request_timeout_seconds=request_timeout_seconds), keyspace=None)
    try:
        yield session
    finally:
        await session.close()


@pytest.fixture
async def three(three_nodes: CassandraCluster) -> CassandraCluster:
    return await prepared(three_nodes)


@pytest.fixture
async def lone(lone_node: CassandraCluster) -> CassandraCluster:
    return await prepared(lone_node)


async def prepared(cluster: CassandraCluster) -> CassandraCluster:
    async with connected(cluster) as session:
        await create_table(session, len(cluster.addresses))
    return cluster


async def some(load: RowLoad, rows: int) -> None:
    """Waits until so many more rows are acknowledged."""
    before = sum(map(len, load.acknowledged))
    await until(
        lambda: sum(map(len, load.acknowledged)) >= before + rows, seconds=60, message=f"{rows} rows more"
    )


@pytest.mark.parametrize("fault", ["killed", "suspended"])
async def test_nobody_notices_that_one_of_three_nodes_is_down(three: CassandraCluster, fault: str) -> None:
    async with connected(three) as session:
        load = RowLoad(session)
        async with load.running():
            await some(load, 200)
            if fault == "killed":
                three.kill(3)
            else:
                three.suspend(3)
            await some(load, 1000)
            if fault == "killed":
                await asyncio.to_thread(three.restart, 3)
            else:
                three.resume(3)
            await progress(lambda: load.last_begun, "writing")
        assert load.reads > 20
        assert (load.refused_writes, load.refused_reads) == (0, 0)
        assert await load.check() > 1200
    await asyncio.to_thread(three.wait_ready)


async def test_conditional_writes_count_exactly_while_one_of_three_nodes_is_killed(
    three: CassandraCluster,
) -> None:
    async with connected(three) as session:
        insert = await session.prepare(
            f"INSERT INTO {KEYSPACE}.counters (name, value) VALUES ('n', 0) IF NOT EXISTS"
        )
        update = await session.prepare(
            f"UPDATE {KEYSPACE}.counters SET value = ? WHERE name = 'n' IF value = ?"
        )
        assert (await session.apply(insert)).applied
        done = unknown = 0
        stop = asyncio.Event()

        async def count() -> None:
            nonlocal done, unknown
            value = 0
            while not stop.is_set():
                try:
                    outcome = await session.apply(update, (value + 1, value))
                except Unavailable as error:
                    unknown += error.reason == OUTCOME_UNKNOWN
                    await asyncio.sleep(0.1)
                    continue
                done += outcome.applied
                value = value + 1 if outcome.applied else outcome.row.value
                await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(2):
                tasks.create_task(count())
            try:
                await until(lambda: done > 30, seconds=60)
                three.kill(2)
                before = done
                await until(lambda: done > before + 100, seconds=60)
                await asyncio.to_thread(three.restart, 2)
                before = done
                await until(lambda: done > before + 30, seconds=60)
            finally:
                stop.set()
        select = await session.prepare(f"SELECT value FROM {KEYSPACE}.counters WHERE name = 'n'")
        (row,) = await session.execute(select)
        assert done <= row.value <= done + unknown


async def test_with_two_of_three_nodes_down_writes_are_refused_and_none_is_lost(
    three: CassandraCluster,
) -> None:
    async with connected(three, REFUSED_SECONDS) as session:
        load = RowLoad(session)
        async with load.running():
            await some(load, 200)
            three.kill(2)
            three.kill(3)
            await until(lambda: load.refused_writes >= 8, seconds=60, message="writes are refused")
            kept = sum(map(len, load.acknowledged))
            refused = load.refused_writes
            await until(lambda: load.refused_writes >= refused + 8, seconds=60, message="writes are refused")
            assert sum(map(len, load.acknowledged)) == kept, "acknowledged by one of three"
            with pytest.raises(Unavailable):
                await load.check()
            await asyncio.to_thread(three.restart, 2)
            await progress(lambda: load.last_begun, "writing with two of three")
            await asyncio.to_thread(three.restart, 3)
            await progress(lambda: load.last_begun, "writing with three")
        assert await load.check() > kept


async def test_a_lone_node_that_is_killed_has_lost_nothing(lone: CassandraCluster) -> None:
    async with connected(lone, REFUSED_SECONDS) as session:
        load = RowLoad(session)
        async with load.running():
            for _ in range(2):
                await some(load, 300)
                lone.kill()
                # A request is tried elsewhere until its own deadline before it is refused.
                await until(lambda: load.refused_writes > 0, seconds=45, message="writes are refused")
                await asyncio.to_thread(lone.restart)
                await progress(lambda: load.last_begun, "writing")
        assert await load.check() > 600

        load = RowLoad(session)
        async with load.running():
            await some(load, 100)
            lone.suspend()
            await until(
                lambda: load.refused_writes >= len(load.acknowledged),
                seconds=30,
                message="writes are refused",
            )
            lone.resume()
            await progress(lambda: load.last_begun, "writing")
        assert await load.check() > 100
