"""Queries and the ledger against a model: batches in any order, late, repeated, with empty cells; seals, restarts."""

import asyncio
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tidewire_kit.ids import new_uid
from tidewire_storage.application.aggregate import Question
from tidewire_storage.application.gather import EpochLimits
from tidewire_storage.application.ingest import IngestLimits
from tidewire_storage.domain.aggregates import Function
from tidewire_testkit.polling import until

T0 = 1_700_000_000_000_000
METRIC_SETS = (("a",), ("b", "a"), ("c", "b"))
CELL = st.one_of(st.just(math.nan), st.integers(-5, 5).map(float))
ROW = st.tuples(st.integers(0, 12), CELL, CELL)


@st.composite
def batches(draw: st.DrawFn) -> tuple[str, int, int, list[tuple[int, float, float]]]:
    """(what, device, metric set, rows)"""
    return (
        "batch",
        draw(st.integers(0, 2)),
        draw(st.integers(0, 2)),
        draw(st.lists(ROW, min_size=1, max_size=6)),
    )


STEPS = st.lists(
    st.one_of(
        batches(),
        batches(),
        batches(),
        st.tuples(st.just("retry"), st.integers(0, 5)),
        st.just(("flush",)),
        st.just(("restart",)),
        st.just(("cut",)),
        st.just(("seal",)),
        st.just(("merge",)),
    ),
    max_size=14,
)


@settings(max_examples=12, deadline=None)
@given(steps=STEPS)
def test_it_answers_as_the_model_does(rig_type: Callable[[Path], Any], steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_run(rig_type(Path(directory)), steps))


async def _run(rig: Any, steps: list[Any]) -> None:
    rig.limits = IngestLimits(flush_seconds=0.01, series_seconds=0.01, epochs=EpochLimits(gathered_bytes=300))
    await rig.start()
    try:
        tenant = rig.world.add_tenant("acme")
        devices = [rig.world.add_device(tenant, f"d{number}") for number in range(3)]
        model: dict[int, dict[tuple[int, str], float]] = {0: {}, 1: {}, 2: {}}
        sent: list[tuple[Any, ...]] = []
        accepted = duplicate = 0
        for step in steps:
            match step:
                case ("batch", device, number, rows):
                    metrics = METRIC_SETS[number]
                    data = [(T0 + time, list(cells[: len(metrics)])) for time, *cells in rows]
                    batch = new_uid()
                    await rig.publish(devices[device], metrics, data, batch)
                    sent.append((device, metrics, data, batch))
                    accepted += _readings(data)
                    for time, cells in data:
                        for metric, value in zip(metrics, cells, strict=True):
                            if not math.isnan(value):
                                model[device][time, metric] = value
                case ("retry", back) if sent:
                    device, metrics, data, batch = sent[-1 - back % len(sent)]
                    await rig.publish(devices[device], metrics, data, batch)
                    accepted += _readings(data)
                    duplicate += _readings(data)
                case ("flush",):
                    await rig.settled()
                case ("restart",):
                    await rig.stop()
                    await rig.start()
                case ("cut",):
                    await rig.accounts.cut_epochs()
                case ("seal",):
                    await rig.settled()
                    await rig.accounts.cut_epochs()
                    await rig.sealing.round()
                case ("merge",):
                    await rig.merging.round()
                case _:
                    pass
        await rig.settled()
        await _check_readings(rig, devices, model)
        await _check_aggregate(rig, tenant, devices, model)
        await _check_series(rig, tenant, devices, model)
        await _check_ledger(rig, tenant, accepted, duplicate, model)
        await rig.accounts.cut_epochs()
        await rig.sealing.round()
        assert await rig.sealing.round() == 0
        await rig.merging.round()
        assert await rig.merging.round() == 0
        await _check_readings(rig, devices, model)
        await _check_aggregate(rig, tenant, devices, model)
        await _check_ledger(rig, tenant, accepted, duplicate, model)
    finally:
        await rig.stop()


async def _check_readings(rig: Any, devices: list[Any], model: dict[int, Any]) -> None:
    for number, device in enumerate(devices):
        assert await rig.read(device) == model[number]
        window = {key: value for key, value in model[number].items() if T0 + 3 <= key[0] < T0 + 9}
        assert await rig.read(device, [], T0 + 3, T0 + 9) == window


async def _check_ledger(rig: Any, tenant: Any, accepted: int, duplicate: int, model: dict[int, Any]) -> None:
    lines = (await rig.accounts.ledger(tenant.uid, 0, 1 << 62)).account.lines
    assert sum(line.accepted for line in lines) == accepted
    collapsed = accepted - duplicate - sum(line.stored for line in lines)
    assert sum(line.duplicate for line in lines) == duplicate + collapsed
    assert 0 <= collapsed <= accepted - duplicate - sum(len(readings) for readings in model.values())
    assert all(line.difference == 0 for line in lines)


async def _check_aggregate(rig: Any, tenant: Any, devices: list[Any], model: dict[int, Any]) -> None:
    functions = [Function.COUNT, Function.MIN, Function.MAX, Function.SUM, Function.FIRST, Function.LAST]
    answer = await rig.aggregate.run(
        tenant.uid, [d.id for d in devices], Question(["a", "b"], functions, T0, T0 + 100, 5)
    )
    expected: dict[tuple[str, str, int], list[float]] = {}
    for number, device in enumerate(devices):
        for metric in ("a", "b"):
            for (time, name), value in sorted(model[number].items()):
                if name == metric:
                    expected.setdefault((device.id, metric, time - time % 5), []).append(value)
    seen = {}
    for series in answer.series:
        for row, bucket in enumerate(series.bucket_start_us.tolist()):
            key = (series.device_id, series.metric, bucket)
            seen[key] = [column[row] for column in series.columns]
    assert seen == {
        key: [len(values), min(values), max(values), sum(values), values[0], values[-1]]
        for key, values in expected.items()
    }


async def _check_series(rig: Any, tenant: Any, devices: list[Any], model: dict[int, Any]) -> None:
    expected = []
    for number, device in enumerate(devices):
        for metric in ("a", "b", "c"):
            times = [time for time, name in model[number] if name == metric]
            if times:
                last = max(times)
                expected.append((device.id, metric, min(times), last, model[number][last, metric]))

    async def entries() -> list[Any]:
        page = await rig.series.page(tenant.uid, [], [], 1000, "")
        return [(e.device_id, e.metric, e.first_us, e.last_us, e.value) for e in page.entries]

    async def as_expected() -> bool:
        return await entries() == expected

    await until(as_expected, message=f"not {expected}")  # written behind the blocks


def _readings(data: list[tuple[int, list[float]]]) -> int:
    return sum(not math.isnan(value) for _, cells in data for value in cells)
