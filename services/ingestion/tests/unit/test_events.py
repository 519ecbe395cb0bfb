"""Which events are admitted, what is written of them, and what is answered."""

import itertools
import uuid
from typing import Any

import pytest

from tidewire.ingestion.v1.ingestion_pb2 import PublishEventsRequest
from tidewire.registry.v1.resources_pb2 import Tenant, TenantQuotas
from tidewire.type.v1.event_pb2 import Event as EventMessage
from tidewire_ingestion.application.events import PublishEvents
from tidewire_ingestion.application.resolution import Resolution
from tidewire_ingestion.application.tenants import Tenants
from tidewire_ingestion.conversions import read_events
from tidewire_ingestion.domain import EventBatch, EventOutcome, GivenEvent, Reason
from tidewire_kit.errors import InvalidArgument, QuotaExceeded, Unauthenticated, Unavailable
from tidewire_kit.events import Event, EventRecord, decode_events, encode_events
from tidewire_kit.ids import TenantId
from tidewire_kit.telemetry.batch import new_batch_id


class Written:
    """The writer: what was written, and the next failure."""

    def __init__(self) -> None:
        self.records: list[EventRecord] = []
        self.error: Exception | None = None

    async def write(self, record: EventRecord) -> None:
        if self.error is not None:
            raise self.error
        self.records.append(record)


class Counts:
    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def events_answered(self, tenant: TenantId, accepted: int) -> None:
        self.seen.append(("accepted", accepted))

    def events_refused(self, tenant: TenantId, reason: Reason, events: int) -> None:
        self.seen.append((reason.name, events))

    def failed(self, tenant: TenantId, reason: str) -> None:
        self.seen.append(("failed", reason))


class Desk:
    """The use case with everything around it; `bench` has the world."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.written, self.counts = Written(), Counts()
        self.use_case = PublishEvents(
            bench.world.directory,
            self.written,
            Resolution(bench.registry, bench.clock),
            bench.clock,
            self.counts,
            Tenants(),
            pending_bytes=1 << 20,
        )

    def event(self, device: str = "pump", **fields: Any) -> GivenEvent:
        facts = {
            "time_us": self.bench.clock.now_us(), "event_id": "", "type": "pump.dry", "severity": 9,
            "content_type": "", "body": b"",
        }  # fmt: skip
        return GivenEvent(device, **(facts | fields))

    async def publish(
        self, *events: GivenEvent, batch: bytes = bytes(16), caller: Any = None
    ) -> EventOutcome:
        caller = caller or self.bench.user()
        return await self.use_case.publish(caller.tenant, caller, EventBatch(batch, "text", list(events)))


@pytest.fixture
async def desk(new_bench: Any) -> Desk:
    bench = new_bench(deferred=False)
    bench.world.add_device(bench.tenant, "pump")
    return Desk(bench)


def refused(outcome: EventOutcome) -> dict[str, tuple[int, ...]]:
    return {refusal.reason.name: refusal.positions for refusal in outcome.refusals}


async def test_bad_events_are_named_and_the_good_ones_kept(desk: Desk) -> None:
    now = desk.bench.clock.now_us()
    outcome = await desk.publish(
        desk.event(),
        desk.event(type="Pump"),
        desk.event("none"),
        desk.event(time_us=now + 600_000_001),
        desk.event(body=b"x" * (256 << 10)),
        desk.event(severity=2),
        desk.event(time_us=0),
        desk.event(event_id="a b"),
        desk.event(body=b"x" * ((256 << 10) + 1)),
        desk.event(content_type="x" * 128),
    )
    assert refused(outcome) == {
        "BAD_EVENT": (1, 5, 7, 9),
        "DEVICE_UNKNOWN": (2,),
        "CLOCK_SKEW": (3, 6),
        "BODY_TOO_LARGE": (8,),
    }
    assert outcome.accepted == 2
    assert all(refusal.message.startswith("events[") for refusal in outcome.refusals)
    [record] = desk.written.records
    assert [len(event.body) for event in record.events] == [0, 256 << 10]
    assert ("accepted", 2) in desk.counts.seen
    assert ("BAD_EVENT", 4) in desk.counts.seen


async def test_a_retry_has_the_same_ids_and_another_event_another(desk: Desk) -> None:
    one, other = desk.event(), desk.event(body=b"other")
    for events in ((one, one), (one, one), (other, one)):
        await desk.publish(*events, batch=b"b" * 16)
    await desk.publish(one, batch=b"c" * 16)
    ids = [[event.event_id for event in record.events] for record in desk.written.records]
    assert ids[0] == ids[1]
    assert ids[0][0] != ids[0][1], "two equal events of a batch are two"
    assert ids[2][1] == ids[0][1]
    assert len({ids[0][0], ids[2][0], ids[3][0]}) == 3
    await desk.publish(desk.event(event_id="mine"))
    assert desk.written.records[-1].events[0].event_id == "mine"


async def test_quotas_count_an_event_as_a_reading_and_give_back_what_was_not_durable(desk: Desk) -> None:
    bench = desk.bench
    tenant = bench.world.add_tenant("small", TenantQuotas(readings_per_second=1, burst_readings=10))
    bench.world.add_device(tenant, "pump")
    caller = bench.user(tenant)
    desk.written.error = Unavailable("log", "is not there")
    with pytest.raises(Unavailable):
        await desk.publish(*[desk.event()] * 10, caller=caller)
    desk.written.error = None
    outcome = await desk.publish(*[desk.event()] * 12, caller=caller)
    assert (outcome.accepted, refused(outcome)) == (10, {"QUOTA_TENANT": (10, 11)})
    assert outcome.retry_delay_seconds > 0
    assert ("failed", "UNAVAILABLE") in desk.counts.seen


async def test_a_blocked_tenant_publishes_nothing(desk: Desk) -> None:
    caller = desk.bench.user()
    desk.bench.world.set_tenant_state(desk.bench.tenant, Tenant.BLOCKED)
    with pytest.raises(Unauthenticated, match="blocked"):
        await desk.publish(desk.event(), caller=caller)
    assert not desk.written.records


async def test_a_caller_that_is_no_device_names_one(desk: Desk) -> None:
    with pytest.raises(InvalidArgument, match=r"events\[1\]\.device"):
        await desk.publish(desk.event(), desk.event(""))


async def test_too_much_waiting_is_refused(desk: Desk) -> None:
    desk.use_case._pending = 1 << 20  # as if it were on its way
    with pytest.raises(QuotaExceeded) as caught:
        await desk.publish(desk.event(body=b"x"))
    assert caught.value.reason == "OVERLOADED"


@pytest.mark.parametrize("count", [0, 1_001])
def test_a_batch_has_1_to_1000_events(count: int) -> None:
    with pytest.raises(InvalidArgument, match="events"):
        read_events(PublishEventsRequest(events=[EventMessage()] * count))


def test_a_large_batch_is_several_records_that_the_log_takes() -> None:
    event = GivenEvent("pump", 1, "", "t", 0, "", b"x" * (256 << 10))
    events = [Event(bytes(16), n, f"e{n}", "t", 0, "ü" * 127, event.body) for n in range(10)]
    record = EventRecord(TenantId(bytes(16)), bytes(16), new_batch_id()[0], 7, events)
    values = encode_events(record)
    assert max(map(len, values)) < 1_000_000
    decoded = [decode_events(value) for value in values]
    assert list(itertools.chain.from_iterable(part.events for part in decoded)) == events
    assert {part.batch_id for part in decoded} == {record.batch_id}
    assert str(uuid.UUID(bytes=record.batch_id))
