"""The coalescing producer over a log that a test can hold back and make fail."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from tidewire_kit.directory.table import DeviceTable
from tidewire_kit.errors import QuotaExceeded, Unavailable
from tidewire_kit.ids import TenantId, new_uid
from tidewire_kit.log.port import Outgoing
from tidewire_kit.telemetry.admitted import Admitted, Origin, Source
from tidewire_kit.telemetry.metric_set import MetricSet
from tidewire_kit.telemetry.producer import ProducerLimits, TelemetryProducer
from tidewire_kit.telemetry.record import decode_record
from tidewire_testkit.clock import ManualClock
from tidewire_testkit.polling import until

ACME, OTHER = TenantId(new_uid()), TenantId(new_uid())


class Log:
    """Keeps what it is given; commits end when `gate` is open, or fail with the next of `errors`."""

    def __init__(self) -> None:
        self.calls: list[list[Outgoing]] = []
        self.gate = asyncio.Event()
        self.errors: list[Exception] = []

    def partitions(self, topic: str) -> int:
        return 1

    async def produce(self, topic: str, records: Sequence[Outgoing]) -> list[int]:
        self.calls.append(list(records))
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        return [0] * len(records)

    def values(self, call: int) -> list[float]:
        """The values of a commit, in order."""
        records = [decode_record(b"".join(outgoing.value)) for outgoing in self.calls[call]]
        return [value for record in records for table in record.tables for value in table.values[0].tolist()]


class Counts:
    """The observer."""

    def __init__(self) -> None:
        self.requests: list[int] = []
        self.failures: list[str] = []

    def committed(self, seconds: float, requests: int, records: int, value_bytes: int) -> None:
        self.requests.append(requests)

    def commit_failed(self, error: Exception, requests: int) -> None:
        self.failures.append(str(error))


def frame(value: float, tenant: TenantId = ACME, rows: int = 1) -> Admitted:
    table = DeviceTable(tenant, 1)
    table.put("pump", b"p" * 16, admitted=True, revision=1, created_us=0, ancestors=())
    return Admitted(
        tenant,
        table,
        MetricSet(("level",)),
        [Origin(Source(bytes(new_uid()), bytes(new_uid()), 0, 0), 0, rows)],
        np.zeros(rows, np.intp),
        np.arange(rows, dtype=np.int64),
        np.full((1, rows), float(value)),
        complete=True,
    )


@pytest.fixture
def log() -> Log:
    return Log()


def producer(log: Log, counts: Counts | None = None, **limits: int | float) -> TelemetryProducer:
    return TelemetryProducer(
        log,  # type: ignore[arg-type]
        "telemetry",
        ManualClock(),
        limits=ProducerLimits(**limits),  # type: ignore[arg-type]
        observer=counts,
    )


async def test_what_arrives_while_a_commit_is_in_flight_shares_the_next_in_its_order(log: Log) -> None:
    counts = Counts()
    sender = producer(log, counts, commits_in_flight=1)
    first = sender.publish(ACME, [frame(0)])
    await until(lambda: log.calls)
    later = [sender.publish(ACME, [frame(n)]) for n in range(1, 50)]
    assert not first.done()
    log.gate.set()
    await asyncio.gather(first, *later)
    assert [log.values(call) for call in range(len(log.calls))] == [[0.0], [float(n) for n in range(1, 50)]]
    assert counts.requests == [1, 49]
    assert sender.pending_bytes == 0


async def test_frames_do_not_wait_longer_than_the_gathering_time_for_a_slow_disk(log: Log) -> None:
    sender = producer(log, gather_seconds=0.001)
    sender.publish(ACME, [frame(0)])
    await until(lambda: len(log.calls) == 1)
    sender.publish(ACME, [frame(1)])
    await until(lambda: len(log.calls) == 2)
    sender.publish(ACME, [frame(2)])
    assert len(log.calls) == 2, "two commits are in flight, and a third waits"
    log.gate.set()
    await sender.close()
    assert [log.values(call) for call in range(3)] == [[0.0], [1.0], [2.0]]


async def test_a_commit_that_fails_fails_its_requests_and_no_other(log: Log) -> None:
    counts = Counts()
    sender = producer(log, counts, commits_in_flight=1)
    log.errors = [Unavailable("message log", "is full", reason="LOG_FULL", retry_delay_seconds=3)]
    one, two = sender.publish(ACME, [frame(1)]), sender.publish(OTHER, [frame(2, OTHER)])
    await until(lambda: log.calls)
    three = sender.publish(ACME, [frame(3)])
    log.gate.set()
    for failed in (one, two):
        with pytest.raises(Unavailable) as caught:
            await failed
        assert (caught.value.reason, caught.value.retry_delay_seconds) == ("LOG_FULL", 3)
    await three
    assert len(counts.failures) == 1
    assert counts.requests == [1]


async def test_above_its_bound_it_refuses_with_a_delay_and_leaves_room_for_other_tenants(log: Log) -> None:
    size = frame(0, rows=1000).bytes
    sender = producer(log, pending_bytes=4 * size)
    taken = [sender.publish(ACME, [frame(n, rows=1000)]) for n in range(2)]
    with pytest.raises(QuotaExceeded) as caught:
        sender.publish(ACME, [frame(9, rows=1000)])
    assert caught.value.reason == "OVERLOADED"
    assert caught.value.retry_delay_seconds
    taken += [sender.publish(OTHER, [frame(n, OTHER, rows=1000)]) for n in range(2)]
    with pytest.raises(QuotaExceeded):
        sender.publish(TenantId(new_uid()), [frame(9, rows=1000)])
    log.gate.set()
    await asyncio.gather(*taken)
    await sender.publish(ACME, [frame(9, rows=1000)])
    assert sender.pending_bytes == 0


async def test_one_request_larger_than_any_bound_is_taken_when_nothing_else_waits(log: Log) -> None:
    log.gate.set()
    sender = producer(log, pending_bytes=100)
    await sender.publish(ACME, [frame(1, rows=1000)])
    assert len(log.values(0)) == 1000


async def test_closing_waits_for_what_was_taken_and_takes_nothing_more(log: Log) -> None:
    sender = producer(log)
    taken = sender.publish(ACME, [frame(1)])
    closing = asyncio.create_task(sender.close())
    await until(lambda: log.calls)
    with pytest.raises(Unavailable) as caught:
        sender.publish(ACME, [frame(2)])
    assert caught.value.reason == "DRAINING"
    assert not closing.done()
    log.gate.set()
    await closing
    assert taken.done()
    assert log.values(0) == [1.0]


async def test_a_caller_that_went_away_stops_nobody(log: Log) -> None:
    sender = producer(log)
    gone, stays = sender.publish(ACME, [frame(1)]), sender.publish(ACME, [frame(2)])
    gone.cancel()
    log.gate.set()
    await stays
    assert log.values(0) == [1.0, 2.0]
