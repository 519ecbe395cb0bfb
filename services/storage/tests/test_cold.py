"""The cold tier: days move into objects and are read, folded and purged there. Runs on both stores."""

import asyncio
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from cold_days import (
    DAY0,
    SECOND,
    Model,
    added_up,
    holding,
    levels,
    merged,
    moved,
    objects,
    place_of,
    publish,
    two_days,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewire_storage.adapters.cold import cold_store_at
from tidewire_storage.application.aggregate import Question, Tier
from tidewire_storage.application.cold import ColdLimits
from tidewire_storage.application.gather import EpochLimits
from tidewire_storage.application.ingest import IngestLimits
from tidewire_storage.application.merge import MergeLimits
from tidewire_storage.domain.aggregates import Function
from tidewire_storage.domain.blocks import COLD_BLOCK
from tidewire_storage.domain.rollups import DAY_US, HOUR_US, MINUTE_US

DATE0 = "2022-01-08"
PLANTED = 6.62607015e-34

MOMENTS = (0, 1, MINUTE_US, HOUR_US, DAY_US - 1, DAY_US, DAY_US + HOUR_US, 40 * DAY_US)
CELL = st.one_of(st.just(math.nan), st.integers(-5, 5).map(float))
BATCH = st.tuples(
    st.just("batch"),
    st.integers(0, 1),
    st.sampled_from([("a",), ("b", "a")]),
    st.lists(st.tuples(st.sampled_from(MOMENTS), CELL, CELL), min_size=1, max_size=5),
)
STEPS = st.lists(st.one_of(BATCH, BATCH, st.sampled_from([("merge",), ("move",), ("fold",)])), max_size=10)


async def test_old_days_move_and_are_read(rig: Any) -> None:
    device = rig.world.add_device(rig.world.add_tenant("acme"), "d")
    model: Model = {}
    await publish(rig, device, model, two_days())
    assert await moved(rig, device) == 1
    assert await levels(rig, device) == [COLD_BLOCK, COLD_BLOCK]
    uid = device.tenant.uid.hex()
    assert [path.parent.relative_to(rig.path / "cold").as_posix() for path in objects(rig)] == [
        f"tenant={uid}/day={DATE0}",
        f"tenant={uid}/day=2022-01-09",
    ]
    assert await rig.read(device) == model
    assert await rig.read(device, ["b"], DAY0 + HOUR_US, DAY0 + 2 * HOUR_US) == {
        key: value
        for key, value in model.items()
        if key[1] == "b" and DAY0 + HOUR_US <= key[0] < DAY0 + 2 * HOUR_US
    }
    await added_up(rig, device)
    assert await moved(rig, device) == 0, "nothing is left to move"
    assert await rig.cold.fold(device.tenant.uid, place_of(rig, device)) == 0


async def test_duckdb_reads_the_layout_as_it_is(rig: Any) -> None:
    device = rig.world.add_device(rig.world.add_tenant("acme"), "pump-1")
    model: Model = {}
    await publish(rig, device, model, two_days())
    await rig.publish(device, ("time", "x.y"), [(DAY0 + 5, [1.5, math.nan])])
    model[DAY0 + 5, "time"] = 1.5
    assert await moved(rig, device) == 1
    rows = duckdb.execute(
        'SELECT epoch_us(time), a, b, device, device_uid, tenant, day::VARCHAR, "metric.time" FROM '
        "read_parquet(?, hive_partitioning=true, union_by_name=true) ORDER BY device_uid, time",
        [f"{rig.path}/cold/*/*/*.parquet"],
    ).fetchall()
    found = {}
    for time, a, b, name, uid, tenant, day, odd in rows:
        assert (name, uid, tenant) == ("pump-1", device.uid.hex(), device.tenant.uid.hex())
        assert day == (DATE0 if time < DAY0 + DAY_US else "2022-01-09")
        found |= {(time, key): v for key, v in (("a", a), ("b", b), ("time", odd)) if v is not None}
    assert found == model == await rig.read(device)
    kinds = dict(
        duckdb.execute(
            f"SELECT name, type FROM parquet_schema('{objects(rig)[0]}') WHERE type IS NOT NULL"
        ).fetchall()
    )
    assert kinds["time"] == "INT64"
    assert kinds["a"] == "DOUBLE"


async def test_late_readings_lie_beside_and_are_folded_in(rig: Any) -> None:
    device = rig.world.add_device(rig.world.add_tenant("acme"), "d")
    tenant, place = device.tenant.uid, place_of(rig, device)
    model: Model = {}
    await publish(rig, device, model, two_days())
    await moved(rig, device)
    await publish(rig, device, model, [(DAY0, [-1.0, -2.0]), (DAY0 + 7, [5.0, math.nan])])
    await rig.settled()
    for step in (merged(rig), moved(rig, device), rig.cold.fold(tenant, place)):
        assert await rig.read(device) == model
        await step
        await added_up(rig, device)
    assert await rig.read(device) == model
    assert await levels(rig, device) == [COLD_BLOCK, COLD_BLOCK]
    assert len(objects(rig)) == 2
    assert await rig.cold.fold(tenant, place) == 0
    _, cell = duckdb.execute(
        "SELECT count(*), max(a) FILTER (epoch_us(time) = ?) FROM read_parquet(?)",
        [DAY0, f"{rig.path}/cold/*/*/*.parquet"],
    ).fetchall()[0]
    assert cell == -1.0, "the correction has taken the place"


async def test_what_was_folded_lately_waits(rig: Any) -> None:
    device = rig.world.add_device(rig.world.add_tenant("acme"), "d")
    for value in (1.0, 2.0):
        await publish(rig, device, {}, [(DAY0, [value, value])])
        await moved(rig, device)
    rig.cold._limits = ColdLimits(after_us=0, fold_us=DAY_US)
    assert await rig.cold.fold(device.tenant.uid, place_of(rig, device)) == 0


async def test_what_is_not_old_stays(rig: Any) -> None:
    device = rig.world.add_device(rig.world.add_tenant("acme"), "d")
    now = rig.clock.now_us()
    await publish(rig, device, {}, [(DAY0, [1.0, 2.0]), (now, [3.0, 4.0])])
    assert await moved(rig, device) == 0, "a block moves when all of it is old"
    rig.cold._limits = ColdLimits(after_us=now, fold_us=0)
    await publish(rig, device, {}, [(DAY0, [1.0, 2.0])])
    assert await moved(rig, device) == 0, "the setting says so"


async def test_deleted_devices_leave_the_objects(rig: Any) -> None:
    tenant = rig.world.add_tenant("acme")
    gone, stays = rig.world.add_device(tenant, "gone"), rig.world.add_device(tenant, "stays")
    while rig.partition(stays) != rig.partition(gone):
        stays = rig.world.add_device(tenant, f"stays{stays.id}")
    model: Model = {}
    await publish(rig, gone, {}, [(DAY0 + at, [PLANTED, float(at)]) for at in range(50)])
    await publish(rig, stays, model, [(DAY0 + at, [1.0, float(at)]) for at in range(50)])
    assert await moved(rig, stays) == 1
    assert holding(rig, gone) == 50
    rig.world.delete_device(gone)
    await rig.housekeeping.purge()
    assert holding(rig, gone) == 0
    assert holding(rig, stays) == 50
    assert await rig.read(stays) == model
    await added_up(rig, stays)
    if rig.keyspace is None:
        for path in rig.block_files():
            assert gone.uid not in path.read_bytes()
    rig.world.delete_tenant(tenant)
    await rig.housekeeping.purge()
    assert objects(rig) == []


async def test_a_reader_beside_the_move_neither_misses_nor_repeats(rig: Any) -> None:
    device = rig.world.add_device(rig.world.add_tenant("acme"), "d")
    model: Model = {}
    for number in range(6):
        rows = [
            (DAY0 + number * 4 * HOUR_US + at * MINUTE_US, [float(at), float(number)]) for at in range(20)
        ]
        await publish(rig, device, model, rows)
        await rig.settled()
        rig.merging._limits = MergeLimits(readings=1)
        await merged(rig)
    done = asyncio.Event()

    async def look() -> int:
        looks = 0
        while not done.is_set() or looks < 3:
            assert await rig.read(device) == model
            looks += 1
        return looks

    readers = [asyncio.create_task(look()) for _ in range(3)]
    place = place_of(rig, device)
    assert await rig.cold.move(device.tenant.uid, place) == 1
    for at in range(3):
        await rig.publish(device, ("a", "b"), [(DAY0, [0.0, 0.0])])  # what is there already
        await moved(rig, device)
        assert await rig.cold.fold(device.tenant.uid, place) == 1, at
    done.set()
    assert sum(await asyncio.gather(*readers)) >= 9


@pytest.mark.parametrize("examples", [3, pytest.param(60, marks=pytest.mark.thorough)])
def test_reads_across_tiers_are_those_of_a_dictionary(rig_type: Callable[[Path], Any], examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(steps=STEPS)
    def check(steps: list[Any]) -> None:
        with tempfile.TemporaryDirectory() as directory:
            asyncio.run(_run(rig_type(Path(directory)), steps))

    check()


async def _run(rig: Any, steps: list[Any]) -> None:
    rig.limits = IngestLimits(flush_seconds=0.01, series_seconds=0.01, epochs=EpochLimits(gathered_bytes=300))
    rig.merge_limits = MergeLimits(readings=8)
    await rig.start()
    try:
        tenant = rig.world.add_tenant("acme")
        devices = [rig.world.add_device(tenant, f"d{number}") for number in range(2)]
        models: list[Model] = [{}, {}]
        for step in [*steps, ("merge",), ("move",), ("fold",)]:
            match step:
                case ("batch", number, metrics, rows):
                    data = [(DAY0 + time, list(cells[: len(metrics)])) for time, *cells in rows]
                    await rig.publish(devices[number], metrics, data)
                    for time, cells in data:
                        for metric, value in zip(metrics, cells, strict=True):
                            if not math.isnan(value):
                                models[number][time, metric] = value
                case ("merge",):
                    await merged(rig)
                case (what,):
                    for device in devices:
                        await getattr(rig.cold, what)(tenant.uid, place_of(rig, device))
        await rig.settled()
        for device, model in zip(devices, models, strict=True):
            assert await rig.read(device) == model
            await added_up(rig, device)
            assert set(await levels(rig, device)) <= {COLD_BLOCK}
    finally:
        await rig.stop()


async def test_answers_say_that_the_cold_tier_was_used(rig: Any) -> None:
    device = rig.world.add_device(rig.world.add_tenant("acme"), "d")
    await publish(rig, device, {}, two_days())
    await moved(rig, device)

    async def tier(bucket_us: int) -> Tier:
        asked = Question(["a"], [Function.MAX], DAY0, DAY0 + DAY_US, bucket_us)
        answer = await rig.aggregate.run(device.tenant.uid, ["d"], asked)
        return answer.tier

    assert await tier(10 * SECOND) is Tier.COLD
    assert await tier(DAY_US) is Tier.ROLLUP_1D


@pytest.mark.servers
@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
async def test_days_in_a_bucket(rig: Any, s3_server: Any) -> None:
    s3_server.make_bucket("cold-days")
    await rig.stop()
    rig.new_cold_store = lambda: cold_store_at("s3://cold-days/x", s3_server.environ())
    await rig.start()
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "d")
    model: Model = {}
    await publish(rig, device, model, two_days())
    assert await moved(rig, device) == 1
    assert await rig.read(device) == model
    await publish(rig, device, model, [(DAY0, [-1.0, -2.0])])
    await moved(rig, device)
    assert await rig.cold.fold(tenant.uid, place_of(rig, device)) == 1
    assert await rig.read(device) == model
    names = [one.name for one in await rig.cold_store.objects()]
    assert len(names) == 2
    rows = duckdb.execute(
        "SELECT count(a) + count(b) FROM read_parquet(?, hive_partitioning=true)",
        [f"{s3_server.data}/cold-days/x/*/*/*.parquet"],
    ).fetchall()
    assert rows == [(len(model),)]
    rig.world.delete_tenant(tenant)
    await rig.housekeeping.purge()
    assert await rig.cold_store.objects() == []
