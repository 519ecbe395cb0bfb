"""Sealing: the same readings, fewer blocks, whatever happens beside it. Runs on both stores."""

import asyncio
import random
import sqlite3
from typing import Any

import numpy as np
import pytest

from tidewire_storage.application.aggregate import Question
from tidewire_storage.application.gather import EpochLimits
from tidewire_storage.application.ingest import IngestLimits
from tidewire_storage.application.seal import SealEpochs
from tidewire_storage.domain.aggregates import Function
from tidewire_storage.domain.block_format import read_block
from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_testkit.polling import until

T0 = 1_700_000_000_000_000
SECOND = 1_000_000
Model = dict[tuple[int, str], float]


async def publish(rig, device, count: int, *, rows: int = 20, begin: int = 0) -> Model:
    """So many records of (a, b), each flushed by itself: as many blocks."""
    model: Model = {}
    for number in range(begin, begin + count):
        times = [T0 + (number * rows + row) * SECOND for row in range(rows)]
        data = [(time, [float(number), float(time % 97)]) for time in times]
        await rig.publish(device, ("a", "b"), data)
        await rig.settled()
        for time, (a, b) in data:
            model |= {(time, "a"): a, (time, "b"): b}
    return model


async def seal(rig) -> int:
    """Cuts and seals everything."""
    await rig.settled()
    await rig.accounts.cut_epochs()
    return await rig.sealing.round()


def place_of(rig, device) -> TopicPartitionKey:
    return TopicPartitionKey(rig.ingest._incarnation, rig.partition(device))


async def blocks(rig, device) -> list[Any]:
    return await rig.store.find(device.tenant.uid, place_of(rig, device), 0, 1 << 62)


async def test_flushed_blocks_become_one_that_answers_the_same(rig) -> None:
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "d")
    model = await publish(rig, device, 5)
    assert len(await blocks(rig, device)) == 5
    flushed_bytes = (await rig.accounts.usage(tenant.uid))[0].stored_bytes
    assert await seal(rig) == 1
    (block,) = await blocks(rig, device)
    assert (block.key.level, block.head_bytes > 0, block.facts.readings) == (1, True, len(model))
    assert await rig.read(device) == model
    assert await rig.read(device, ["b"], T0 + 30 * SECOND, T0 + 50 * SECOND) == {
        key: value
        for key, value in model.items()
        if key[1] == "b" and T0 + 30 * SECOND <= key[0] < T0 + 50 * SECOND
    }
    (usage,) = await rig.accounts.usage(tenant.uid)
    assert usage.stored_readings == len(model)
    assert usage.stored_bytes < flushed_bytes
    assert await rig.difference() == 0
    assert await rig.store.difference() == 0
    assert await rig.sealing.round() == 0, "nothing is left to seal"
    (epoch, *_) = await rig.store.epochs(place_of(rig, device))
    assert epoch.sealed
    assert epoch.complete


async def test_what_was_replaced_counts_as_sent_again(rig) -> None:
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "d")
    for value in (1.0, 2.0, 3.0):
        await rig.publish(device, ("a",), [(T0, [value]), (T0 + int(value), [value])])
        await rig.settled()
    await seal(rig)
    assert await rig.read(device) == {
        (T0, "a"): 3.0,
        (T0 + 1, "a"): 1.0,
        (T0 + 2, "a"): 2.0,
        (T0 + 3, "a"): 3.0,
    }
    (line,) = (await rig.accounts.ledger(tenant.uid, 0, 1 << 62)).account.lines
    assert (line.accepted, line.stored, line.duplicate, line.present, line.difference) == (6, 4, 2, 4, 0)
    await rig.publish(device, ("a",), [(T0, [9.0])])  # a correction, in the next epoch
    await rig.settled()
    assert (await rig.read(device))[T0, "a"] == 9.0
    await seal(rig)
    assert (await rig.read(device))[T0, "a"] == 9.0


async def test_many_devices_and_tenants_lie_apart(rig) -> None:
    source = random.Random(7)
    tenants = [rig.world.add_tenant(name) for name in ("acme", "other")]
    devices = [rig.world.add_device(tenant, f"d{number}") for tenant in tenants for number in range(12)]
    models: dict[int, Model] = {}
    for _ in range(3):
        for number, device in enumerate(devices):
            rows = [
                (T0 + source.randrange(10_000) * SECOND, [source.random()])
                for _ in range(source.randrange(1, 40))
            ]
            await rig.publish(device, ("a",), rows)
            models.setdefault(number, {}).update({(time, "a"): cells[0] for time, cells in rows})
        await rig.settled()
    await seal(rig)
    for number, device in enumerate(devices):
        assert await rig.read(device) == models[number]
    for tenant in tenants:
        mine = [device for device in devices if device.tenant is tenant]
        asked = Question(["a"], [Function.COUNT], across_devices=True)
        (total,) = (await rig.aggregate.run(tenant.uid, [d.id for d in mine], asked)).series
        expected = sum(len(models[number]) for number, device in enumerate(devices) if device in mine)
        assert total.columns[0].tolist() == [expected]
    assert await rig.difference() == 0


async def test_a_long_series_is_read_by_its_pages(rig, monkeypatch: pytest.MonkeyPatch) -> None:
    device = rig.world.add_device(rig.world.add_tenant("acme"), "d")
    model: Model = {}
    for number in range(8):
        times = np.arange(5_000) + number * 5_000
        await rig.publish(device, ("a",), [(T0 + int(time) * SECOND, [float(time)]) for time in times])
        model |= {(T0 + int(time) * SECOND, "a"): float(time) for time in times}
    await seal(rig)
    (block,) = await blocks(rig, device)
    asked: list[int] = []
    read_ranges = rig.store.read_ranges

    async def noted(ranges):
        asked.extend(length for one in ranges for _, length in one.ranges)
        return await read_ranges(ranges)

    monkeypatch.setattr(rig.store, "read_ranges", noted)
    window = await rig.read(device, [], T0 + 100 * SECOND, T0 + 200 * SECOND)
    assert window == {key: value for key, value in model.items() if 100 <= (key[0] - T0) // SECOND < 200}
    assert asked[0] == block.head_bytes
    assert len(asked) == 2, "the directory, and one page"
    await rig.read(device, [], T0, T0 + 1)
    assert len(asked) == 3, "the directory is remembered"
    assert await rig.read(device) == model


async def test_a_reader_beside_sealing_and_merging_misses_and_repeats_nothing(rig) -> None:
    rig.limits = IngestLimits(
        flush_seconds=0.01, series_seconds=0.0, epochs=EpochLimits(gathered_bytes=2_000)
    )
    await rig.stop()
    await rig.start()
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "d")
    model = await publish(rig, device, 40)
    await rig.accounts.cut_epochs()
    assert len(await blocks(rig, device)) == 40
    done = asyncio.Event()

    async def read() -> int:
        looks = 0
        while not done.is_set() or looks < 3:
            assert await rig.read(device) == model
            looks += 1
        return looks

    readers = [asyncio.create_task(read()) for _ in range(3)]
    assert await rig.sealing.round() >= 8
    assert await rig.merging.round() == 1
    done.set()
    assert sum(await asyncio.gather(*readers)) >= 9
    assert all(block.key.level == 2 for block in await blocks(rig, device))


async def test_a_query_goes_on_with_what_has_replaced_its_blocks(
    rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of the answer all blocks are sealed and their bytes are swept away."""
    monkeypatch.setattr("tidewire_storage.application.sweep._PAGE_BLOCKS", 3)
    monkeypatch.setattr("tidewire_storage.application.sweep._FIRST_BLOCKS", 1)
    monkeypatch.setattr("tidewire_storage.application.sweep._BLOCKS_AT_ONCE", 2)
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "d")
    model = await publish(rig, device, 9)
    found: Model = {}
    parts = 0
    async for part in rig.read_series.read(tenant.uid, device.id, [], None, None, 0, ""):
        parts += 1
        if parts == 2:
            assert await seal(rig) == 1
            await rig.store.sweep()
        for name, column in zip(part.metrics, part.values, strict=True):
            for time, value in zip(part.time_unix_us.tolist(), column.tolist(), strict=True):
                assert (time, name) not in found
                found[time, name] = value
    assert found == model


async def test_of_two_that_seal_one_does(rig) -> None:
    device = rig.world.add_device(rig.world.add_tenant("acme"), "d")
    model = await publish(rig, device, 6)
    await rig.accounts.cut_epochs()
    other = rig.new_store()
    await other.open()
    try:
        late = SealEpochs(other, lambda: rig.ingest.places, lambda: rig.ingest.buried)
        outcomes = await asyncio.gather(rig.sealing.round(), late.round())
        assert sum(outcomes) == 1
        assert await late.round() == 0
        assert len(await other.find(device.tenant.uid, place_of(rig, device), 0, 1 << 62)) == 1
    finally:
        await other.close()
    assert await rig.read(device) == model
    assert await rig.difference() == 0


async def test_a_seal_of_blocks_that_have_changed_does_nothing(rig, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = rig.world.add_tenant("acme")
    devices = [rig.world.add_device(tenant, f"d{number}") for number in range(2)]
    while rig.partition(devices[0]) != rig.partition(devices[1]):
        devices[1] = rig.world.add_device(tenant, f"d{random.randrange(1 << 40)}")
    model = await publish(rig, devices[0], 2)
    await publish(rig, devices[1], 2)
    await rig.accounts.cut_epochs()
    apply = rig.store.seal

    async def purged_meanwhile(seal):
        monkeypatch.setattr(rig.store, "seal", apply)
        await rig.store.bury([], [(tenant.uid, devices[1].uid)])
        await rig.store.sweep()
        return await apply(seal)

    monkeypatch.setattr(rig.store, "seal", purged_meanwhile)
    assert await rig.sealing.round() == 0
    assert await rig.read(devices[0]) == model
    assert await rig.sealing.round() == 1
    assert await rig.read(devices[0]) == model
    assert await rig.read(devices[1]) == {}
    assert await rig.difference() == 0


async def test_tenants_whose_blocks_are_alike_are_told_apart(rig) -> None:
    """Sealed by one change, of one length: each query reads the directory of its own."""
    devices = [rig.world.add_device(rig.world.add_tenant("acme"), "d")]
    other = rig.world.add_tenant("other")
    while len(devices) < 2:
        device = rig.world.add_device(other, f"d{random.randrange(1 << 40)}")
        if rig.partition(device) == rig.partition(devices[0]):
            devices.append(device)
    models = [await publish(rig, device, 3) for device in devices]
    await seal(rig)
    for device, model in zip(devices, models, strict=True):
        assert await rig.read(device) == model


@pytest.mark.parametrize("what", ["device", "tenant"])
async def test_what_is_deleted_leaves_sealed_blocks_too(rig, what: str) -> None:
    tenant, other = rig.world.add_tenant("acme"), rig.world.add_tenant("other")
    doomed, kept = rig.world.add_device(tenant, "doomed"), rig.world.add_device(other, "kept")
    neighbour = rig.world.add_device(tenant, "neighbour")
    models = [await publish(rig, device, 3) for device in (doomed, kept, neighbour)]
    await seal(rig)
    await publish(rig, doomed, 2, begin=10)
    if what == "device":
        await rig.store.bury([], [(tenant.uid, doomed.uid)])
    else:
        await rig.store.bury([tenant.uid], [])
    await rig.store.sweep()
    assert await rig.read(doomed) == {}
    assert await rig.read(kept) == models[1]
    assert await rig.read(neighbour) == (models[2] if what == "device" else {})
    assert await rig.difference() == 0
    await seal(rig)
    assert await rig.read(doomed) == {}
    assert await rig.read(neighbour) == (models[2] if what == "device" else {})
    assert await rig.difference() == 0


async def test_expiry_takes_sealed_blocks(rig) -> None:
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "d")
    await publish(rig, device, 3)
    await seal(rig)
    later = await publish(rig, device, 3, begin=100)
    await seal(rig)
    assert await rig.store.expire(tenant.uid, T0 + 1_000 * SECOND) == 3 * 20 * 2
    assert await rig.read(device) == later
    assert await rig.difference() == 0


async def test_series_states_are_made_from_sealed_blocks_too(rig) -> None:
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "d")
    rig.limits = IngestLimits(flush_seconds=0.01, series_seconds=4.0)
    await rig.stop()
    await rig.start()
    model = await publish(rig, device, 3)
    await seal(rig)
    # A process that dies now has not written the newest values; its successor makes them from what is stored.
    place = place_of(rig, device)
    found = await rig.store.blocks_after(place, 0)
    assert [block.key.level for block in found] == [1]
    (raw,) = await rig.store.read(found)
    assert sum(reader.table().readings() for reader in read_block(raw)[1]) == len(model)

    async def known() -> bool:
        page = await rig.series.page(tenant.uid, [], [], 10, "")
        return [(entry.metric, entry.last_us) for entry in page.entries] == [
            ("a", max(model)[0]),
            ("b", max(model)[0]),
        ]

    await until(known)


async def test_one_epoch_at_most_waits_while_readings_come_fast(rig) -> None:
    device = rig.world.add_device(rig.world.add_tenant("acme"), "d")
    pressed = True
    sealing = SealEpochs(rig.store, lambda: rig.ingest.places, lambda: rig.ingest.buried, lambda: pressed)
    model: Model = {}
    for number, (unsealed, sealed) in enumerate([(1, 0), (2, 1), (2, 1)]):
        model |= await publish(rig, device, 2, begin=2 * number)
        await rig.accounts.cut_epochs()
        waiting = [epoch for epoch in await rig.store.unsealed(place_of(rig, device)) if epoch.complete]
        assert len(waiting) == unsealed
        assert await sealing.round() == sealed
    assert await rig.read(device) == model
    pressed = False
    assert await sealing.round() == 1
    assert await rig.read(device) == model


@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
async def test_a_catalog_of_the_first_version_is_brought_up_to_date(rig) -> None:
    device = rig.world.add_device(rig.world.add_tenant("acme"), "d")
    model = await publish(rig, device, 3)
    await rig.accounts.cut_epochs()
    await rig.stop()
    catalog = sqlite3.connect(rig.path / "storage" / "catalog.db", isolation_level=None)
    for statement in (
        "DROP INDEX epochs_flushed",
        "DROP INDEX epochs_sealed",
        "DROP INDEX epochs_merged",
        "DROP INDEX epochs_unmerged",
        "ALTER TABLE epochs DROP COLUMN seal_id",
        "ALTER TABLE epochs DROP COLUMN merge_id",
        "ALTER TABLE blocks DROP COLUMN level",
        "ALTER TABLE blocks DROP COLUMN head_bytes",
        "PRAGMA user_version=1",
    ):
        catalog.execute(statement)
    catalog.close()
    await rig.start()
    assert await rig.read(device) == model

    async def sealed() -> bool:  # once the partitions are ours again
        return await rig.sealing.round() == 1

    await until(sealed)
    assert await rig.read(device) == model
    assert await rig.difference() == 0
