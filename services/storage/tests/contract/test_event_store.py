"""What any store of events has to do. A new adapter adds itself to `backend` (conftest.py) and passes all of this."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tidewire_kit.cassandra import CassandraSettings
from tidewire_kit.clock import SystemClock
from tidewire_kit.events import Event, EventRecord
from tidewire_kit.ids import TenantId, new_uid
from tidewire_kit.owner.events import RecordRefused
from tidewire_storage.adapters.embedded import EmbeddedEventStore
from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_storage.ports import EventFilter, EventFlush, EventKey, EventStore, ProgressMoved, StoreFull

OpenStore = Callable[[], Awaitable[EventStore]]
DAY = 86_400_000_000
T0 = 1_700_000_000_000_000
ALL = EventFilter(None, "", 0, -(1 << 62), 1 << 62)
MANY, BYTES = 1_000, 1 << 40


class Names:
    """Tenants, devices and a topic of one test's own: tests on a server share its tables."""

    def __init__(self) -> None:
        self.a, self.b = TenantId(new_uid()), TenantId(new_uid())
        self.devices = [bytes(new_uid()) for _ in range(20)]
        self.place = TopicPartitionKey(bytes(new_uid()), 0)


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
async def open_store(
    backend: CassandraSettings | None, tmp_path: Path, names: Names
) -> AsyncIterator[OpenStore]:
    """Opens one more store on the same data, as another process would."""
    stores: list[EventStore] = []

    async def make() -> EventStore:
        store: EventStore
        if backend is None:
            store = EmbeddedEventStore(tmp_path)
        else:
            from tidewire_kit.cassandra import connect
            from tidewire_storage.adapters.cassandra import CassandraEventStore

            store = CassandraEventStore(lambda: connect(backend), SystemClock(), [names.place])
        await store.open()
        stores.append(store)
        return store

    yield make
    for store in stores:
        await store.close()


@pytest.fixture
async def store(open_store: OpenStore) -> EventStore:
    return await open_store()


def event(device: bytes, at: int = T0, name: str = "one", **fields: object) -> Event:
    facts: dict[str, object] = {"type": "door.opened", "severity": 9, "content_type": "", "body": b""}
    return Event(device, at, name, **(facts | fields))  # type: ignore[arg-type]


def flush(
    names: Names, first: int | None, *events: Event, tenant: TenantId | None = None, dead: int = 0
) -> EventFlush:
    """One record of these events at the offset where the place stands."""
    at = first or 0
    record = EventRecord(tenant or names.a, bytes(16), bytes(16), T0, list(events))
    return EventFlush(names.place, first, at + 1, [(at, record)] if events else [], dead)


async def keys(store: EventStore, tenant: TenantId, wanted: EventFilter = ALL) -> list[EventKey]:
    return [found.key for found in await store.page(tenant, wanted, None, MANY, BYTES)]


async def test_progress_moves_with_the_events(store: EventStore, open_store: OpenStore, names: Names) -> None:
    elsewhere = TopicPartitionKey(names.place.incarnation, 1)
    assert await store.progress([names.place, elsewhere]) == {names.place: None, elsewhere: None}
    await store.commit(flush(names, None, event(names.devices[0])))
    again = await open_store()
    assert await again.progress([names.place]) == {names.place: 1}
    assert await keys(again, names.a) == [EventKey(T0, names.devices[0], "one")]


async def test_an_owner_that_is_late_changes_nothing(store: EventStore, names: Names) -> None:
    await store.commit(flush(names, None, event(names.devices[0])))
    for expected in (None, 2):
        with pytest.raises(ProgressMoved):
            await store.commit(flush(names, expected, event(names.devices[0], name="late")))
    assert len(await keys(store, names.a)) == 1
    assert (await store.account()).accepted == 1


async def test_the_same_event_is_kept_once_and_counted(store: EventStore, names: Names) -> None:
    first, second = event(names.devices[0]), event(names.devices[1])
    done = await store.commit(flush(names, None, first, first))
    assert (done.accepted, done.stored, done.duplicate) == (2, 1, 1)
    done = await store.commit(flush(names, 1, first, second))
    assert (done.accepted, done.stored, done.duplicate) == (2, 1, 1)
    done = await store.commit(flush(names, 2, dead=3))
    assert (done.accepted, done.dead_lettered) == (3, 3)
    account = await store.account()
    assert (account.accepted, account.stored, account.duplicate, account.dead_lettered) == (7, 2, 2, 3)
    assert account.difference == 0


async def test_all_fields_come_back(store: EventStore, names: Names) -> None:
    sizes = (0, 1, 1_024, 1_025, 256 << 10)
    given = [
        event(names.devices[0], T0 + size, f"e.{size}", body=b"\0\xff" * (size // 2) + b"x" * (size % 2),
              severity=21, content_type="x/ü", type="a-b_c.d")
        for size in sizes
    ]  # fmt: skip
    await store.commit(flush(names, None, *given))
    found = await store.page(names.a, ALL, None, MANY, BYTES)
    assert [item.event for item in found] == given[::-1]
    assert {item.received_us for item in found} == {T0}


async def test_pages_follow_one_another_over_days_devices_and_equal_times(
    store: EventStore, names: Names
) -> None:
    times = (T0, T0 + 1, T0 + DAY, T0 - 40 * DAY)
    given = [
        event(device, at, name) for device in names.devices[:5] for at in times for name in ("a", "B", "10")
    ]
    await store.commit(flush(names, None, *given))
    expected = sorted((EventKey(e.time_us, e.device_uid, e.event_id) for e in given), reverse=True)
    assert await keys(store, names.a) == expected
    for limit in (1, 7, 60):
        found: list[EventKey] = []
        while page := await store.page(names.a, ALL, found[-1] if found else None, limit, BYTES):
            assert len(page) <= limit
            found += [item.key for item in page]
        assert found == expected


@pytest.mark.parametrize("devices", [1, 3, 12])
async def test_pages_of_some_devices_follow_one_another(
    store: EventStore, names: Names, devices: int
) -> None:
    """Few devices are read by device where the store can; equal times and ids of several are told apart."""
    times = (T0, T0 + 1, T0 + DAY, T0 - 40 * DAY, T0 - 700 * DAY)
    given = [event(device, at, name) for device in names.devices[:15] for at in times for name in ("a", "B")]
    await store.commit(flush(names, None, *given))
    wanted = replace(ALL, devices=frozenset(names.devices[:devices]))
    expected = sorted(
        (EventKey(e.time_us, e.device_uid, e.event_id) for e in given if e.device_uid in wanted.devices),
        reverse=True,
    )
    assert await keys(store, names.a, wanted) == expected
    for limit in (1, 7):
        found: list[EventKey] = []
        while page := await store.page(names.a, wanted, found[-1] if found else None, limit, BYTES):
            assert len(page) == min(limit, len(expected) - len(found))
            found += [item.key for item in page]
        assert found == expected


async def test_a_page_ends_when_it_is_large(store: EventStore, names: Names) -> None:
    given = [event(names.devices[0], T0 + number, body=b"x" * 5_000) for number in range(4)]
    await store.commit(flush(names, None, *given))
    assert len(await store.page(names.a, ALL, None, MANY, 1)) == 1
    assert len(await store.page(names.a, ALL, None, MANY, 9_000)) == 2


async def test_filters_are_what_a_list_would_give(store: EventStore, names: Names) -> None:
    severities, types = (0, 1, 9, 17), ("a", "b.c")
    given = [
        event(device, T0 + number * DAY // 2, type=types[number % 2], severity=severities[number % 4])
        for number, device in enumerate(itertools.islice(itertools.cycle(names.devices[:6]), 48))
    ]
    await store.commit(flush(names, None, *given))
    spans = ((-(1 << 62), 1 << 62), (T0 + DAY, T0 + 9 * DAY), (T0 + DAY + 1, T0 + 20 * DAY + 1), (T0, T0))
    chosen = (None, frozenset(names.devices[:1]), frozenset(names.devices[1:4]), frozenset(names.devices[9:]))
    for devices, kind, severity, (start, end) in itertools.product(chosen, ("", *types), (0, 9, 21), spans):
        expected = [
            EventKey(e.time_us, e.device_uid, e.event_id)
            for e in given
            if (devices is None or e.device_uid in devices)
            and kind in ("", e.type)
            and e.severity >= severity
            and start <= e.time_us < end
        ]
        wanted = EventFilter(devices, kind, severity, start, end)
        assert await keys(store, names.a, wanted) == sorted(expected, reverse=True)


async def test_tenants_do_not_see_one_another(store: EventStore, names: Names) -> None:
    await store.commit(flush(names, None, event(names.devices[0])))
    await store.commit(flush(names, 1, event(names.devices[0], body=b"b's"), tenant=names.b))
    [mine], [other] = [await store.page(tenant, ALL, None, MANY, BYTES) for tenant in (names.a, names.b)]
    assert (mine.event.body, other.event.body) == (b"", b"b's")
    assert await keys(store, TenantId(new_uid())) == []


async def test_what_has_expired_goes(store: EventStore, names: Names) -> None:
    days = [event(names.devices[0], T0 + day * DAY, body=b"x" * 3_000) for day in range(4)]
    await store.commit(flush(names, None, *days))
    await store.commit(flush(names, 1, days[0], tenant=names.b))
    await store.expire(names.a, T0 // DAY * DAY + 2 * DAY)
    assert [key.time_us for key in await keys(store, names.a)] == [T0 + 3 * DAY, T0 + 2 * DAY]
    of_device = replace(ALL, devices=frozenset(names.devices[:1]))
    assert [key.time_us for key in await keys(store, names.a, of_device)] == [T0 + 3 * DAY, T0 + 2 * DAY]
    assert len(await keys(store, names.b)) == 1
    assert (await store.account()).difference == 0


async def test_deleted_devices_and_tenants_leave_and_do_not_come_back(
    store: EventStore, names: Names
) -> None:
    gone, kept = names.devices[:2]
    both = [event(gone, body=b"x" * 3_000), event(kept), event(gone, T0 + DAY)]
    await store.commit(flush(names, None, *both))
    await store.commit(flush(names, 1, *both, tenant=names.b))
    for _ in range(2):
        await store.bury([names.b], [(names.a, gone)])
        assert [key.device_uid for key in await keys(store, names.a)] == [kept]
        assert await keys(store, names.b) == []
        for device in (gone, kept):
            alone = replace(ALL, devices=frozenset([device]))
            assert {key.device_uid for key in await keys(store, names.a, alone)} == {device} - {gone}
            assert await keys(store, names.b, alone) == []
    done = await store.commit(flush(names, 2, event(gone, name="late"), event(kept, name="late")))
    assert (done.stored, done.dropped) == (1, 1)
    done = await store.commit(flush(names, 3, event(kept), tenant=names.b))
    assert (done.stored, done.dropped) == (0, 1)
    assert {key.device_uid for key in await keys(store, names.a)} == {kept}
    assert await keys(store, names.b) == []
    assert (await store.account()).difference == 0


async def test_a_full_disk_stores_nothing(tmp_path: Path, names: Names) -> None:
    free = 10
    store = EmbeddedEventStore(tmp_path, min_free_bytes=5, free=lambda _: free)
    await store.open()
    try:
        await store.commit(flush(names, None, event(names.devices[0])))
        free = 4
        with pytest.raises(StoreFull):
            await store.commit(flush(names, 1, event(names.devices[1])))
        assert await store.progress([names.place]) == {names.place: 1}
        free = 5
        await store.commit(flush(names, 1, event(names.devices[1])))
        assert len(await keys(store, names.a)) == 2
    finally:
        await store.close()


@pytest.mark.servers
@pytest.mark.parametrize("backend", ["cassandra"], indirect=True)
async def test_a_record_that_the_server_does_not_accept_is_named(store: EventStore, names: Names) -> None:
    """Whatever it is: here a severity that is no 32-bit integer, and an id above the server's largest key."""
    good = [(0, EventRecord(names.a, bytes(16), bytes(16), T0, [event(names.devices[0])]))]
    for bad in (event(names.devices[1], severity=1 << 40), event(names.devices[1], name="x" * 70_000)):
        record = EventRecord(names.a, bytes(16), bytes(16), T0, [bad])
        with pytest.raises(RecordRefused) as caught:
            await store.commit(EventFlush(names.place, None, 2, [*good, (1, record)], 0))
        assert caught.value.offset == 1
    assert await store.progress([names.place]) == {names.place: None}
    done = await store.commit(EventFlush(names.place, None, 2, good, 1))
    assert (done.accepted, done.stored, done.dead_lettered, done.difference) == (2, 1, 1, 0)
