"""The use case around admission: devices not seen yet, failing logs, callers that go away."""

import asyncio
from typing import Any

import pytest

from tidewire_ingestion.domain import Reason
from tidewire_kit.errors import InvalidArgument, QuotaExceeded, Unavailable
from tidewire_kit.telemetry.batch import RawBatch
from tidewire_kit.telemetry.producer import ProducerLimits, TelemetryProducer


def knows(bench: Any, *names: str) -> None:
    """The registry knows these devices; the directory hears of them when asked."""

    def answer(tenant: Any, device_ids: Any) -> None:
        for name in names:
            if name in device_ids:
                bench.world.add_device(bench.tenant, name)

    bench.registry.answer = answer


async def test_a_device_not_heard_of_is_asked_for_once_and_then_known(bench: Any) -> None:
    knows(bench, "pump")
    outcomes = await asyncio.gather(*(bench.publish(bench.batch(["pump", "ghost"])) for _ in range(5)))
    assert [outcome.accepted_readings for outcome in outcomes] == [1] * 5
    assert bench.registry.asked == [["pump", "ghost"]]
    await bench.publish(bench.batch(["pump"]))
    assert len(bench.registry.asked) == 1


async def test_what_the_registry_does_not_know_is_asked_for_again_after_a_second(bench: Any) -> None:
    for _ in range(3):
        outcome = await bench.publish(bench.batch(["ghost"]))
        assert outcome.refusals[0].reason is Reason.DEVICE_UNKNOWN
    assert len(bench.registry.asked) == 1
    bench.clock.advance(1.1)
    knows(bench, "ghost")
    assert (await bench.publish(bench.batch(["ghost"]))).accepted_readings == 1
    assert len(bench.registry.asked) == 2


async def test_names_that_no_device_can_have_are_not_asked_for(bench: Any) -> None:
    outcome = await bench.publish(bench.batch(["", "a b", "x" * 64, "../etc"], index=[0, 1, 2, 3]))
    assert outcome.refusals[0].rows == 4
    assert bench.registry.asked == []


async def test_many_unknown_devices_are_asked_for_in_parts(bench: Any) -> None:
    names = [f"d{number}" for number in range(10_001)]
    await bench.publish(bench.batch(names))
    assert [len(asked) for asked in bench.registry.asked] == [10_000, 1]


async def test_a_registry_that_does_not_answer_makes_the_batch_fail_and_nothing_is_remembered(
    bench: Any,
) -> None:
    def fails(tenant: Any, device_ids: Any) -> None:
        raise Unavailable("registry", "does not answer", reason="REGISTRY_UNAVAILABLE")

    bench.registry.answer = fails
    with pytest.raises(Unavailable):
        await bench.publish(bench.batch(["pump"]))
    assert bench.counts.failures == ["REGISTRY_UNAVAILABLE"]
    knows(bench, "pump")
    assert (await bench.publish(bench.batch(["pump"]))).accepted_readings == 1


async def test_a_device_created_again_under_its_name_is_another_one_also_in_remembered_lists(
    bench: Any,
) -> None:
    names = [f"d{number}" for number in range(30)]
    devices = [bench.world.add_device(bench.tenant, name) for name in names]
    batch = bench.batch(names, index=[3])
    await bench.publish(batch)
    await bench.publish(batch)
    bench.world.delete_device(devices[3])
    assert (await bench.publish(batch)).refusals[0].reason is Reason.DEVICE_UNKNOWN
    again = bench.world.add_device(bench.tenant, "d3")
    await bench.publish(batch)
    assert [device for device, *_ in bench.rows()] == [devices[3].uid, devices[3].uid, again.uid]


async def test_a_failing_log_fails_the_batch_and_the_next_one_goes(bench: Any) -> None:
    bench.world.add_device(bench.tenant, "pump")
    bench.log.errors = [Unavailable("message log", "broke")]
    with pytest.raises(Unavailable):
        await bench.publish(bench.batch())
    assert bench.counts.failures == ["UNAVAILABLE"]
    assert bench.counts.accepted == 0
    assert (await bench.publish(bench.batch())).accepted_readings == 1


async def test_too_much_pending_refuses_and_gives_the_quota_back(bench: Any) -> None:
    bench.world.add_device(bench.tenant, "pump")
    producer = TelemetryProducer(
        bench.log, "telemetry", bench.clock, limits=ProducerLimits(pending_bytes=150)
    )
    bench.use_case._producer = producer
    bench.log.gate.clear()
    first = asyncio.ensure_future(bench.publish(bench.batch()))
    for _ in range(5):
        await asyncio.sleep(0)
    with pytest.raises(QuotaExceeded) as caught:
        await bench.publish(bench.batch())
    assert caught.value.reason == "OVERLOADED"
    bench.log.gate.set()
    assert (await first).accepted_readings == 1
    assert bench.counts.failures == ["OVERLOADED"]


async def test_a_request_that_cannot_be_decoded_fails_alone(bench: Any) -> None:
    pump = bench.world.add_device(bench.tenant, "pump")
    caller = bench.user()

    def broken() -> RawBatch:
        raise InvalidArgument("frames[0].values", "is broken")

    publish = bench.use_case.publish
    batches = [bench.batch(values=[1.0]), bench.batch(values=[2.0])]
    good = [publish(caller.tenant, caller, 10, lambda batch=batch: batch).outcome for batch in batches[:1]]
    bad = publish(caller.tenant, caller, 10, broken).outcome
    good += [publish(caller.tenant, caller, 10, lambda batch=batch: batch).outcome for batch in batches[1:]]
    with pytest.raises(InvalidArgument):
        await bad
    assert [(await each).accepted_readings for each in good] == [1, 1]
    assert [(device, value) for device, _, _, value in bench.rows()] == [(pump.uid, 1.0), (pump.uid, 2.0)]
    assert bench.counts.failures == ["INVALID_ARGUMENT"]


async def test_a_caller_that_went_away_before_its_turn_leaves_nothing(bench: Any) -> None:
    bench.world.add_device(bench.tenant, "pump")
    caller = bench.user()
    gone = bench.use_case.publish(caller.tenant, caller, 10, lambda: bench.batch(values=[1.0])).outcome
    gone.cancel()
    assert (await bench.publish(bench.batch(values=[2.0]), caller)).accepted_readings == 1
    assert [value for *_, value in bench.rows()] == [2.0]
    assert bench.producer.pending_bytes == 0
