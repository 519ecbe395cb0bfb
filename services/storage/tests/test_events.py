"""Events from the log to the list against a model: any order, retries, restarts, failures before and after a commit."""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewire.events.v1.dead_letter_pb2 import DeadLetter
from tidewire_kit import topics
from tidewire_kit.clock import SystemClock
from tidewire_kit.events import Event, EventRecord, EventWriter, encode_events
from tidewire_kit.ids import TenantId, new_uid, partition_of
from tidewire_kit.log.embedded import EmbeddedLog, EmbeddedLogSettings
from tidewire_kit.log.port import Outgoing
from tidewire_kit.owner import OwnerSettings
from tidewire_kit.owner.events import EventOwner, RecordRefused
from tidewire_kit.owner.poison import POISON_LEAST
from tidewire_storage.adapters.embedded import EmbeddedEventStore
from tidewire_storage.application.event_housekeeping import EventHousekeeping
from tidewire_storage.application.list_events import ListEvents
from tidewire_storage.application.names import Names
from tidewire_storage.application.store_events import StoreEvents
from tidewire_storage.consumer import EVENTS_GROUP, event_owner
from tidewire_storage.ports import EventAccount, EventFilter, EventFlush, EventKey, ProgressMoved
from tidewire_testkit.directory import World
from tidewire_testkit.polling import until

PARTITIONS = 3
T0 = 1_700_000_000_000_000
FAST = OwnerSettings(poll_seconds=0.02, first_retry_seconds=0.01, longest_retry_seconds=0.05)
ALL = EventFilter(None, "", 0, -(1 << 62), 1 << 62)


class Troubled(EmbeddedEventStore):
    """A store whose commits fail when told to: before anything was written, or after everything was."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.failures: list[str] = []
        self.unstorable = ""
        """Id of an event that the store refuses to keep."""
        self.refusals = 0

    async def commit(self, flush: EventFlush) -> EventAccount:
        for offset, record in flush.records:
            if any(event.event_id == self.unstorable for event in record.events):
                self.refusals += 1
                raise RecordRefused(offset, "no column holds it")
        when = self.failures.pop(0) if self.failures else ""
        if when == "before":
            raise ConnectionError("nothing was written")
        if when == "moved":
            raise ProgressMoved(flush.place, flush.expected_offset, None)
        account = await super().commit(flush)
        if when == "after":
            raise ConnectionError("the answer was lost")
        return account


class Rig:
    """Log, store and owner in a directory, as `main` wires them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.owner: EventOwner | None = None

    async def start(self) -> None:
        self.log = EmbeddedLog(
            self.path,
            EmbeddedLogSettings(min_free_bytes=0, segment_bytes=1 << 22, preallocate_bytes=1 << 16),
        )
        await self.log.start()
        await self.log.ensure_topics(topics.specs(PARTITIONS))
        self.store = Troubled(self.path / "storage")
        await self.store.open()
        sink = StoreEvents(self.store, self.log.incarnation(topics.EVENTS))
        self.writer = EventWriter(self.log, topics.EVENTS)
        self.owner = event_owner(self.log, SystemClock(), sink, FAST)
        await self.owner.start()

    async def stop(self) -> None:
        if self.owner is not None:
            await self.owner.close()
            await self.store.close()
            await self.log.close()
            self.owner = None

    async def settled(self) -> None:
        """Returns when everything in the log is stored and committed."""

        async def nothing_left() -> bool:
            return not any((await self.log.lag(EVENTS_GROUP, topics.EVENTS)).values())

        await until(nothing_left, seconds=30)


PUBLISH = st.tuples(
    st.just("publish"),
    st.integers(0, 1),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=5),
)
STEPS = st.lists(
    st.one_of(
        PUBLISH,
        PUBLISH,
        st.tuples(st.just("retry"), st.integers(0, 5)),
        st.tuples(st.just("fail"), st.sampled_from(["before", "after"])),
        st.just(("restart",)),
        st.just(("settle",)),
    ),
    max_size=10,
)


@pytest.mark.timeout(180)
@settings(max_examples=6, deadline=None)
@given(steps=STEPS)
def test_it_holds_what_the_model_does(steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_run(Rig(Path(directory)), steps))


async def _run(rig: Rig, steps: Sequence[Any]) -> None:
    tenants = [TenantId(new_uid()), TenantId(new_uid())]
    devices = [bytes(new_uid()) for _ in range(4)]
    model: dict[TenantId, dict[EventKey, Event]] = {tenant: {} for tenant in tenants}
    sent: list[EventRecord] = []
    await rig.start()

    async def publish(record: EventRecord) -> None:
        await rig.writer.write(record)
        sent.append(record)
        for event in record.events:
            key = EventKey(event.time_us, event.device_uid, event.event_id)
            model[record.tenant].setdefault(key, event)

    try:
        for step in steps:
            match step:
                case ("publish", tenant, given):
                    events = [
                        Event(devices[device], T0 + at, f"e{name}", "t", 9, "", b"body")
                        for device, at, name in given
                    ]
                    await publish(EventRecord(tenants[tenant], bytes(16), bytes(new_uid()), T0, events))
                case ("retry", back) if sent:
                    await publish(sent[-1 - back % len(sent)])
                case ("fail", when):
                    rig.store.failures.append(when)
                case ("restart",):
                    await rig.stop()
                    await rig.start()
                case ("settle",):
                    await rig.settled()
                case _:
                    pass
        await rig.settled()
        for tenant in tenants:
            found = await rig.store.page(tenant, ALL, None, 1_000, 1 << 30)
            assert [item.event for item in found] == [
                model[tenant][key] for key in sorted(model[tenant], reverse=True)
            ]
        account = await rig.store.account()
        assert account.accepted == sum(len(record.events) for record in sent)
        assert account.stored == sum(map(len, model.values()))
        assert account.duplicate == account.accepted - account.stored
        assert account.difference == 0
    finally:
        await rig.stop()


@pytest.fixture
async def rig(tmp_path: Path):
    rig = Rig(tmp_path)
    await rig.start()
    yield rig
    await rig.stop()


async def test_a_record_that_cannot_be_read_is_set_aside_and_the_others_stored(rig: Rig) -> None:
    tenant, device = TenantId(new_uid()), bytes(new_uid())
    event = Event(device, T0, "one", "t", 0, "", b"")
    await rig.writer.write(EventRecord(tenant, bytes(16), bytes(16), T0, [event]))
    for partition in range(PARTITIONS):
        await rig.log.produce(topics.EVENTS, [Outgoing(partition, b"", [b"\xff\xff"])])
    await rig.settled()
    assert len(await rig.store.page(tenant, ALL, None, 10, 1 << 30)) == 1
    account = await rig.store.account()
    assert (account.accepted, account.stored, account.dead_lettered) == (1 + PARTITIONS, 1, PARTITIONS)
    assert account.difference == 0
    letters = await rig.log.read(topics.DEAD_LETTER, 0, 0)
    assert len(letters) == PARTITIONS


def _record(tenant: TenantId, device: bytes, event_id: str = "one", **fields: object) -> EventRecord:
    facts: dict[str, Any] = {"time_us": T0, "type": "t", "severity": 9, "content_type": "", "body": b""}
    event = Event(device, event_id=event_id, **(facts | fields))
    return EventRecord(tenant, bytes(16), bytes(16), T0, [event])


async def test_records_that_no_store_could_keep_are_set_aside_each_with_its_reason(rig: Rig) -> None:
    tenant, device = TenantId(new_uid()), bytes(new_uid())
    place = partition_of(tenant, device, PARTITIONS)
    elsewhere = next(
        uid
        for uid in (TenantId(new_uid()) for _ in range(1_000))
        if partition_of(uid, device, PARTITIONS) != place
    )
    bad = [
        (_record(elsewhere, device), "another partition"),
        (_record(tenant, device, body=b"x" * ((256 << 10) + 1)), "body is too large"),
        (_record(tenant, device, "x" * 64), "event_id is too large"),
        (_record(tenant, device, type="x" * 64), "type is too large"),
        (_record(tenant, device, content_type="x" * 128), "content_type is too large"),
        (_record(tenant, device, severity=1 << 31), "severity is too large"),
        (_record(tenant, device, time_us=1 << 62), "before the year 1970"),
        (_record(tenant, device, time_us=-1), "before the year 1970"),
    ]
    for record, _ in bad:
        (value,) = encode_events(record)
        await rig.log.produce(topics.EVENTS, [Outgoing(place, b"", [value])])
    await rig.writer.write(_record(tenant, device, "good"))
    await rig.settled()
    assert [item.event.event_id for item in await rig.store.page(tenant, ALL, None, 10, 1 << 30)] == ["good"]
    account = await rig.store.account()
    assert (account.accepted, account.stored, account.dead_lettered) == (len(bad) + 1, 1, len(bad))
    assert account.difference == 0
    letters = [
        DeadLetter.FromString(bytes(item.value))
        for number in range(rig.log.partitions(topics.DEAD_LETTER))
        for item in await rig.log.read(topics.DEAD_LETTER, number, 0)
    ]
    letters.sort(key=lambda letter: letter.source_offset)
    assert [letter.reason for letter in letters] == ["MALFORMED"] * len(bad)
    for letter, (_, why) in zip(letters, bad, strict=True):
        assert why in letter.message
        assert letter.payload


async def test_a_record_that_the_store_refuses_is_tried_three_times_and_set_aside(rig: Rig) -> None:
    tenant, device = TenantId(new_uid()), bytes(new_uid())
    rig.store.unstorable = "bad"
    for name in ("first", "bad", "last"):
        await rig.writer.write(_record(tenant, device, name))
    await rig.settled()
    found = await rig.store.page(tenant, ALL, None, 10, 1 << 30)
    assert {item.event.event_id for item in found} == {"first", "last"}
    account = await rig.store.account()
    assert (account.accepted, account.stored, account.dead_lettered) == (3, 2, 1)
    assert account.difference == 0
    (letter,) = [
        DeadLetter.FromString(bytes(item.value))
        for number in range(rig.log.partitions(topics.DEAD_LETTER))
        for item in await rig.log.read(topics.DEAD_LETTER, number, 0)
    ]
    assert (letter.reason, "no column holds it" in letter.message) == ("PROCESSING_FAILED", True)
    assert rig.store.refusals == 3
    assert rig.owner is not None
    assert rig.owner.check() is None


async def test_a_partition_that_moves_is_no_failure(rig: Rig) -> None:
    tenant, device = TenantId(new_uid()), bytes(new_uid())
    rig.store.failures += ["moved", "moved"]
    await rig.writer.write(_record(tenant, device))
    await rig.settled()
    assert rig.store.failures == []
    assert rig.owner is not None
    assert (rig.owner.stats.failures, rig.owner.check()) == (0, None)
    assert len(await rig.store.page(tenant, ALL, None, 10, 1 << 30)) == 1


async def test_too_many_refused_records_stop_the_consumer_and_none_is_lost(rig: Rig) -> None:
    """Nothing behind the record that stops it has counted, and the next try goes on there."""
    tenant, device = TenantId(new_uid()), bytes(new_uid())
    rig.store.unstorable = "bad"
    for _ in range(POISON_LEAST + 3):
        await rig.writer.write(_record(tenant, device, "bad"))
    await rig.writer.write(_record(tenant, device, "good"))
    owner = rig.owner
    assert owner is not None

    async def stopped() -> bool:
        return "stopped" in (owner.check() or "")

    await until(stopped, seconds=30)

    async def counted() -> bool:
        account = await rig.store.account()
        return (account.accepted, account.dead_lettered) == (POISON_LEAST - 1, POISON_LEAST - 1)

    await until(counted, seconds=30)
    assert await rig.store.page(tenant, ALL, None, 10, 1 << 30) == []
    await rig.stop()
    await rig.start()
    await rig.settled()
    account = await rig.store.account()
    assert (account.accepted, account.stored) == (POISON_LEAST + 4, 2)
    assert account.difference == 0


async def test_pages_by_token_hide_nothing_and_deletion_reaches_the_file(rig: Rig) -> None:
    clock = SystemClock()
    world = World(clock, PARTITIONS)
    acme = world.add_tenant("acme")
    gone, kept = world.add_device(acme, "gone"), world.add_device(acme, "kept")
    events = [
        Event(device.uid, T0 + number, f"e{number}", "t", 9, "", b"needle-" + device.id.encode())
        for number, device in enumerate([gone, kept] * 5)
    ]
    await rig.writer.write(EventRecord(acme.uid, bytes(16), bytes(16), T0, events))
    await rig.settled()
    listing = ListEvents(rig.store, Names(world.directory))

    async def ids() -> list[str]:
        found, token = [], ""
        while True:
            page = await listing.page(acme.uid, [], "", 0, None, None, 3, token)
            found += [f"{name}/{item.event.event_id}" for name, item in page.events]
            token = page.next_page_token
            if not token:
                return found

    assert await ids() == [f"{('gone', 'kept')[n % 2]}/e{n}" for n in range(9, -1, -1)]
    removed: list[int] = []
    housekeeping = EventHousekeeping(
        rig.store,
        world.directory,
        clock,
        purge_seconds=3600,
        expire_seconds=3600,
        recount_seconds=3600,
        on_removed=lambda why, count: removed.append(count),
    )
    world.delete_device(gone)
    await housekeeping.purge()
    await housekeeping.purge()
    assert removed == [5]
    assert await ids() == [f"kept/e{n}" for n in (9, 7, 5, 3, 1)]
    texts = b"".join(path.read_bytes() for path in (rig.path / "storage").iterdir())
    assert b"needle-kept" in texts
    assert b"needle-gone" not in texts
