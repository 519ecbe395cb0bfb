"""The Cassandra store of events: a row by tenant, day and shard, one by device, and large bodies apart.

Rows are written before the head moves, by one conditional write that also holds the counts. A row says where in the log
it came from. So whoever repeats a flush, after a crash or as a late owner, writes the same rows again, and counts an
event as a duplicate only when the row that is there came from elsewhere.
"""

import asyncio
import secrets
import struct
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from tidewire_kit.cassandra import CassandraSession, Consistency, Row
from tidewire_kit.clock import Clock
from tidewire_kit.errors import TidewireError
from tidewire_kit.events import EventRecord
from tidewire_kit.ids import TenantId
from tidewire_kit.owner.events import RecordRefused
from tidewire_storage.adapters.cassandra.event_pages import (
    BODY_KEY,
    DAY_US,
    DAYS,
    DEVICE_PARTITION,
    INLINE_BYTES,
    PAGE_ROWS,
    EventPages,
    period_of,
    shard_of,
)
from tidewire_storage.adapters.cassandra.tables import Tables, delete, gather_all, insert, select
from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_storage.ports import (
    EventAccount,
    EventFilter,
    EventFlush,
    EventKey,
    ProgressMoved,
    StoredEvent,
)

_LEAST_TTL, _MOST_TTL = 60, 20 * 365 * 86_400
_BODY_TTL = 3_600
"""Bodies stay so much longer than the rows that name them, in seconds."""
_BATCH = 32
_COUNTS = ("accepted", "stored", "duplicate", "dead_lettered", "dropped")
_PLACE = ("incarnation", "log_partition")
_KEY = ("tenant", "day", "shard", "time_us", "device", "event_id")
_FACTS = ("type", "severity", "content_type", "received_us", "source", "size", "body")

_HEAD = select("storage_event_heads", ("next_offset", "attempt", *_COUNTS), _PLACE)
_FIRST_HEAD = insert("storage_event_heads", (*_PLACE, "next_offset", "attempt", *_COUNTS), "IF NOT EXISTS")
_NEXT_HEAD = (
    f"UPDATE storage_event_heads SET next_offset = ?, attempt = ?, {', '.join(f'{name} = ?' for name in _COUNTS)} "  # noqa: S608
    "WHERE incarnation = ? AND log_partition = ? IF next_offset = ?"
)
_SOURCE = select("storage_events", ("source",), _KEY)
_PUT = insert("storage_events", (*_KEY, *_FACTS), "USING TTL ?")
_PUT_BODY = insert("storage_event_bodies", (*BODY_KEY, "body"), "USING TTL ?")
_PUT_OF_DEVICE = insert(
    "storage_device_events",
    (*DEVICE_PARTITION, "time_us", "event_id", *(fact for fact in _FACTS if fact != "source")),
    "USING TTL ?",
)
_PUT_DAY = insert("storage_event_days", ("tenant", "day", "shard"))
_PARTITION = ("tenant", "day", "shard")
_ALL_KEYS = select("storage_events", ("device", "time_us", "event_id", "size"), _PARTITION)
_DROP_OF_DEVICE = delete("storage_device_events", DEVICE_PARTITION, "AND time_us >= ? AND time_us < ?")
_DROP_BODY = delete("storage_event_bodies", BODY_KEY)
_DROP_ROW = delete("storage_events", _KEY)
_DROP_PARTITION = delete("storage_events", _PARTITION)
_DROP_DAY = delete("storage_event_days", _PARTITION)

_REFUSED = (TidewireError, TypeError, ValueError, OverflowError, struct.error)
"""What a value raises that the driver cannot bind or the server does not accept; other TidewireErrors are trouble."""

OpenSession = Callable[[], Awaitable[CassandraSession]]
Unit = tuple[int, int]
"""(day, shard)."""


class CassandraEventStore:
    """EventStore over a keyspace. `await open()` first, `await close()` last; on one loop."""

    def __init__(
        self,
        open_session: OpenSession,
        clock: Clock,
        places: Sequence[TopicPartitionKey],
        *,
        retention: Callable[[TenantId], float | None] = lambda tenant: None,
    ) -> None:
        """`places` are all of the topic; `retention` tells how long a tenant keeps events, in
        seconds (None: for good)."""
        self._open_session = open_session
        self._clock = clock
        self._places = places
        self._retention = retention
        self._session: CassandraSession | None = None
        self._buried_tenants: set[TenantId] = set()
        self._buried_devices: set[tuple[TenantId, bytes]] = set()

    async def open(self) -> None:
        """See EventStore."""
        self._session = await self._open_session()
        self._tables = Tables(self._session)

    async def close(self) -> None:
        """See EventStore."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    # Storing

    async def _head(self, place: TopicPartitionKey) -> Row | None:
        """Sees every conditional write that took effect."""
        return await self._tables.row(
            _HEAD, place.incarnation, place.partition, consistency=Consistency.LOCAL_SERIAL
        )

    async def progress(self, places: Collection[TopicPartitionKey]) -> Mapping[TopicPartitionKey, int | None]:
        """See EventStore."""
        heads = await gather_all(self._head(place) for place in places)
        return {
            place: None if head is None else head.next_offset
            for place, head in zip(places, heads, strict=True)
        }

    async def commit(self, flush: EventFlush) -> EventAccount:
        """See EventStore."""
        head = await self._head(flush.place)
        found = None if head is None else head.next_offset
        if found != flush.expected_offset:
            raise ProgressMoved(flush.place, flush.expected_offset, found)
        account = EventAccount(accepted=flush.dead_lettered, dead_lettered=flush.dead_lettered)
        try:
            await self._write(self._fresh(flush.records, flush.place, account), account)
        except _REFUSED as error:
            await self._find_refused(flush, error)
            raise
        await self._move(flush, head, account)
        return account

    async def _find_refused(self, flush: EventFlush, error: Exception) -> None:
        """Raises RecordRefused for the record that cannot be written. The rows of the others are those that the next
        try writes."""
        if isinstance(error, TidewireError) and error.reason != "INTERNAL":
            return
        for item in flush.records:
            account = EventAccount()
            try:
                await self._write(self._fresh([item], flush.place, account), account)
            except _REFUSED as found:
                if not isinstance(found, TidewireError) or found.reason == "INTERNAL":
                    raise RecordRefused(item[0], f"{type(found).__name__}: {found}") from found
                raise

    def _fresh(
        self, records: Sequence[tuple[int, EventRecord]], place: TopicPartitionKey, account: EventAccount
    ) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        """Key → facts of the records' events, each identity once."""
        rows: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        for offset, record in records:
            account.accepted += len(record.events)
            for position, event in enumerate(record.events):
                if (
                    record.tenant in self._buried_tenants
                    or (record.tenant, event.device_uid) in self._buried_devices
                ):
                    account.dropped += 1
                    continue
                key = _key_of(record.tenant, event.device_uid, event.time_us, event.event_id)
                if key in rows:
                    account.duplicate += 1
                    continue
                source = place.incarnation + struct.pack("<IQI", place.partition, offset, position)
                rows[key] = (
                    event.type, event.severity, event.content_type, record.received_us, source,
                    len(event.body), event.body,
                )  # fmt: skip
        return rows

    async def _write(self, rows: dict[tuple[Any, ...], tuple[Any, ...]], account: EventAccount) -> None:
        held = await gather_all(self._tables.row(_SOURCE, *key) for key in rows)
        new: dict[Any, list[tuple[Any, ...]]] = {}
        of_device: dict[Any, list[tuple[Any, ...]]] = {}
        bodies = []
        for (key, facts), row in zip(rows.items(), held, strict=True):
            *rest, source, size, body = facts
            if row is not None and row.source != source:
                account.duplicate += 1
                continue
            account.stored += 1
            tenant, _, _, time_us, device, event_id = key
            ttl = self._ttl(tenant, time_us)
            if size > INLINE_BYTES:
                bodies.append((tenant, device, time_us, event_id, body, ttl + _BODY_TTL if ttl else 0))
                body = None
            new.setdefault(key[:3], []).append((*key, *rest, source, size, body, ttl))
            place = (tenant, device, period_of(time_us))
            of_device.setdefault(place, []).append((*place, time_us, event_id, *rest, size, body, ttl))
        await gather_all(self._tables.rows(_PUT_DAY, *unit) for unit in new)
        await gather_all(self._tables.rows(_PUT_BODY, *values) for values in bodies)
        for cql, partitions in ((_PUT, new), (_PUT_OF_DEVICE, of_device)):
            put = await self._tables.session.prepare(cql)
            await gather_all(
                self._tables.session.batch([(put, values) for values in some[first : first + _BATCH]])
                for some in partitions.values()
                for first in range(0, len(some), _BATCH)
            )

    async def _move(self, flush: EventFlush, head: Row | None, account: EventAccount) -> None:
        place = flush.place
        attempt = secrets.token_bytes(16)
        counts = [getattr(account, name) + (0 if head is None else getattr(head, name)) for name in _COUNTS]
        if head is None:
            cql, values = (
                _FIRST_HEAD,
                (place.incarnation, place.partition, flush.next_offset, attempt, *counts),
            )
        else:
            cql = _NEXT_HEAD
            values = (
                flush.next_offset, attempt, *counts, place.incarnation, place.partition, flush.expected_offset
            )  # fmt: skip
        outcome = await self._tables.session.apply(await self._tables.session.prepare(cql), values)
        if not outcome.applied:
            now = await self._head(place)
            if now is None or now.attempt != attempt:
                raise ProgressMoved(place, flush.expected_offset, None if now is None else now.next_offset)

    def _ttl(self, tenant: TenantId, time_us: int) -> int:
        """Seconds that an event is kept; 0: for good."""
        seconds = self._retention(tenant)
        if seconds is None:
            return 0
        age = (self._clock.now_us() - time_us) / 1e6
        return int(min(max(seconds - age, _LEAST_TTL), _MOST_TTL - _BODY_TTL))

    # Listing

    async def page(
        self, tenant: TenantId, wanted: EventFilter, after: EventKey | None, limit: int, most_bytes: int
    ) -> list[StoredEvent]:
        """See EventStore."""
        return await EventPages(self._tables).page(tenant, wanted, after, limit, most_bytes)

    async def account(self) -> EventAccount:
        """See EventStore. What is there is not counted: rows go by themselves when they expire."""
        heads = await gather_all(self._head(place) for place in self._places)
        sums = {name: sum(getattr(head, name) for head in heads if head is not None) for name in _COUNTS}
        return EventAccount(**sums)

    # Removing

    async def expire(self, tenant: TenantId, before_us: int) -> int:
        """See EventStore. Rows expire by themselves; this removes days that are wholly older, for a retention that has
        become shorter, and what is noted of them."""
        gone = [unit for unit in await self._units(tenant) if (unit[0] + 1) * DAY_US <= before_us]
        await gather_all(self._drop_unit(tenant, unit) for unit in gone)
        return 0

    async def bury(self, tenants: Collection[TenantId], devices: Collection[tuple[TenantId, bytes]]) -> int:
        """See EventStore. Other processes do the same once they hear of it."""
        self._buried_tenants.update(tenants)
        self._buried_devices.update(devices)
        for tenant in tenants:
            for unit in await self._units(tenant):
                await self._drop_unit(tenant, unit)
        by_tenant: dict[TenantId, set[bytes]] = {}
        for tenant, device in devices:
            if tenant not in tenants:
                by_tenant.setdefault(tenant, set()).add(device)
        for tenant, uids in by_tenant.items():
            shards = {shard_of(device) for device in uids}
            for unit in await self._units(tenant):
                if unit[1] in shards:
                    await self._drop_unit(tenant, unit, uids)
        return 0

    async def _units(self, tenant: TenantId) -> list[Unit]:
        return [(row.day, row.shard) for row in await self._tables.rows(DAYS, tenant)]

    async def _drop_unit(
        self, tenant: TenantId, unit: Unit, devices: Collection[bytes] | None = None
    ) -> None:
        """Removes a day of a shard, or some devices of it: bodies first, as only rows tell of them."""
        now_us = self._clock.now_us()
        session = self._tables.session
        drop_body, drop_row, drop_of_device = await asyncio.gather(
            session.prepare(_DROP_BODY), session.prepare(_DROP_ROW), session.prepare(_DROP_OF_DEVICE)
        )
        async for rows in session.execute_paged(
            await session.prepare(_ALL_KEYS), (tenant, *unit), page_rows=PAGE_ROWS
        ):
            going = [row for row in rows if devices is None or row.device in devices]
            first_us = unit[0] * DAY_US
            await session.execute_all(
                drop_of_device,
                (
                    (now_us, tenant, device, period_of(first_us), first_us, first_us + DAY_US)
                    for device in {row.device for row in going}
                ),
            )
            large: Iterable[Row] = (row for row in going if row.size > INLINE_BYTES)
            await session.execute_all(
                drop_body, ((now_us, tenant, row.device, row.time_us, row.event_id) for row in large)
            )
            if devices is not None:
                await session.execute_all(
                    drop_row,
                    ((now_us, tenant, *unit, row.time_us, row.device, row.event_id) for row in going),
                )
        if devices is None:
            await self._tables.rows(_DROP_PARTITION, now_us, tenant, *unit)
            await self._tables.rows(_DROP_DAY, now_us, tenant, *unit)


def _key_of(tenant: TenantId, device: bytes, time_us: int, event_id: str) -> tuple[Any, ...]:
    return (tenant, time_us // DAY_US, shard_of(device), time_us, device, event_id)
