"""Replies lost, requests late, processes dead at every write of the Cassandra store: each commit once or not at all.

A process does a piece of work under a fault; another one, without faults, looks what is there and completes it, as an
owner of the partition does after a restart. Then everything must be there exactly once, and the ledger at zero.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial

import numpy as np
import pytest

from tidewire_kit.cassandra import CassandraSession, CassandraSettings
from tidewire_kit.cassandra.steps import SchemaSet
from tidewire_kit.clock import SystemClock
from tidewire_kit.errors import Unavailable
from tidewire_kit.ids import TenantId, new_uid
from tidewire_kit.owner import LedgerCounts
from tidewire_storage.adapters.cassandra import SCHEMA_DIRECTORY, CassandraStore
from tidewire_storage.domain.block_format import encode_block, read_block
from tidewire_storage.domain.blocks import BlockKey, EpochSpan, TopicPartitionKey
from tidewire_storage.domain.rows import SortedTable
from tidewire_storage.domain.series import states_of
from tidewire_storage.ports import Flush, PartitionFlush, ProgressMoved
from tidewire_testkit.cassandra import connected, fresh_keyspace
from tidewire_testkit.faults.injection import Crash, Fault, Schedule, at_each_call
from tidewire_testkit.faults.losing_session import LosingReplies
from tidewire_testkit.servers.cassandra import CassandraCluster
from tidewire_testkit.servers.shared import FaultServers

pytestmark = pytest.mark.timeout(600, func_only=True)

FLUSH_FAULTS = [Fault.LOST_REPLY, Fault.LATE_REQUEST, Fault.CRASH_BEFORE, Fault.CRASH_DURING]
UPKEEP_FAULTS = [Fault.LOST_REPLY, Fault.LATE_REQUEST, Fault.CRASH_DURING]

EVER = 1 << 62
T0 = 1_700_000_000_000_000


@pytest.fixture
async def session(storage_keyspace: CassandraSettings) -> AsyncIterator[CassandraSession]:
    async with connected(storage_keyspace) as session:
        yield session


class Platform:
    """A topic of its own with two partitions, and two tenants with a device each."""

    def __init__(self, session: CassandraSession) -> None:
        self.session = session
        self.incarnation = new_uid()
        self.tenants = [TenantId(new_uid()), TenantId(new_uid())]
        self.devices = [new_uid(), new_uid()]
        self.places = [TopicPartitionKey(self.incarnation, number) for number in (0, 1)]

    async def process(self, schedule: Schedule | None = None) -> CassandraStore:
        """A process; under faults if a schedule is given."""
        session = self.session if schedule is None else LosingReplies(self.session, schedule)

        async def opened() -> CassandraSession:
            return session

        store = CassandraStore(
            opened,
            SystemClock(),
            self.incarnation.hex(),
            lambda tenant, device: self.places[0],
            verify_seconds=0,
            orphan_seconds=0,
        )
        await store.open()
        return store

    def flush(self, number: int, expected: int | None, places: int = 2) -> Flush:
        """Flush `number` of both places: one row of each tenant's device in each."""
        blocks, parts, series = [], [], {}
        for place in self.places[:places]:
            ledger = {}
            series[place] = []
            for tenant, device in zip(self.tenants, self.devices, strict=True):
                table = SortedTable(
                    ("m",),
                    np.frombuffer(device, np.uint8).reshape(1, 16),
                    np.array([1], np.uint32),
                    np.array([T0 + number], np.int64),
                    [np.array([float(number)])],
                )
                key = BlockKey(tenant, place, 0, 0, number, number + 1)
                blocks.append(encode_block(key, 0, [table]))
                ledger[tenant, 0] = LedgerCounts(accepted=1, stored=1)
                series[place].append(states_of(tenant, table, number << 20))
            span = EpochSpan(0, 0, 0, number, number + 1, 2, 2, 100, False)
            entries = np.full((1, 4), number, np.uint64)
            parts.append(PartitionFlush(place, expected, number + 1, (span,), entries, T0, ledger))
        return Flush(blocks, parts, series, dict.fromkeys(self.places[:places], number + 1))

    async def values(self, store: CassandraStore, tenant: TenantId) -> list[float]:
        found: list[float] = []
        for data in await store.read(await store.find(tenant, None, 0, EVER)):
            assert data is not None
            found += [float(value) for reader in read_block(data)[1] for value in reader.table().values[0]]
        return found

    async def go_on(self, store: CassandraStore, number: int) -> None:
        """What an owner does that has lost its memory: asks, and stores what is not stored.

        A write that a dead process had sent may land between the two; then the owner asks again.
        """
        for _ in self.places:
            with contextlib.suppress(ProgressMoved):
                await self._store_rest(store, number)
                return
        await self._store_rest(store, number)

    async def _store_rest(self, store: CassandraStore, number: int) -> None:
        progress = await store.progress(self.places)
        whole = self.flush(number, number or None)
        parts = [
            part for part in whole.partitions if progress[part.place].next_offset == part.expected_offset
        ]
        mine = {part.place for part in parts}
        assert all(progress[place].next_offset == number + 1 for place in self.places if place not in mine)
        blocks = [block for block in whole.blocks if block.key.place in mine]
        await store.commit(Flush(blocks, parts, whole.series, whole.series_offsets))

    def upkeep(self, store: CassandraStore) -> list[Callable[[], Awaitable[int]]]:
        """A round of it: the first flush of the first tenant expires, its device and the second tenant are deleted."""
        return [
            lambda: store.expire(self.tenants[0], T0 + 1),
            lambda: store.bury([self.tenants[1]], [(self.tenants[0], self.devices[0])]),
            store.sweep,
        ]

    async def assert_kept(self, store: CassandraStore) -> None:
        """That of three flushes is there what a round of upkeep leaves, counted once."""
        account = await store.ledger(None, 0, EVER)
        assert account.difference == 0
        # Of place 1 the device's blocks stay: by its uid it has nothing there.
        assert [(line.key[0], line.stored, line.purged) for line in account.lines] == sorted(
            [(self.tenants[0], 6, 4), (self.tenants[1], 6, 6)]
        )
        assert sorted(await self.values(store, self.tenants[0])) == [1.0, 2.0]
        assert await store.find(self.tenants[1], None, 0, EVER) == []
        for tenant, device in zip(self.tenants, self.devices, strict=True):
            assert all(not len(states.device_uids) for states in await store.series(tenant, [device]))
        assert await store.difference() == 0

    async def assert_whole(self, store: CassandraStore, flushes: int) -> None:
        """That this many flushes are there, exactly once."""
        for tenant, device in zip(self.tenants, self.devices, strict=True):
            assert sorted(await self.values(store, tenant)) == sorted(2 * [float(n) for n in range(flushes)])
            (states,) = await store.series(tenant, [device])
            assert (states.last_us.item(), states.value.item()) == (T0 + flushes - 1, flushes - 1.0)
        account = await store.ledger(None, 0, EVER)
        assert [(line.stored, line.present, line.difference) for line in account.lines] == 2 * [
            (2 * flushes, 2 * flushes, 0)
        ]
        assert await store.difference() == 0
        assert {usage.stored_readings for usage in await store.usage(None)} == {2 * flushes}
        for place in self.places:
            (epoch,) = await store.epochs(place)
            assert (epoch.covered_offset, epoch.blocks_written, epoch.blocks_present) == (
                flushes,
                2 * flushes,
                2 * flushes,
            )
            entries = (await store.progress([place]))[place].entries
            assert entries[:, 0].tolist() == list(range(flushes))


async def drained(store: CassandraStore) -> None:
    """What comes late has come."""
    session = store._session
    assert isinstance(session, LosingReplies)
    await session.drain()


async def chunks_of(platform: Platform) -> int:
    """Rows of bytes there are of the platform's blocks."""
    count = 0
    select = await platform.session.prepare(
        "SELECT chunk FROM storage_blocks WHERE tenant = ? AND incarnation = ? AND log_partition = ? AND slice = 0 "
        "AND epoch = 0"
    )
    for tenant in platform.tenants:
        for place in platform.places:
            count += len(
                await platform.session.execute(select, (tenant, platform.incarnation, place.partition))
            )
    return count


@pytest.mark.servers
@pytest.mark.parametrize("fault", FLUSH_FAULTS, ids=lambda fault: fault.name.lower())
async def test_a_flush_is_there_once_whatever_happens_to_its_writes(
    session: CassandraSession, fault: Fault
) -> None:
    async def run(schedule: Schedule) -> None:
        platform = Platform(session)
        first = await platform.process()
        await first.commit(platform.flush(0, None))
        suffering = await platform.process(schedule)
        with contextlib.suppress(Crash, Unavailable):
            await suffering.commit(platform.flush(1, 1))
        heir = await platform.process()
        await platform.go_on(heir, 1)
        await drained(suffering)
        await heir.sweep()
        await platform.assert_whole(heir, 2)
        assert await chunks_of(platform) == 8, "of what no commit names nothing is left"
        await heir.commit(platform.flush(2, 2))
        await platform.assert_whole(heir, 3)

    assert await at_each_call(fault, run) > 10


@pytest.mark.servers
@pytest.mark.parametrize("fault", UPKEEP_FAULTS, ids=lambda fault: fault.name.lower())
async def test_deleting_and_expiring_are_counted_once_whatever_happens(
    session: CassandraSession, fault: Fault
) -> None:
    async def run(schedule: Schedule) -> None:
        platform = Platform(session)
        first = await platform.process()
        for number in range(3):
            await first.commit(platform.flush(number, number or None))
        assert await first.difference() == 0
        suffering = await platform.process(schedule)
        # Each round of upkeep goes on with the next piece when one fails, as housekeeping does.
        for piece in platform.upkeep(suffering):
            with contextlib.suppress(Crash, Unavailable):
                await piece()
        assert await first.difference() == 0, "a recount that remembers sees no loss in what is half done"
        await drained(suffering)
        heir = await platform.process()
        for piece in platform.upkeep(heir):
            await piece()
        await platform.assert_kept(heir)
        assert await first.difference() == 0

    assert await at_each_call(fault, run) > 10


@pytest.mark.servers
@pytest.mark.parametrize("fault", UPKEEP_FAULTS, ids=lambda fault: fault.name.lower())
async def test_requests_to_cut_are_noted_whatever_happens(session: CassandraSession, fault: Fault) -> None:
    async def run(schedule: Schedule) -> None:
        platform = Platform(session)
        first = await platform.process()
        before = await first.request_cut()
        await first.note_cut(before, dict.fromkeys(platform.places, False))
        suffering = await platform.process(schedule)
        answered = 0
        with contextlib.suppress(Crash, Unavailable):
            answered = await suffering.request_cut()
            await suffering.note_cut(answered, dict.fromkeys(platform.places, True))
        await drained(suffering)
        heir = await platform.process()
        wanted = await heir.cut_requested()
        assert wanted >= max(answered, before), "a request that was answered is there"
        await heir.note_cut(wanted, dict.fromkeys(platform.places, True))
        assert await heir.cuts_noted(wanted) == {0: True, 1: True}
        assert await heir.request_cut() > wanted
        assert await heir.cuts_noted(wanted + 1) == {}

    assert await at_each_call(fault, run) >= 3


@pytest.mark.servers
async def test_an_owner_that_slept_does_no_harm(session: CassandraSession) -> None:
    platform = Platform(session)
    sleeper, heir = await platform.process(), await platform.process()
    await sleeper.commit(platform.flush(0, None))
    await heir.progress(platform.places)
    await heir.commit(platform.flush(1, 1))
    with pytest.raises(ProgressMoved, match="stands at 2"):
        await sleeper.commit(platform.flush(1, 1))
    # Its newest values come after the heir's, and say less.
    await sleeper._series.write(platform.places[0], 1, platform.flush(0, None).series[platform.places[0]])
    await platform.assert_whole(heir, 2)


@pytest.mark.servers
async def test_of_several_partitions_those_without_another_owner_are_stored(
    session: CassandraSession,
) -> None:
    platform = Platform(session)
    store, other = await platform.process(), await platform.process()
    await store.commit(platform.flush(0, None))
    await other.commit(platform.flush(1, 1, places=1))
    with pytest.raises(ProgressMoved):
        await store.commit(platform.flush(1, 1))
    assert await store.progress_offsets(platform.incarnation) == {0: 2, 1: 2}
    assert await store.difference() == 0


@pytest.mark.servers
async def test_what_upkeep_changes_meanwhile_does_not_stop_an_owner(session: CassandraSession) -> None:
    """Two writers of one place: the owner goes on where its progress stands, on the counts that upkeep left."""
    platform = Platform(session)
    owner, keeper = await platform.process(), await platform.process()
    for number in range(4):
        await owner.commit(platform.flush(number, number or None))
        assert await keeper.expire(platform.tenants[0], T0 + number) == (2 if number else 0)
    account = await owner.ledger(platform.tenants[0], 0, EVER)
    assert [(line.stored, line.purged, line.present, line.difference) for line in account.lines] == [
        (8, 6, 2, 0)
    ]
    assert await owner.difference() == 0


@pytest.fixture(params=[1, 3])
def dying(request: pytest.FixtureRequest, fault_servers: FaultServers) -> Iterator[CassandraCluster]:
    """A lone node that will die, or three of which one will."""
    cluster = fault_servers.cassandra(request.param)
    yield cluster
    cluster.start()


@pytest.fixture
def dying_keyspace(dying: CassandraCluster) -> Iterator[CassandraSettings]:
    steps = SchemaSet("storage", SCHEMA_DIRECTORY)
    copies = len(dying.addresses)
    with fresh_keyspace(dying.contact_points, [steps], replication_factor=copies, drop=False) as settings:
        yield settings


@pytest.mark.faults
async def test_flushes_and_upkeep_while_a_node_is_killed(
    dying: CassandraCluster, dying_keyspace: CassandraSettings
) -> None:
    """With three nodes all goes on while one is down, with a lone one when it is back; the ledger stays at zero."""
    last = len(dying.addresses)
    async with connected(dying_keyspace) as session:
        platform = Platform(session)
        owner, keeper = await platform.process(), await platform.process()
        stored = 0

        async def flushes(more: int) -> None:
            nonlocal stored
            for _ in range(more):
                await insisting(partial(platform.go_on, owner, stored))
                stored += 1

        await flushes(4)
        dying.kill(last)
        if last == 1:
            restarting = asyncio.create_task(asyncio.to_thread(dying.restart, last))
        await flushes(4)
        await insisting(lambda: keeper.expire(platform.tenants[0], T0 + 1))
        await insisting(keeper.sweep)
        assert await insisting(keeper.difference) == 0
        if last > 1:
            restarting = asyncio.create_task(asyncio.to_thread(dying.restart, last))
            await flushes(4)
        await restarting
        await flushes(2)

        account = await keeper.ledger(None, 0, EVER)
        assert [(line.key[0], line.stored, line.purged, line.difference) for line in account.lines] == sorted(
            [(platform.tenants[0], 2 * stored, 2, 0), (platform.tenants[1], 2 * stored, 0, 0)]
        )
        for tenant, first in zip(platform.tenants, (1, 0), strict=True):
            assert sorted(await platform.values(keeper, tenant)) == sorted(
                2 * [float(n) for n in range(first, stored)]
            )
        assert await keeper.difference() == 0


async def insisting[T](work: Callable[[], Awaitable[T]]) -> T:
    """Tries again until it is done, as owners and housekeeping do; a node that dies may cost some tries."""
    deadline = time.monotonic() + 90
    while True:
        try:
            return await work()
        except Unavailable:
            assert time.monotonic() < deadline, "the store is not back"
            await asyncio.sleep(0.2)
