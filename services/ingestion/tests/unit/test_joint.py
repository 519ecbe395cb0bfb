"""Deciding on many batches together gives what deciding on each in turn gives, whatever is wrong with some of them."""

import asyncio
import math
import random
import uuid
from collections import defaultdict
from typing import Any

import pytest

from tidewire.registry.v1.resources_pb2 import Device, TenantQuotas
from tidewire_ingestion.application import publish
from tidewire_ingestion.application.submission import Lane
from tidewire_kit.errors import TidewireError
from tidewire_kit.telemetry.wire import read_batch
from tidewire_testkit.directory import TestTenant

DEVICES = [f"d{number}" for number in range(12)]
METRICS = [["a"], ["b", "c"], ["a", "b"], ["d", "e", "f"]]


def batch_bytes(bench: Any, rng: random.Random, faults: float) -> bytes:
    """A batch of one to three frames; with the probability `faults` something is wrong with it."""
    now = bench.clock.now_us()
    devices = rng.sample(DEVICES, rng.randint(1, 4))
    whole = bench.message(devices, batch_id=str(uuid.UUID(int=rng.getrandbits(128))))
    whole.sequence = rng.choice([0, 0, 1, 2, 5])
    del whole.frames[:]
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        metrics = rng.choice(METRICS)
        rows = rng.randint(1, 6)
        index = [rng.randrange(len(devices)) for _ in range(rows)] if rng.random() < 0.8 else []
        values = [rng.choice([1.5, 2.0, math.nan, 7.25]) for _ in range(rows * len(metrics))]
        times = [now - rng.randint(0, 50) for _ in range(rows)]
        if rng.random() < faults:
            match rng.randrange(9):
                case 0:
                    times[rng.randrange(rows)] = rng.choice([5, now + 700_000_000])
                case 1:
                    values[rng.randrange(len(values))] = math.inf
                case 2:
                    values = [math.nan] * len(values)
                case 3:
                    values.pop()
                case 4:
                    index = [9] * rows
                case 5:
                    metrics = ["Bad", *metrics[1:]]
                case 6:
                    metrics = [*metrics[:-1], "a"]
                case 7:
                    metrics = [f"m{rng.randrange(1000)}", *metrics[1:]]
                case 8:
                    whole.devices[0] = rng.choice(["blocked", "ghost"])
        whole.frames.add(metrics=metrics, device_index=index, time_unix_us=times, values=values)
    raw = whole.SerializeToString()
    return raw[: rng.randrange(len(raw))] if rng.random() < faults / 8 else raw


async def run(new_bench: Any, seed: int, faults: float, quotas: TenantQuotas) -> Any:
    """What became of the batches of `seed`, and what lies in the log, in terms that no random uid enters."""
    rng = random.Random(seed)
    bench = new_bench(deferred=True)
    tenants: list[TestTenant] = [bench.tenant, bench.world.add_tenant("small", quotas)]
    names: dict[bytes, str] = {}
    callers = []
    for tenant in tenants:
        devices = {name: bench.world.add_device(tenant, name) for name in [*DEVICES, "blocked"]}
        bench.world.set_device_state(devices["blocked"], Device.BLOCKED)
        names |= {
            bytes(device.uid): f"{tenant.uid == bench.tenant.uid}/{name}" for name, device in devices.items()
        }
        callers += [
            bench.user(tenant),
            bench.world.verifier.verify(bench.world.device_token(bench.world.add_credential(devices["d0"]))),
        ]
    answers: list[Any] = []
    for _ in range(4):
        submissions = []
        for _ in range(rng.randint(1, 12)):
            caller = rng.choice(callers)
            assert caller.tenant is not None
            raw = batch_bytes(bench, rng, faults)
            submissions.append(
                bench.use_case.publish(caller.tenant, caller, len(raw), lambda raw=raw: read_batch(raw))
            )
        for submission in submissions:
            try:
                answers.append(await submission.outcome)
            except TidewireError as error:
                answers.append((type(error), error.reason, str(error)))
        bench.clock.advance(0.3)
        bench.world.heartbeat()
    series = defaultdict(list)
    for device, metric, time, value in bench.rows():
        series[names[device], metric].append((time, value))
    segments: dict[bytes, int] = defaultdict(int)
    for _, record in bench.log.records():
        for table in record.tables:
            for batch_id, readings in zip(
                table.segment_batch_ids, table.segment_readings.tolist(), strict=True
            ):
                segments[batch_id.tobytes()] += readings
    counts = bench.counts
    told = (counts.accepted, counts.batches, counts.refusals, sorted(counts.failures), counts.missed_batches)
    return answers, series, segments, told, len(bench.log.calls)


@pytest.mark.parametrize("faults", [0.0, 0.05, 0.4])
@pytest.mark.parametrize(
    "quotas",
    [
        TenantQuotas(),
        TenantQuotas(readings_per_second=40, burst_readings=60),
        TenantQuotas(batches_per_second=2, metrics_per_device=3),
        TenantQuotas(device_readings_per_second=2),
    ],
    ids=["unlimited", "readings", "batches", "devices"],
)
async def test_together_and_one_by_one_come_to_the_same(
    new_bench: Any, faults: float, quotas: TenantQuotas
) -> None:
    for seed in range(8):
        together = await run(new_bench, seed, faults, quotas)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(publish, "candidate", lambda *_: None)
            one_by_one = await run(new_bench, seed, faults, quotas)
        assert together == one_by_one, seed


async def test_most_batches_are_decided_on_together(new_bench: Any) -> None:
    bench = new_bench(deferred=True)
    for name in DEVICES:
        bench.world.add_device(bench.tenant, name)
    caller = bench.user()
    alone: list[Any] = []
    inner = bench.use_case._decide_alone
    bench.use_case._decide_alone = lambda *args: (alone.append(args), inner(*args))  # type: ignore[method-assign,assignment,func-returns-value]

    async def publish_all() -> None:
        raws = [batch_bytes(bench, random.Random(seed), 0.0) for seed in range(40)]
        ghost = bench.message(["ghost"]).SerializeToString()
        taken = [
            bench.use_case.publish(bench.tenant.uid, caller, 10, lambda raw=raw: read_batch(raw))
            for raw in (*raws[:20], ghost, *raws[20:])
        ]
        for submission in taken:
            await submission.outcome

    await publish_all()  # devices send their metrics for the first time
    alone.clear()
    await publish_all()
    nothing_in_it = [args for args in alone if len(args[1].devices) > 1 or args[1].devices != ["ghost"]]
    assert len(alone) - len(nothing_in_it) == 1
    assert len(nothing_in_it) < 20, "frames of nothing but NaN, and batches that overlap with themselves"


async def test_a_lane_keeps_its_order_behind_a_batch_that_waits_for_the_registry(new_bench: Any) -> None:
    bench = new_bench(deferred=True)
    bench.world.add_device(bench.tenant, "pump")
    caller, lane = bench.user(), Lane()
    asked = asyncio.Event()

    async def resolve(tenant: Any, device_ids: Any) -> None:
        await asked.wait()
        bench.world.add_device(bench.tenant, "late")

    bench.registry.resolve = resolve  # type: ignore[method-assign]

    def publish_value(devices: list[str], value: float, lane: Lane | None) -> Any:
        raw = bench.message(devices, values=[value]).SerializeToString()
        return bench.use_case.publish(bench.tenant.uid, caller, len(raw), lambda: read_batch(raw), lane)

    first = publish_value(["pump", "late"], 1.0, lane)
    second = publish_value(["pump"], 2.0, lane)
    other = publish_value(["pump"], 9.0, None)
    await other.outcome
    third = publish_value(["pump"], 3.0, lane)
    await publish_value(["pump"], 9.0, None).outcome
    assert not first.outcome.done()
    asked.set()
    for each in (third, second, first):
        await each.outcome
    assert [value for *_, value in bench.rows()] == [9.0, 9.0, 1.0, 2.0, 3.0]
    assert lane.diverted == 0
