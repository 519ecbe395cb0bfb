"""What ingest holds in memory while something is in its way: it must be stored, or read again, or stay deleted."""

import asyncio
from pathlib import Path

import pytest

from tidewire_kit import topics
from tidewire_kit.ids import TenantId, new_uid
from tidewire_kit.log.port import TopicPartition
from tidewire_kit.owner import NO_ENTRIES, AdmittedRecord, LedgerCounts, PieceOfTable, hour_of
from tidewire_storage.adapters.embedded import EmbeddedStore
from tidewire_storage.application.ingest import IngestLimits, IngestReadings
from tidewire_storage.consumer import telemetry_owner
from tidewire_storage.ports import Flush
from tidewire_testkit.clock import ManualClock
from tidewire_testkit.polling import until
from tidewire_testkit.telemetry import make_table

SECOND = 1_000_000
T0 = 1_700_000_000 * SECOND
INCARNATION = new_uid()
TENANT = TenantId(new_uid())
MINE: TopicPartition = (topics.TELEMETRY, 0)
THEIRS: TopicPartition = (topics.TELEMETRY, 1)

embedded_only = pytest.mark.parametrize("backend", ["embedded"], indirect=True)
"""By nature: the trouble is a full disk. Cassandra's troubles are in test_cassandra_trouble.py."""


class SlowStore(EmbeddedStore):
    """Commits when the gate is open."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.gate = asyncio.Event()
        self.gate.set()
        self.commits = 0

    async def commit(self, flush: Flush) -> None:
        self.commits += 1
        await self.gate.wait()
        await super().commit(flush)


def record(partition: TopicPartition, device: bytes) -> AdmittedRecord:
    table = make_table(TENANT, ["m"], [(device, T0, [1.0])])
    ledger = [((TENANT, hour_of(T0)), LedgerCounts(accepted=1))]
    return AdmittedRecord(partition, 0, T0, [PieceOfTable(table, 0)], ledger, NO_ENTRIES)


@pytest.fixture
async def slow_rig(new_rig):
    """A rig that gathers what a test publishes into one flush, as a rule."""
    rig = new_rig()
    rig.limits = IngestLimits(flush_seconds=0.4, series_seconds=0.0)
    await rig.start()
    return rig


async def test_newest_values_of_a_partition_that_comes_during_a_flush_are_kept(tmp_path: Path) -> None:
    """Its last owner was killed before it wrote them; they are in its blocks only."""
    store = SlowStore(tmp_path)
    await store.open()
    clock = ManualClock()
    seldom = IngestLimits(flush_seconds=0, series_seconds=1e12)
    killed = IngestReadings(store, clock, INCARNATION, seldom)
    await killed.load([THEIRS])
    device = new_uid()
    killed.take(record(THEIRS, device))
    while not await killed.settle():
        await asyncio.sleep(0.001)
    assert await store.series(TENANT, [device]) == []

    alive = IngestReadings(store, clock, INCARNATION, IngestLimits(flush_seconds=0, series_seconds=0))
    await alive.load([MINE])
    alive.take(record(MINE, new_uid()))
    store.gate.clear()
    before = store.commits
    await alive.settle()

    async def committing() -> bool:
        return store.commits > before

    await until(committing)
    await alive.load([THEIRS])
    store.gate.set()
    await alive.flush([MINE, THEIRS])
    found = await store.series(TENANT, [device])
    assert [states.last_us.tolist() for states in found] == [[[T0]]]
    await store.close()


@embedded_only
async def test_a_partition_given_up_while_the_disk_is_full_takes_nothing_of_others_along(slow_rig) -> None:
    rig = slow_rig
    tenant = rig.world.add_tenant("acme")
    devices = [rig.world.add_device(tenant, f"d{number}") for number in range(64)]
    assert {rig.partition(device) for device in devices} == {0, 1, 2, 3}
    rig.free_bytes = 0
    for device in devices:
        await rig.publish(device, ["m"], [(T0, [1.0])])

    async def held_back() -> bool:
        return rig.owner.check() is not None and rig.ingest.in_flight_readings > 0

    await until(held_back)
    log, store = await rig.open_log(), rig.new_store()
    await store.open()
    ingest = IngestReadings(store, rig.clock, log.incarnation(topics.TELEMETRY), rig.limits)
    owner = telemetry_owner(log, rig.clock, ingest)
    await owner.start()

    async def shared() -> bool:
        return len(owner.partitions) == len(rig.owner.partitions) == 2

    await until(shared)
    rig.free_bytes = 1 << 40

    async def nothing_left() -> bool:
        return await rig.accounts.lag_records() == 0

    await until(nothing_left)
    for device in devices:
        assert await rig.read(device) == {(T0, "m"): 1.0}
    assert await rig.difference() == 0
    await owner.close()
    await store.close()
    await log.close()


@embedded_only
async def test_what_a_full_disk_held_back_is_not_stored_once_it_is_deleted(slow_rig) -> None:
    rig = slow_rig
    tenant, doomed = rig.world.add_tenant("acme"), rig.world.add_tenant("doomed")
    stays, goes = rig.world.add_device(tenant, "stays"), rig.world.add_device(tenant, "goes")
    theirs = rig.world.add_device(doomed, "theirs")
    rig.free_bytes = 0
    for device in (stays, goes, theirs):
        await rig.publish(device, ["m"], [(T0, [1.0])])

    async def held_back() -> bool:
        return rig.owner.check() is not None and rig.ingest.in_flight_readings > 0

    await until(held_back)
    rig.world.delete_device(goes)
    rig.world.delete_tenant(doomed)
    await rig.housekeeping.purge()
    rig.free_bytes = 1 << 40
    await rig.settled()
    assert await rig.read(stays) == {(T0, "m"): 1.0}
    assert await rig.store.find(doomed.uid, None, 0, 1 << 62) == []
    await rig.housekeeping.purge()
    assert goes.uid not in b"".join(file.read_bytes() for file in rig.block_files())
    assert await rig.difference() == 0


@embedded_only
async def test_a_cut_asked_for_while_the_disk_is_full_is_made_when_there_is_room(rig) -> None:
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "a")
    rig.free_bytes = 0
    await rig.publish(device, ["m"], [(T0, [1.0])])

    async def held_back() -> bool:
        return rig.owner.check() is not None

    cut = asyncio.create_task(rig.accounts.cut_epochs())
    await until(held_back)
    await asyncio.sleep(0.6)  # so that the request is seen while the disk is full, or before
    rig.free_bytes = 1 << 40
    assert await cut == 1
