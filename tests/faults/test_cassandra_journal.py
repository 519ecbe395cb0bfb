"""Commits by the journal, and reads over ranges, while nodes of Cassandra die and hang."""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from tidewire_kit import settings
from tidewire_kit.cassandra import CassandraSession, CassandraSettings
from tidewire_testkit import journal_model
from tidewire_testkit.cassandra import connected, fresh_keyspace
from tidewire_testkit.faults.injection import Never
from tidewire_testkit.polling import until
from tidewire_testkit.servers.cassandra import CassandraCluster
from tidewire_testkit.servers.shared import FaultServers

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300, func_only=True)]


@pytest.fixture(scope="module")
def keyspace(fault_servers: FaultServers) -> Iterator[CassandraSettings]:
    loaded = settings.load(CassandraSettings, fault_servers.cassandra(3).environ())
    with fresh_keyspace(
        loaded.contact_points, cql=journal_model.TABLES, replication_factor=3, drop=False
    ) as fresh:
        # Longer than nodes need, on a busy machine, to find out that one of them is dead.
        yield replace(loaded, keyspace=fresh.keyspace, request_timeout_seconds=40)


@pytest.fixture
async def session(
    three_nodes: CassandraCluster, keyspace: CassandraSettings
) -> AsyncIterator[CassandraSession]:
    async with connected(keyspace) as session:
        yield session


async def test_commits_are_whole_while_nodes_are_killed_and_suspended(
    three_nodes: CassandraCluster, session: CassandraSession
) -> None:
    unit = secrets.token_bytes(8)
    tries: list[journal_model.Try] = []
    stop = asyncio.Event()

    async def process(seed: int) -> None:
        rng = random.Random(seed)
        while not stop.is_set():
            await journal_model.process(session, unit, Never(), rng, 1, tries)

    async def some(more: int) -> None:
        enough = sum(one.outcome == "returned" for one in tries) + more
        await until(
            lambda: sum(one.outcome == "returned" for one in tries) >= enough,
            seconds=60,
            message=f"{more} commits more",
        )

    async with asyncio.TaskGroup() as tasks:
        for seed in range(3):
            tasks.create_task(process(seed))
        try:
            await some(20)
            three_nodes.kill(3)
            await some(40)
            await asyncio.to_thread(three_nodes.restart, 3)
            await some(20)
            three_nodes.suspend(2)
            await some(20)
            three_nodes.resume(2)
            await some(20)
        finally:
            three_nodes.resume(2)
            stop.set()
    await journal_model.verify(session, unit, tries)
    await asyncio.to_thread(three_nodes.wait_ready)


async def test_a_read_over_a_range_is_answered_while_a_dead_node_is_taken_to_be_alive(
    three_nodes: CassandraCluster, session: CassandraSession
) -> None:
    put = await session.prepare("INSERT INTO rows (part, id, value) VALUES (?, 1, ?)")
    scan = await session.prepare("SELECT part, id, value FROM rows")
    parts = {secrets.token_bytes(8) for _ in range(200)}
    await session.execute_all(put, ((part, b"scan") for part in parts))
    three_nodes.suspend(1)
    try:
        for _ in range(5):
            rows = await session.execute(scan, page_rows=100)
            assert {row.part for row in rows if row.value == b"scan"} == parts
    finally:
        three_nodes.resume(1)
        await asyncio.to_thread(three_nodes.wait_ready)
