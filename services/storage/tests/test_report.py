"""Reports against plain Python on the same readings: late, repeated, of several metric sets, over borders of months."""

import asyncio
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewire_kit import topics
from tidewire_kit.errors import InvalidArgument, NotFound, TidewireError
from tidewire_kit.ids import new_uid
from tidewire_storage.application import daily as daily_module
from tidewire_storage.application import report as report_module
from tidewire_storage.application.daily import Daily
from tidewire_storage.application.names import Names
from tidewire_storage.application.report import Asked, Report
from tidewire_storage.domain.periods import DAY_US, Granularity, Periods

OCT_30 = int(datetime(2023, 10, 30, tzinfo=UTC).timestamp()) // 86_400
DEC_2 = int(datetime(2023, 12, 2, tzinfo=UTC).timestamp()) // 86_400
METRIC_SETS = (("a",), ("b", "a"), ("c", "b"))
Readings = Mapping[str, Mapping[tuple[int, str], float]]
"""Device → (time, metric) → value."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row as a test compares it."""

    readings: int
    least: float
    greatest: float
    total: float
    stddev: float
    first: tuple[int, float]
    last: tuple[int, float]
    members: int
    active_devices: int
    active_days: int
    coverage: float


Rows = dict[tuple[str, str, int], Row]


def use(rig: Any, seen: list[tuple[str, int]] | None = None) -> Report:
    """The use case over a rig's store."""
    daily = Daily(rig.store, rig.directories, rig.buckets, rig.rollup)

    def observe(outcome: str, seconds: float, rows: int) -> None:
        if seen is not None:
            seen.append((outcome, rows))

    incarnation = rig.log.incarnation(topics.TELEMETRY)
    return Report(rig.store, daily, Names(rig.world.directory), rig.clock, incarnation, observe)


async def seal(rig: Any) -> None:
    """Seals and merges everything so far."""
    await rig.settled()
    await rig.accounts.cut_epochs()
    await rig.sealing.round()
    await rig.merging.round()


async def rows_of(report: Report, tenant: Any, asked: Asked) -> Rows:
    """All rows; asserts the order within parts, that none occurs twice, and that progress rises to the end."""
    rows: Rows = {}
    progress = 0.0
    async for part in report.run(tenant.uid, asked):
        assert len(part) <= report_module.PART_ROWS
        assert progress <= part.progress <= 1.0
        progress = part.progress
        p, t = part.tallies.partials, part.tallies
        keys = [
            (part.subjects[subject], part.metrics[metric], start)
            for subject, metric, start in zip(
                part.subject.tolist(), part.metric.tolist(), p.bucket.tolist(), strict=True
            )
        ]
        assert keys == sorted(keys, key=lambda key: (key[2], key[0], key[1]))
        for row, key in enumerate(keys):
            assert key not in rows
            rows[key] = Row(
                int(p.count[row]),
                float(p.least[row]),
                float(p.greatest[row]),
                float(p.total[row]),
                math.sqrt(p.squares[row] / p.count[row]),
                (int(p.first_us[row]), float(p.first[row])),
                (int(p.last_us[row]), float(p.last[row])),
                int(part.members[row]),
                int(t.devices[row]),
                int(t.active_days[row]),
                float(part.coverage[row]),
            )
            assert part.bytes_per_reading > 0
    assert progress == 1.0
    return rows


def expected(model: Readings, asked: Asked, labels: Mapping[str, str]) -> Rows:
    """The same by dictionaries. `labels`: device → value of the label asked for."""
    periods = asked.periods
    chosen = set(asked.device_ids) or set(model)
    cells: dict[tuple[str, str, int], list[tuple[int, float, str]]] = {}
    for device in chosen:
        subject = labels.get(device, "") if asked.group_by_label else device
        for (time, metric), value in model[device].items():
            if not periods.start_us <= time < periods.end_us or (
                asked.metrics and metric not in asked.metrics
            ):
                continue
            moment = datetime.fromtimestamp(time / 1e6, UTC)
            first = moment.day - 1 if periods.granularity is Granularity.MONTH else 0
            start = max(time // DAY_US - first, periods.first_day)
            cells.setdefault((subject, metric, start * DAY_US), []).append((time, value, device))
    rows: Rows = {}
    for key, readings in cells.items():
        readings.sort()
        values = np.array([value for _, value, _ in readings])
        members = (
            sum(1 for device in chosen if labels.get(device, "") == key[0]) if asked.group_by_label else 1
        )
        length = 1
        if periods.granularity is Granularity.MONTH:
            begin = datetime.fromtimestamp(key[2] / 1e6, UTC)
            following = datetime(begin.year + begin.month // 12, begin.month % 12 + 1, 1, tzinfo=UTC)
            length = min(int(following.timestamp()) // 86_400, periods.end_day) - key[2] // DAY_US
        device_days = len({(device, time // DAY_US) for time, _, device in readings})
        rows[key] = Row(
            len(values),
            values.min(),
            values.max(),
            values.sum(),
            values.std(),
            readings[0][:2],
            readings[-1][:2],
            members,
            len({device for _, _, device in readings}),
            len({time // DAY_US for time, _, _ in readings}),
            device_days / (length * members),
        )
    return rows


def assert_same(found: Rows, wanted: Rows, *, tied: bool) -> None:
    """`tied`: devices of a group may share first and last moments, and then either value is right."""
    assert found.keys() == wanted.keys()
    for key, row in found.items():
        model = wanted[key]
        exact = ("readings", "least", "greatest", "members", "active_devices", "active_days")
        assert [getattr(row, name) for name in exact] == [getattr(model, name) for name in exact], key
        assert row.total == pytest.approx(model.total), key
        assert row.stddev == pytest.approx(model.stddev, rel=1e-5, abs=1e-9), key
        assert row.coverage == pytest.approx(model.coverage), key
        assert (row.first[0], row.last[0]) == (model.first[0], model.last[0])
        if not tied:
            assert (row.first, row.last) == (model.first, model.last)


CELL = st.one_of(st.just(math.nan), st.integers(-5, 5).map(float))
MOMENT = st.tuples(st.integers(OCT_30 - 1, OCT_30 + 3), st.integers(0, 3))
ROW = st.tuples(MOMENT, CELL, CELL)
BATCH = st.tuples(
    st.just("batch"), st.integers(0, 3), st.integers(0, 2), st.lists(ROW, min_size=1, max_size=6)
)
STEPS = st.lists(st.one_of(BATCH, BATCH, BATCH, st.just(("seal",))), min_size=1, max_size=10)
LABELS = {"d0": "north", "d1": "north", "d2": "<&south>"}


@settings(max_examples=10, deadline=None)
@given(
    steps=STEPS,
    first=st.integers(OCT_30 - 1, OCT_30 + 2),
    days=st.integers(1, 4),
    granularity=st.sampled_from(Granularity),
    by_label=st.booleans(),
    metrics=st.sampled_from([(), ("a",), ("b", "nothing", "b")]),
    devices=st.sampled_from([(), ("d1", "d3", "d1")]),
)
def test_it_says_what_the_model_says(
    rig_type: Callable[[Path], Any],
    steps: list[Any],
    first: int,
    days: int,
    granularity: Granularity,
    by_label: bool,
    metrics: tuple[str, ...],
    devices: tuple[str, ...],
) -> None:
    asked = Asked(Periods(first, first + days, granularity), devices, "", metrics, "site" if by_label else "")
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_run(rig_type(Path(directory)), steps, asked))


async def _run(rig: Any, steps: list[Any], asked: Asked) -> None:
    await rig.start()
    try:
        tenant = rig.world.add_tenant("acme")
        names = [f"d{number}" for number in range(4)]
        devices = [
            rig.world.add_device(tenant, name, labels={"site": LABELS[name]} if name in LABELS else {})
            for name in names
        ]
        model: dict[str, dict[tuple[int, str], float]] = {name: {} for name in names}
        for step in steps:
            if step[0] == "seal":
                await seal(rig)
                continue
            _, device, number, rows = step
            metrics = METRIC_SETS[number]
            data = [
                (day * DAY_US + part * DAY_US // 4, list(cells[: len(metrics)]))
                for (day, part), *cells in rows
            ]
            await rig.publish(devices[device], metrics, data, new_uid())
            for time, cells in data:
                for metric, value in zip(metrics, cells, strict=True):
                    if not math.isnan(value):
                        model[names[device]][time, metric] = value
        await rig.settled()
        found = await rows_of(use(rig), tenant, asked)
        assert_same(found, expected(model, asked, LABELS), tied=bool(asked.group_by_label))
    finally:
        await rig.stop()


async def test_a_fleet_on_both_stores_in_small_parts(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sealed and unsealed blocks, parts that end within a period, slices of devices, a filter."""
    monkeypatch.setattr(report_module, "PART_ROWS", 7)
    monkeypatch.setattr(report_module, "_DEVICES_AT_ONCE", 3)
    monkeypatch.setattr(daily_module, "_CELLS_AT_ONCE", 40)
    tenant, rng = rig.world.add_tenant("acme"), np.random.default_rng(5)
    model: dict[str, dict[tuple[int, str], float]] = {}
    labels: dict[str, str] = {}
    devices = []
    for number in range(20):
        name = f"pump-{number:02}"
        labels[name] = f"site-{number % 3}"
        devices.append(rig.world.add_device(tenant, name, labels={"site": labels[name]}))
        model[name] = {}
    for turn in range(3):
        for device in devices:
            times = rng.integers((OCT_30 + turn) * DAY_US, (DEC_2 - turn) * DAY_US, 40)
            rows = [(int(time), rng.random(2).tolist()) for time in times]
            await rig.publish(device, ["temp", "level"], rows)
            for time, values in rows:
                model[device.id].update({(time, "temp"): values[0], (time, "level"): values[1]})
        await rig.settled()
        if turn == 0:
            await seal(rig)
    seen: list[tuple[str, int]] = []
    report = use(rig, seen)
    for granularity in Granularity:
        for key in ("", "site"):
            asked = Asked(Periods(OCT_30, DEC_2, granularity), group_by_label=key)
            found = await rows_of(report, tenant, asked)
            assert_same(found, expected(model, asked, labels), tied=False)
            assert seen[-1] == ("ok", len(found))
    chosen = [name for name in model if labels[name] == "site-1"]
    asked = Asked(Periods(OCT_30, DEC_2, Granularity.MONTH), filter_text='labels.site = "site-1"')
    named = Asked(asked.periods, chosen)
    found = await rows_of(report, tenant, asked)
    assert_same(found, expected(model, named, labels), tied=False)
    assert {key[0] for key in found} == set(chosen)


async def test_what_has_no_answer(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant, other = rig.world.add_tenant("acme"), rig.world.add_tenant("other")
    october = Periods(OCT_30, OCT_30 + 2, Granularity.DAY)
    seen: list[tuple[str, int]] = []
    report = use(rig, seen)

    async def refused(asked: Asked) -> TidewireError:
        with pytest.raises(TidewireError) as caught:
            await rows_of(report, tenant, asked)
        assert seen[-1] == (caught.value.reason, 0)
        return caught.value

    assert [part async for part in report.run(tenant.uid, Asked(october))] != []
    assert seen == [("ok", 0)]
    device = rig.world.add_device(tenant, "a", labels={"site": "x"})
    theirs = rig.world.add_device(other, "theirs")
    assert await rows_of(report, tenant, Asked(october)) == {}
    await rig.publish(theirs, ["m"], [(OCT_30 * DAY_US, [1.0])])
    await rig.publish(device, ["m"], [((OCT_30 + 2) * DAY_US, [1.0]), (OCT_30 * DAY_US - 1, [1.0])])
    await rig.settled()
    assert await rows_of(report, tenant, Asked(october)) == {}, "all of it is before, after or another's"
    assert isinstance(await refused(Asked(october, ["a", "theirs"])), NotFound)
    assert (await refused(Asked(october, ["a"], 'name = "a"'))).reason == "FILTER_INVALID"
    assert (await refused(Asked(october, (), "name ="))).reason == "FILTER_INVALID"

    monkeypatch.setattr(report_module, "_MOST_GROUP_ROWS", 1)
    await rig.publish(device, ["m"], [(OCT_30 * DAY_US, [1.0]), ((OCT_30 + 1) * DAY_US, [1.0])])
    await rig.settled()
    error = await refused(Asked(october, group_by_label="site"))
    assert isinstance(error, InvalidArgument)
    assert error.reason == "ANSWER_TOO_LARGE"
    assert len(await rows_of(report, tenant, Asked(october))) == 2


async def test_days_to_come_do_not_count_as_missing(rig: Any) -> None:
    """Coverage is of the days that have begun: a month that is under way can be complete."""
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "a")
    today = rig.clock.now_us() // DAY_US
    await rig.publish(device, ["m"], [(day * DAY_US, [1.0]) for day in (today, today - 1)])
    await rig.settled()
    periods = Periods(today - 1, today + 40, Granularity.DAY)
    by_day = await rows_of(use(rig), tenant, Asked(periods))
    assert [row.coverage for row in by_day.values()] == [1.0, 1.0]
    by_month = await rows_of(use(rig), tenant, Asked(Periods(today, today + 40, Granularity.MONTH)))
    # Midnight may have passed since `today`.
    assert [row.coverage in (1.0, 0.5) for row in by_month.values()] == [True]


async def test_who_leaves_ends_it(rig: Any) -> None:
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "a")
    await rig.publish(device, ["m"], [((OCT_30 + day) * DAY_US, [1.0]) for day in range(3)])
    await rig.settled()
    seen: list[tuple[str, int]] = []
    parts = use(rig, seen).run(tenant.uid, Asked(Periods(OCT_30, OCT_30 + 3, Granularity.DAY)))
    part = await anext(parts)
    await parts.aclose()
    assert seen == [("cancelled", len(part))]
