"""Merging and rollups: buckets equal those of a dictionary, whatever was merged when. Runs on both stores."""

import asyncio
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewire_storage.application.buckets import Bucketed
from tidewire_storage.application.gather import EpochLimits
from tidewire_storage.application.ingest import IngestLimits
from tidewire_storage.application.merge import MergeLimits
from tidewire_storage.domain.blocks import (
    DAY_BLOCK,
    ROLLUP_DAY,
    ROLLUP_HOUR,
    ROLLUP_MINUTE,
    TopicPartitionKey,
)
from tidewire_storage.domain.rollups import DAY_US, HOUR_US, MINUTE_US

SECOND = 1_000_000
DAY0 = 19_000 * DAY_US
Model = dict[tuple[int, str], float]

MOMENTS = (
    *(0, 1, 30 * SECOND, MINUTE_US - 1, MINUTE_US, 61 * SECOND, HOUR_US - 1, HOUR_US, 7 * HOUR_US),
    *(DAY_US - 1, DAY_US, DAY_US + MINUTE_US, DAY_US + HOUR_US, 40 * DAY_US),
)
CELL = st.one_of(st.just(math.nan), st.integers(-5, 5).map(float))
BATCH = st.tuples(
    st.just("batch"),
    st.integers(0, 1),
    st.sampled_from([("a",), ("b", "a")]),
    st.lists(st.tuples(st.sampled_from(MOMENTS), CELL, CELL), min_size=1, max_size=6),
)
STEPS = st.lists(
    st.one_of(BATCH, BATCH, st.just(("seal",)), st.just(("merge",)), st.just(("merge",))), max_size=12
)


async def merge(rig: Any) -> int:
    """Cuts, seals and merges everything."""
    await rig.settled()
    await rig.accounts.cut_epochs()
    await rig.sealing.round()
    return await rig.merging.round()


def place_of(rig: Any, device: Any) -> TopicPartitionKey:
    return TopicPartitionKey(rig.ingest._incarnation, rig.partition(device))


async def blocks(rig: Any, device: Any, rollup: int | None = None) -> list[Any]:
    place = place_of(rig, device)
    look = await rig.store.look(device.tenant.uid, place, 0, 1 << 62, (rollup, None))
    assert look.seals == await rig.store.seals(place) > 0
    assert look.found[0] == await rig.store.find(device.tenant.uid, place, 0, 1 << 62, rollup=rollup)
    return look.found[0]


async def bucketed(
    rig: Any, device: Any, start_us: int, end_us: int, width_us: int | None
) -> tuple[dict[tuple[str, int], list[float]], Bucketed]:
    """(metric, bucket) → count, sum, min, max, first, last, stddev; and the answer itself."""
    found = await rig.buckets.of(
        device.tenant.uid,
        place_of(rig, device),
        [device.uid],
        ["a", "b"],
        start_us,
        end_us,
        width_us,
        start_us,
    )
    rows = {}
    for metric, part in found.parts.items():
        assert len({*part.bucket.tolist()}) == len(part)
        for row, bucket in enumerate(part.bucket.tolist()):
            deviation = math.sqrt(part.squares[row] / part.count[row])
            assert part.first_us[row] <= part.last_us[row]
            rows[metric, bucket] = [
                float(column[row])
                for column in (part.count, part.total, part.least, part.greatest, part.first, part.last)
            ] + [deviation]
    return rows, found


def expected(
    model: Model, start_us: int, end_us: int, width_us: int | None
) -> dict[tuple[str, int], list[Any]]:
    groups: dict[tuple[str, int], list[float]] = {}
    for (time, metric), value in sorted(model.items()):
        if start_us <= time < end_us:
            groups.setdefault((metric, start_us if width_us is None else time - time % width_us), []).append(
                value
            )
    return {
        key: [
            float(len(v)),
            sum(v),
            min(v),
            max(v),
            v[0],
            v[-1],
            pytest.approx(float(np.std(v)), rel=1e-5, abs=1e-9),
        ]
        for key, v in groups.items()
    }


@settings(max_examples=8, deadline=None)
@given(steps=STEPS, least=st.sampled_from([1, 8, 1000]))
def test_buckets_are_those_of_a_dictionary(
    rig_type: Callable[[Path], Any], steps: list[Any], least: int
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_run(rig_type(Path(directory)), steps, least))


async def _run(rig: Any, steps: list[Any], least: int) -> None:
    rig.limits = IngestLimits(flush_seconds=0.01, series_seconds=0.01, epochs=EpochLimits(gathered_bytes=300))
    rig.merge_limits = MergeLimits(readings=least)
    await rig.start()
    try:
        tenant = rig.world.add_tenant("acme")
        devices = [rig.world.add_device(tenant, f"d{number}") for number in range(2)]
        model: list[Model] = [{}, {}]
        for step in steps:
            match step:
                case ("batch", device, metrics, rows):
                    data = [(DAY0 + time, list(cells[: len(metrics)])) for time, *cells in rows]
                    await rig.publish(devices[device], metrics, data)
                    for time, cells in data:
                        for metric, value in zip(metrics, cells, strict=True):
                            if not math.isnan(value):
                                model[device][time, metric] = value
                case ("seal",):
                    await rig.settled()
                    await rig.accounts.cut_epochs()
                    await rig.sealing.round()
                case _:
                    await rig.merging.round()
        await rig.settled()
        for _ in range(2):
            for device, readings in zip(devices, model, strict=True):
                assert await rig.read(device) == readings
                for width_us in (MINUTE_US, 10 * MINUTE_US, HOUR_US, DAY_US, None):
                    for start_us, end_us in (
                        (DAY0, DAY0 + 64 * DAY_US),
                        (DAY0 + 1, DAY0 + DAY_US + HOUR_US + 1),
                        (DAY0 + 30 * SECOND, DAY0 + 7 * HOUR_US),
                    ):
                        found, _ = await bucketed(rig, device, start_us, end_us, width_us)
                        assert found == expected(readings, start_us, end_us, width_us)
            lines = (await rig.accounts.ledger(tenant.uid, 0, 1 << 62)).account.lines
            assert all(line.difference == 0 for line in lines)
            assert await rig.store.difference() == 0
            await merge(rig)
            assert await rig.merging.round() == 0
    finally:
        await rig.stop()


async def a_day(rig: Any, device: Any, *, epochs: int = 4, rows: int = 30) -> Model:
    """So many sealed epochs."""
    model: Model = {}
    for number in range(epochs):
        times = [DAY0 + (number * rows + row) * 10 * SECOND for row in range(rows)]
        data = [(time, [float(number), float(time // SECOND % 97)]) for time in times]
        await rig.publish(device, ("a", "b"), data)
        await rig.settled()
        await rig.accounts.cut_epochs()
        await rig.sealing.round()
        model |= {
            (time, name): value for time, cells in data for name, value in zip("ab", cells, strict=True)
        }
    return model


async def test_sealed_epochs_of_a_day_become_one_block_with_rollups(rig: Any) -> None:
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "d")
    model = await a_day(rig, device)
    assert len(await blocks(rig, device)) == 4
    (before,) = await rig.accounts.usage(tenant.uid)
    assert await rig.merging.round() == 1
    (block,) = await blocks(rig, device)
    assert (block.key.level, block.facts.readings) == (DAY_BLOCK, len(model))
    assert [len(await blocks(rig, device, level)) for level in (ROLLUP_MINUTE, ROLLUP_HOUR, ROLLUP_DAY)] == [
        1
    ] * 3
    assert await rig.read(device) == model
    (after,) = await rig.accounts.usage(tenant.uid)
    assert after.stored_readings == before.stored_readings == len(model)
    assert await rig.store.difference() == 0
    for width_us, level in ((DAY_US, ROLLUP_DAY), (2 * HOUR_US, ROLLUP_HOUR), (5 * MINUTE_US, ROLLUP_MINUTE)):
        found, answer = await bucketed(rig, device, DAY0, DAY0 + DAY_US, width_us)
        assert answer.tier is not None
        assert answer.tier.level == level
        assert found == expected(model, DAY0, DAY0 + DAY_US, width_us)
    _, answer = await bucketed(rig, device, DAY0, DAY0 + DAY_US, 5 * SECOND)
    assert answer.tier is None
    assert await rig.merging.round() == 0, "nothing is left to merge"
    assert [epoch.complete for epoch in await rig.store.epochs(place_of(rig, device))] == [True] * 4


async def test_what_is_merged_is_what_has_ended_or_is_enough(rig: Any) -> None:
    device = rig.world.add_device(rig.world.add_tenant("acme"), "d")
    await a_day(rig, device)
    rig.merging._clock = rig.clock
    assert await rig.merging.round() == 0, "the day has not ended"
    rig.merging._limits = MergeLimits(readings=120)
    assert await rig.merging.round() == 2, "two epochs have 120 readings"
    assert len(await blocks(rig, device)) == 2


async def test_a_late_reading_corrects_its_buckets(rig: Any) -> None:
    device = rig.world.add_device(rig.world.add_tenant("acme"), "d")
    model = await a_day(rig, device)
    await merge(rig)
    for time, value in (
        (DAY0 + 20 * SECOND, 1000.0),
        (DAY0 + 21 * SECOND, -1000.0),
        (DAY0 + 23 * HOUR_US, 7.0),
    ):
        await rig.publish(device, ("a",), [(time, [value])])
        model[time, "a"] = value
    await rig.settled()
    for _ in range(2):  # before and after the late readings are merged
        for width_us in (MINUTE_US, HOUR_US, DAY_US):
            found, answer = await bucketed(rig, device, DAY0, DAY0 + DAY_US, width_us)
            assert answer.tier is not None
            assert found == expected(model, DAY0, DAY0 + DAY_US, width_us)
        await merge(rig)


async def test_rollups_outlive_readings(rig: Any) -> None:
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "d")
    view = rig.world.directory.tenant(tenant.uid)
    view.retention = type(view.retention)(raw_seconds=3600.0, rollup_seconds=None)
    model = await a_day(rig, device)
    await merge(rig)
    await rig.housekeeping.expire()
    assert await rig.read(device) == {}
    assert await rig.store.difference() == 0
    for width_us in (MINUTE_US, HOUR_US, DAY_US, None):
        found, _ = await bucketed(rig, device, DAY0, DAY0 + DAY_US, width_us)
        assert found == expected(model, DAY0, DAY0 + DAY_US, width_us)
    late = DAY0 + 3 * HOUR_US
    await rig.publish(device, ("a",), [(late, [5.0])])
    model[late, "a"] = 5.0
    await merge(rig)
    found, _ = await bucketed(rig, device, DAY0, DAY0 + DAY_US, DAY_US)
    assert found == expected(model, DAY0, DAY0 + DAY_US, DAY_US)
    view.retention = type(view.retention)(raw_seconds=3600.0, rollup_seconds=3600.0)
    await rig.housekeeping.expire()
    assert (await bucketed(rig, device, DAY0, DAY0 + DAY_US, DAY_US))[0] == {}
    assert await rig.store.difference() == 0


async def test_a_deleted_device_leaves_merged_blocks_and_rollups(rig: Any) -> None:
    tenant = rig.world.add_tenant("acme")
    gone, stays = rig.world.add_device(tenant, "gone"), rig.world.add_device(tenant, "stays")
    await a_day(rig, gone)
    model = await a_day(rig, stays)
    await merge(rig)
    place = place_of(rig, gone)
    rig.world.delete_device(gone)
    await rig.housekeeping.purge()
    assert await rig.read(stays) == model
    for level in (ROLLUP_DAY, ROLLUP_HOUR, ROLLUP_MINUTE):
        found = await rig.buckets._rollup.stored(
            tenant.uid, place, [gone.uid], ["a", "b"], [(DAY0, DAY0 + DAY_US)], tier_of(level)
        )
        assert all(len(part) == 0 for part in found.values())
    assert await rig.store.difference() == 0


def tier_of(level: int) -> Any:
    from tidewire_storage.domain.rollups import TIERS

    return next(tier for tier in TIERS if tier.level == level)


async def test_buckets_are_whole_beside_sealing_and_merging(rig: Any) -> None:
    rig.limits = IngestLimits(
        flush_seconds=0.01, series_seconds=0.0, epochs=EpochLimits(gathered_bytes=1_000)
    )
    rig.merge_limits = MergeLimits(readings=300)
    await rig.stop()
    await rig.start()
    device = rig.world.add_device(rig.world.add_tenant("acme"), "d")
    model: Model = {}
    for number in range(30):
        data = [(DAY0 + (number * 20 + row) * 10 * SECOND, [float(row), float(number)]) for row in range(20)]
        await rig.publish(device, ("a", "b"), data)
        await rig.settled()
        model |= {
            (time, name): value for time, cells in data for name, value in zip("ab", cells, strict=True)
        }
    await rig.accounts.cut_epochs()
    wanted = expected(model, DAY0, DAY0 + DAY_US, HOUR_US)
    done = asyncio.Event()

    async def read() -> int:
        looks = 0
        while not done.is_set() or looks < 3:
            found, _ = await bucketed(rig, device, DAY0, DAY0 + DAY_US, HOUR_US)
            assert found == wanted
            looks += 1
        return looks

    readers = [asyncio.create_task(read()) for _ in range(3)]
    assert await rig.sealing.round() > 0
    assert await rig.merging.round() > 1
    done.set()
    assert sum(await asyncio.gather(*readers)) >= 9


async def test_dense_epochs_stay_as_they_are(rig: Any) -> None:
    device = rig.world.add_device(rig.world.add_tenant("acme"), "d")
    model = await a_day(rig, device, epochs=2, rows=1500)
    before = [block.token for block in await blocks(rig, device)]
    assert await rig.merging.round() == 1
    assert [block.token for block in await blocks(rig, device)] == before
    found, answer = await bucketed(rig, device, DAY0, DAY0 + DAY_US, HOUR_US)
    assert answer.tier is not None
    assert found == expected(model, DAY0, DAY0 + DAY_US, HOUR_US)
    assert await rig.merging.round() == 0


@pytest.mark.parametrize("slice_cells", [20])
async def test_many_devices_are_merged_slice_by_slice(
    rig: Any, monkeypatch: pytest.MonkeyPatch, slice_cells: int
) -> None:
    monkeypatch.setattr("tidewire_storage.application.merge.SLICE_CELLS", slice_cells)
    tenant = rig.world.add_tenant("acme")
    devices = [rig.world.add_device(tenant, f"d{number}") for number in range(6)]
    models = [await a_day(rig, device, epochs=2, rows=10) for device in devices]
    assert await merge(rig) > 0
    for device, model in zip(devices, models, strict=True):
        assert await rig.read(device) == model
        found, _ = await bucketed(rig, device, DAY0, DAY0 + DAY_US, HOUR_US)
        assert found == expected(model, DAY0, DAY0 + DAY_US, HOUR_US)
    assert await rig.store.difference() == 0


async def test_devices_with_few_and_with_many_readings_a_minute(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidewire_storage.application.merge.SLICE_CELLS", 20)
    tenant = rig.world.add_tenant("acme")
    often = rig.world.add_device(tenant, "often")
    others = (rig.world.add_device(tenant, f"d{number}") for number in range(100))
    seldom = next(device for device in others if rig.partition(device) == rig.partition(often))
    data = [(DAY0 + row * 5 * MINUTE_US, [float(row), 1.0]) for row in range(20)]
    await rig.publish(seldom, ("a", "b"), data)
    model = {(time, name): cells["ab".index(name)] for time, cells in data for name in "ab"}
    dense = await a_day(rig, often, rows=300)
    await merge(rig)
    for device, readings in ((often, dense), (seldom, model)):
        for width_us in (5 * MINUTE_US, HOUR_US, DAY_US):
            found, _ = await bucketed(rig, device, DAY0, DAY0 + DAY_US, width_us)
            assert found == expected(readings, DAY0, DAY0 + DAY_US, width_us)
