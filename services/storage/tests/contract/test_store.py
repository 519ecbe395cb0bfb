"""What any store of blocks has to do. A new adapter adds itself to `backend` (conftest.py) and passes all of this.

At the end are a few cases of the embedded store alone: by nature they are about files and a full disk.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from tidewire_kit.cassandra import CassandraSettings
from tidewire_kit.clock import SystemClock
from tidewire_kit.ids import TenantId, new_uid
from tidewire_kit.owner import LedgerCounts
from tidewire_storage.adapters.embedded import EmbeddedStore
from tidewire_storage.domain.block_format import encode_block, read_block
from tidewire_storage.domain.blocks import ROLLUP_DAY, BlockKey, EpochSpan, OpenEpoch, TopicPartitionKey
from tidewire_storage.domain.rows import SortedTable
from tidewire_storage.domain.series import states_of
from tidewire_storage.ports import Flush, PartitionFlush, ProgressMoved, Store, StoreFull

A, B = TenantId(new_uid()), TenantId(new_uid())
INCARNATION = new_uid()
HOUR = 3_600_000_000
T0 = 1_700_000_000_000_000
EVER = 1 << 62


OpenStore = Callable[[], Awaitable[Store]]


@pytest.fixture(autouse=True)
def fresh_names() -> None:
    """Tests of a store in a server share its tables, so each has tenants and a topic of its own."""
    globals().update(A=TenantId(new_uid()), B=TenantId(new_uid()), INCARNATION=new_uid())


@pytest.fixture
async def open_store(backend: CassandraSettings | None, tmp_path: Path) -> AsyncIterator[OpenStore]:
    """Opens one more store on the same data, as another process would."""
    stores: list[Store] = []

    async def make() -> Store:
        store: Store
        if backend is None:
            store = EmbeddedStore(tmp_path)
        else:
            store = cassandra_store(backend)
        await store.open()
        stores.append(store)
        return store

    yield make
    for store in stores:
        await store.close()


def cassandra_store(settings: CassandraSettings) -> Store:
    """Every look at the ledger looks at every block."""
    from tidewire_kit.cassandra import connect
    from tidewire_storage.adapters.cassandra import CassandraStore

    def place_of(tenant: TenantId, device: bytes) -> TopicPartitionKey:
        return place()

    return CassandraStore(
        lambda: connect(settings), SystemClock(), INCARNATION.hex(), place_of, verify_seconds=0
    )


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()


def place(partition: int = 0) -> TopicPartitionKey:
    return TopicPartitionKey(INCARNATION, partition)


def table(
    device: bytes, times: list[int], values: list[float], metrics: tuple[str, ...] = ("m",)
) -> SortedTable:
    columns = [np.array(values, np.float64) for _ in metrics]
    uids = np.frombuffer(device, np.uint8).reshape(1, 16)
    return SortedTable(metrics, uids, np.array([len(times)], np.uint32), np.array(times, np.int64), columns)


def flush(
    tenants: dict[TenantId, list[SortedTable]],
    first: int,
    end: int,
    *,
    partition: int = 0,
    expected: int | None = None,
    epoch: int = 0,
    cut: bool = False,
    hour: int = 0,
    entries: int = 0,
) -> Flush:
    """One partition's flush of offsets [first, end)."""
    where = place(partition)
    blocks = [
        encode_block(BlockKey(tenant, where, 0, epoch, first, end), hour, tables)
        for tenant, tables in tenants.items()
    ]
    ledger = {
        (block.key.tenant, hour): LedgerCounts(accepted=block.facts.readings, stored=block.facts.readings)
        for block in blocks
    }
    readings = sum(block.facts.readings for block in blocks)
    span = EpochSpan(epoch, 0 if epoch == 0 else first, hour, first, end, len(blocks), readings, 100, cut)
    noted = np.full((entries, 4), end, np.uint64)
    part = PartitionFlush(where, expected, end, (span,), noted, T0, ledger)
    states = [states_of(tenant, item, first << 20) for tenant, tables in tenants.items() for item in tables]
    return Flush(blocks, [part], {where: states}, {where: end})


async def contents(store: Store, tenant: TenantId, start: int = 0, end: int = EVER) -> list[float]:
    values: list[float] = []
    for data in await store.read(await store.find(tenant, None, start, end)):
        assert data is not None
        for reader in read_block(data)[1]:
            values += reader.table().values[0].tolist()
    return values


async def test_an_empty_store_knows_nothing(store: Store) -> None:
    progress = (await store.progress([place(0), place(1)]))[place(1)]
    assert (progress.next_offset, progress.epoch, len(progress.entries)) == (None, None, 0)
    assert await store.find(A, None, 0, EVER) == []
    assert await store.series(A, [new_uid()]) == []
    assert (await store.ledger(None, 0, EVER)).lines == []
    assert await store.usage(None) == []
    assert await store.epochs(place()) == []


async def test_a_commit_is_there_in_all_its_parts(store: Store, open_store: OpenStore) -> None:
    device = new_uid()
    await store.commit(flush({A: [table(device, [T0, T0 + 1], [1.0, 2.0])]}, 0, 10, entries=3))
    for reader in (store, await open_store()):
        progress = (await reader.progress([place()]))[place()]
        assert (progress.next_offset, progress.series_offset) == (10, 10)
        assert progress.epoch == OpenEpoch(0, 0, 0, 100)
        assert progress.entries.shape == (3, 4)
        assert await contents(reader, A) == [1.0, 2.0]
        (states,) = await reader.series(A, [device, new_uid()])
        assert (states.first_us[0, 0], states.last_us[0, 0], states.value[0, 0]) == (T0, T0 + 1, 2.0)
        (line,) = (await reader.ledger(A, 0, EVER)).lines
        assert (line.accepted, line.stored, line.present, line.difference) == (2, 2, 2, 0)
        assert await reader.difference() == 0
        (usage,) = await reader.usage(A)
        assert (usage.stored_readings, usage.stored_bytes > 0) == (2, True)
        assert await reader.progress_offsets(INCARNATION) == {0: 10}


async def test_progress_must_stand_where_the_flush_expects_it(store: Store) -> None:
    device = new_uid()
    await store.commit(flush({A: [table(device, [T0], [1.0])]}, 0, 10))
    for expected in (None, 5, 11):
        with pytest.raises(ProgressMoved, match="stands at 10"):
            await store.commit(flush({A: [table(device, [T0], [9.0])]}, 3, 20, expected=expected))
    assert await contents(store, A) == [1.0]
    assert (await store.ledger(None, 0, EVER)).difference == 0
    await store.commit(flush({A: [table(device, [T0 + 1], [2.0])]}, 10, 20, expected=10))
    assert await contents(store, A) == [1.0, 2.0]


async def test_of_two_owners_that_race_one_wins(store: Store, open_store: OpenStore) -> None:
    other = await open_store()
    device = new_uid()
    outcomes = await asyncio.gather(
        *(s.commit(flush({A: [table(device, [T0], [1.0])]}, 0, 10)) for s in (store, other)),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes if outcome is not None] == [ProgressMoved]
    assert await contents(store, A) == [1.0]


async def test_tenants_are_apart(store: Store) -> None:
    device = new_uid()
    await store.commit(flush({A: [table(device, [T0], [1.0])], B: [table(device, [T0], [2.0])]}, 0, 1))
    assert await contents(store, A) == [1.0]
    assert await contents(store, B) == [2.0]
    assert [states.value.item() for states in await store.series(A, [device])] == [1.0]
    assert [line.key[0] for line in (await store.ledger(B, 0, EVER)).lines] == [B]
    assert [usage.tenant for usage in await store.usage(B)] == [B]
    assert {usage.tenant for usage in await store.usage(None)} == {A, B}


async def test_find_takes_what_overlaps_in_time_and_place(store: Store) -> None:
    device = new_uid()
    await store.commit(flush({A: [table(device, [100, 200], [1.0, 2.0])]}, 0, 1))
    await store.commit(flush({A: [table(device, [200, 300], [3.0, 4.0])]}, 1, 2, expected=1))
    await store.commit(flush({A: [table(device, [50], [5.0])]}, 0, 1, partition=1))
    assert await contents(store, A) == [5.0, 1.0, 2.0, 3.0, 4.0], "by least time"
    assert await contents(store, A, 201, EVER) == [3.0, 4.0]
    assert await contents(store, A, 0, 100) == [5.0]
    assert await contents(store, A, 200, 201) == [1.0, 2.0, 3.0, 4.0]
    assert len(await store.find(A, place(1), 0, EVER)) == 1
    assert await store.find(A, TopicPartitionKey(new_uid(), 0), 0, EVER) == []


async def test_find_goes_on_where_it_stopped(store: Store) -> None:
    device = new_uid()
    times = [(5, 9), (1, 2), (5, 6), (3, 90), (5, 6), (8, 8)]
    for number, (least, greatest) in enumerate(times):
        rows = [table(device, [least, greatest], [float(number), float(number)])]
        await store.commit(flush({A: rows}, number, number + 1, expected=number or None))
    for start, end in ((0, EVER), (6, EVER), (7, 9), (91, EVER)):
        whole = await store.find(A, place(), start, end)
        assert [block.facts.min_time_us for block in whole] == sorted(
            least for least, greatest in times if greatest >= start and least < end
        )
        paged = []
        look = await store.look(A, place(), start, end, (None, ROLLUP_DAY))
        assert (look.found, look.seals) == ((whole, []), await store.seals(place()))
        page = await store.find(A, place(), start, end, limit=2)
        while page:
            assert len(page) <= 2
            paged += page
            page = await store.find(A, place(), start, end, after=page[-1], limit=2)
        assert [block.key for block in paged] == [block.key for block in whole]


async def test_epochs_open_grow_and_are_cut(store: Store) -> None:
    device = new_uid()
    await store.commit(flush({A: [table(device, [T0], [1.0])]}, 0, 5))
    await store.commit(flush({A: [table(device, [T0], [1.0])]}, 5, 9, expected=5, cut=True))
    assert (await store.progress([place()]))[place()].epoch == OpenEpoch(1, 9, -1, 0)
    await store.commit(flush({}, 9, 12, expected=9, epoch=1))
    first, second = await store.epochs(place())
    assert (first.first_offset, first.end_offset, first.covered_offset, first.blocks_written) == (0, 9, 9, 2)
    assert first.complete
    assert (second.first_offset, second.end_offset, second.covered_offset) == (9, None, 12)
    assert not second.complete
    assert [block.key.first_offset for block in await store.blocks_after(place(), 5)] == [5]
    assert len(await store.blocks_after(place(), 0)) == 2


async def test_the_newest_reading_wins_whatever_the_order(store: Store) -> None:
    device = new_uid()
    await store.commit(flush({A: [table(device, [T0 + 5], [5.0])]}, 0, 1))
    await store.commit(flush({A: [table(device, [T0 + 1], [1.0])]}, 1, 2, expected=1))
    await store.commit(flush({A: [table(device, [T0 + 9], [math.nan])]}, 2, 3, expected=2))
    (states,) = await store.series(A, [device])
    assert (states.first_us.item(), states.last_us.item(), states.value.item()) == (T0 + 1, T0 + 5, 5.0)
    await store.commit(flush({A: [table(device, [T0 + 5], [6.0])]}, 3, 4, expected=3))
    (states,) = await store.series(A, [device])
    assert states.value.item() == 6.0, "a correction at the same time"


async def test_expiry_takes_whole_blocks_of_one_tenant(store: Store) -> None:
    device = new_uid()
    await store.commit(
        flush({A: [table(device, [10, 20], [1.0, 2.0])], B: [table(device, [10], [9.0])]}, 0, 1)
    )
    await store.commit(flush({A: [table(device, [15, 30], [3.0, 4.0])]}, 1, 2, expected=1))
    assert await store.expire(A, 25) == 2
    assert await store.expire(A, 25) == 0
    assert await contents(store, A) == [3.0, 4.0]
    assert await contents(store, B) == [9.0]
    account = await store.ledger(None, 0, EVER)
    assert account.difference == 0
    assert sum(line.purged for line in account.lines) == 2


async def test_a_buried_device_is_gone_after_the_sweep_and_stays_gone(store: Store) -> None:
    doomed, kept = new_uid(), new_uid()
    both = SortedTable(
        ("m",),
        np.frombuffer(doomed + kept, np.uint8).reshape(2, 16),
        np.array([2, 1], np.uint32),
        np.array([T0, T0 + 1, T0], np.int64),
        [np.array([1.0, 2.0, 3.0])],
    )
    await store.commit(flush({A: [both], B: [table(doomed, [T0], [7.0])]}, 0, 1))
    await store.commit(flush({A: [table(doomed, [T0 + 9], [4.0])]}, 1, 2, expected=1))
    assert await store.bury([], [(A, doomed)]) == 1
    assert await store.sweep() == 3
    assert await store.bury([], [(A, doomed)]) == 0
    assert await store.sweep() == 0
    assert await contents(store, A) == [3.0]
    assert await contents(store, B) == [7.0], "another tenant's device, whatever its uid"
    assert [states.device_uids.tobytes() for states in await store.series(A, [doomed, kept])] == [kept]
    assert (await store.ledger(None, 0, EVER)).difference == 0


async def test_a_buried_tenant_is_gone(store: Store) -> None:
    device = new_uid()
    await store.commit(
        flush({A: [table(device, [T0], [1.0])], B: [table(device, [T0], [2.0])]}, 0, 1, hour=HOUR)
    )
    assert await store.bury([A], []) == 1
    assert await store.find(A, None, 0, EVER) == []
    assert await store.series(A, [device]) == []
    await store.sweep()
    assert await contents(store, B) == [2.0]
    account = await store.ledger(None, 0, EVER)
    assert account.difference == 0
    assert {line.key: (line.accepted, line.purged) for line in account.lines} == {
        (A, HOUR): (1, 1),
        (B, HOUR): (1, 0),
    }


async def test_a_block_removed_between_find_and_read_is_said_to_be_gone(store: Store) -> None:
    await store.commit(flush({A: [table(new_uid(), [T0], [1.0])]}, 0, 1))
    found = await store.find(A, None, 0, EVER)
    await store.bury([A], [])
    await store.sweep()
    assert await store.read(found) == [None]


async def test_a_block_whose_bytes_went_between_find_and_read_is_said_to_be_gone(
    store: Store, open_store: OpenStore
) -> None:
    device = new_uid()
    await store.commit(flush({A: [table(device, [T0], [1.0])]}, 0, 1))
    await store.commit(flush({A: [table(device, [T0 - HOUR], [2.0])]}, 1, 2, expected=1))
    await store.close()
    again = await open_store()
    old, new = await again.find(A, None, 0, EVER)
    assert await again.expire(A, T0) == 1
    await again.sweep()
    gone, there = await again.read([old, new])
    assert gone is None
    assert there is not None
    assert read_block(there)[0].key == new.key


async def test_requests_to_cut_are_numbered_and_noted(store: Store, open_store: OpenStore) -> None:
    assert await store.cut_requested() == 0
    first = await store.request_cut()
    other = await open_store()
    assert await other.cut_requested() == first > 0
    await other.note_cut(first, {place(0): True, place(3): False})
    assert await store.cuts_noted(first) == {0: True, 3: False}
    second = await store.request_cut()
    assert second > first
    assert await store.cuts_noted(second) == {}


async def test_old_window_entries_go(store: Store) -> None:
    await store.commit(flush({}, 0, 1, entries=5))
    late = flush({}, 1, 2, expected=1, entries=2)
    (part,) = late.partitions
    moved = PartitionFlush(part.place, 1, 2, part.spans, part.entries, T0 + 601_000_000)
    await store.commit(Flush(partitions=[moved]))
    assert len((await store.progress([place()]))[place()].entries) == 2


class Disk:
    """How much room the store finds."""

    def __init__(self) -> None:
        self.free = 1 << 40


async def test_a_full_disk_refuses_and_takes_the_same_flush_later(tmp_path: Path) -> None:
    disk = Disk()
    store = EmbeddedStore(tmp_path, min_free_bytes=1000, free=lambda _: disk.free)
    await store.open()
    what = flush({A: [table(new_uid(), [T0], [1.0])]}, 0, 1)
    disk.free = 10
    with pytest.raises(StoreFull, match="make room"):
        await store.commit(what)
    assert await store.find(A, None, 0, EVER) == []
    disk.free = 1 << 40
    await store.commit(what)
    assert await contents(store, A) == [1.0]
    await store.close()


async def test_a_refused_flush_takes_no_room_on_the_disk(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    await store.open()
    await store.commit(flush({A: [table(new_uid(), [T0], [1.0])]}, 0, 1))
    sizes = [file.stat().st_size for file in tmp_path.glob("blocks/*")]
    with pytest.raises(ProgressMoved):
        await store.commit(flush({A: [table(new_uid(), [T0], [2.0])]}, 0, 1))
    assert [file.stat().st_size for file in tmp_path.glob("blocks/*")] == sizes
    await store.commit(flush({A: [table(new_uid(), [T0], [3.0])]}, 1, 2, expected=1))
    assert await contents(store, A) == [1.0, 3.0]
    await store.close()
