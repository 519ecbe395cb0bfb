"""Aggregates of a fleet, by device, by label and over all: those of NumPy over the same readings, sealed or not."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tidewire_kit.errors import InvalidArgument
from tidewire_storage.application import aggregate as aggregate_module
from tidewire_storage.application.aggregate import Question, Tier
from tidewire_storage.domain.aggregates import Function

SECOND = 1_000_000
T0 = 1_700_000_000 * SECOND
FUNCTIONS = [Function.P95, Function.COUNT, Function.P50, Function.MAX, Function.P99, Function.SUM]


def of_numpy(values: np.ndarray) -> list[float]:
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    return [p95, len(values), p50, values.max(), p99, values.sum()]


async def fleet(rig: Any, seed: int) -> tuple[Any, list[tuple[Any, dict[tuple[int, str], float]]]]:
    """A tenant with twelve devices and their readings: (time, metric) → value."""
    chance = random.Random(seed)
    tenant, other = rig.world.add_tenant("acme"), rig.world.add_tenant("other")
    model: list[tuple[Any, dict[tuple[int, str], float]]] = []
    for number in range(12):
        labels = {"site": chance.choice(("north", "south"))} if number % 4 else {}
        kind = chance.choice(("pump", "valve"))
        model.append((rig.world.add_device(tenant, f"d{number:02}", type=kind, labels=labels), {}))
    theirs = rig.world.add_device(other, "d00", labels={"site": "north"})
    await rig.publish(theirs, ("m",), [(T0, [1e9])])
    for part in range(3):
        for device, readings in model:
            rows = [
                (
                    T0 + chance.randrange(600) * SECOND,
                    [chance.uniform(-5, 5), chance.choice((1.0, float("nan")))],
                )
                for _ in range(chance.randrange(1, 40))
            ]
            await rig.publish(device, ("m", "n"), rows)
            for time, values in rows:  # one that comes again replaces what was there
                for metric, value in zip(("m", "n"), values, strict=True):
                    if value == value:
                        readings[time, metric] = value
        await rig.settled()
        if part == 1:
            await rig.accounts.cut_epochs()
            await rig.sealing.round()
    return tenant, model


@pytest.mark.parametrize("width", [None, 60 * SECOND])
async def test_groups_and_percentiles_are_those_of_numpy(rig: Any, width: int | None) -> None:
    tenant, model = await fleet(rig, 3 if width is None else 4)
    ways: dict[str, tuple[Mapping[str, Any], Any]] = {
        "device": ({}, lambda device: (device.id, "")),
        "label": ({"group_by_label": "site"}, lambda device: ("", device.labels.get("site", ""))),
        "all": ({"across_devices": True}, lambda device: ("", "")),
        "none": ({"group_by_label": "nothing"}, lambda device: ("", "")),
    }
    for more, key_of in ways.values():
        for filter_text, chosen in (("", ("pump", "valve")), ("type = pump", ("pump",))):
            asked = Question(["m", "n"], FUNCTIONS, T0, T0 + 500 * SECOND, width, **more)
            answer = await rig.aggregate.run(tenant.uid, [], asked, filter_text)
            assert answer.tier is Tier.RAW
            expected: dict[tuple[str, str, str, int], list[float]] = {}
            for device, readings in model:
                for (time, metric), value in readings.items():
                    if device.type in chosen and time < T0 + 500 * SECOND:
                        bucket = T0 if width is None else time - time % width
                        expected.setdefault((*key_of(device), metric, bucket), []).append(value)
            found = {
                (one.device_id, one.group, one.metric, bucket): [column[row] for column in one.columns]
                for one in answer.series
                for row, bucket in enumerate(one.bucket_start_us.tolist())
            }
            assert sorted(found) == sorted(expected)
            for key, values in expected.items():
                assert found[key] == pytest.approx(of_numpy(np.array(values)), rel=1e-9, abs=1e-9), key
            order = [(one.device_id or one.group, one.metric) for one in answer.series]
            assert order == sorted(order)


async def test_what_is_too_much_is_refused(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant, model = await fleet(rig, 5)
    readings = sum(len(of_device) for _, of_device in model)

    async def reason(asked: Question) -> str:
        with pytest.raises(InvalidArgument) as caught:
            await rig.aggregate.run(tenant.uid, [], asked)
        return caught.value.reason

    monkeypatch.setattr(aggregate_module, "_MOST_HELD", readings - 1)
    across = Question(["m", "n"], [Function.P50], across_devices=True)
    assert await reason(across) == "PERCENTILES_TOO_LARGE"
    by_device = Question(["m", "n"], [Function.P50])
    assert len((await rig.aggregate.run(tenant.uid, [], by_device)).series) == 24, "a partition at a time"
    monkeypatch.setattr(aggregate_module, "_MOST_HELD", readings)
    assert len((await rig.aggregate.run(tenant.uid, [], across)).series) == 2
    monkeypatch.setattr(aggregate_module, "_ANSWER_BYTES", 500)
    assert await reason(Question(["m"], [Function.COUNT])) == "ANSWER_TOO_LARGE"
    monkeypatch.setattr(aggregate_module, "MOST_DEVICES", 11)
    assert await reason(Question(["m"], [Function.COUNT])) == "TOO_MANY_DEVICES"
    found = await rig.aggregate.run(tenant.uid, [], Question(["m"], [Function.COUNT]), "name = d01")
    assert [one.device_id for one in found.series] == ["d01"]


async def test_pages_of_a_filter_follow_one_another(rig: Any) -> None:
    tenant, model = await fleet(rig, 6)
    expected = [
        (device.id, metric, max(time for time, name in readings if name == metric))
        for device, readings in model
        for metric in ("m", "n")
        if device.type == "pump" and any(name == metric for _, name in readings)
    ]

    async def all_pages(size: int) -> list[tuple[str, str, int]]:
        found: list[tuple[str, str, int]] = []
        token = ""
        while True:
            page = await rig.series.page(tenant.uid, [], [], size, token, "type = pump")
            assert len(page.entries) <= size
            found += [(one.device_id, one.metric, one.last_us) for one in page.entries]
            token = page.next_page_token
            if not token:
                return found

    for size in (1, 2, 3, len(expected), 1000):
        assert await all_pages(size) == expected
    metrics = await rig.series.page(tenant.uid, [], ["n"], 100, "", "type = pump")
    assert [(one.device_id, one.metric) for one in metrics.entries] == [
        (device, metric) for device, metric, _ in expected if metric == "n"
    ]
