"""The Cassandra store of events: one row an event, by tenant, day and shard; large bodies beside them.

Rows are written before the head moves, by one conditional write that also holds the counts. A row says where in the log
it came from. So whoever repeats a flush, after a crash or as a late owner, writes the same rows again, and counts an
event as a duplicate only when the row that is there came from elsewhere.
"""

import asyncio
import secrets
import struct
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import xxhash

from tidewire_kit.cassandra import CassandraSession, Consistency, Row
from tidewire_kit.clock import Clock
from tidewire_kit.errors import TidewireError
from tidewire_kit.events import Event, EventRecord
from tidewire_kit.ids import TenantId
from tidewire_kit.owner.events import RecordRefused
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

SHARDS = 16
INLINE_BYTES = 1 << 10
"""Larger bodies lie in a table of their own."""
_DAY_US = 86_400_000_000
_LEAST_TTL, _MOST_TTL = 60, 20 * 365 * 86_400
_BODY_TTL = 3_600
"""Bodies stay so much longer than the rows that name them, in seconds."""
_BATCH = 32
_PAGE_ROWS = 500
_COUNTS = ("accepted", "stored", "duplicate", "dead_lettered", "dropped")
_PLACE = ("incarnation", "log_partition")
_KEY = ("tenant", "day", "shard", "time_us", "device", "event_id")
_FACTS = ("type", "severity", "content_type", "received_us", "source", "size", "body")
_BODY_KEY = ("tenant", "device", "time_us", "event_id")

_HEAD = select("storage_event_heads", ("next_offset", "attempt", *_COUNTS), _PLACE)
_FIRST_HEAD = insert("storage_event_heads", (*_PLACE, "next_offset", "attempt", *_COUNTS), "IF NOT EXISTS")
_NEXT_HEAD = (
    f"UPDATE storage_event_heads SET next_offset = ?, attempt = ?, {', '.join(f'{name} = ?' for name in _COUNTS)} "  # noqa: S608
    "WHERE incarnation = ? AND log_partition = ? IF next_offset = ?"
)
_SOURCE = select("storage_events", ("source",), _KEY)
_PUT = insert("storage_events", (*_KEY, *_FACTS), "USING TTL ?")
_PUT_BODY = insert("storage_event_bodies", (*_BODY_KEY, "body"), "USING TTL ?")
_PUT_DAY = insert("storage_event_days", ("tenant", "day", "shard"))
_BODY = select("storage_event_bodies", ("body",), _BODY_KEY)
_DAYS = select("storage_event_days", ("day", "shard"), ("tenant",))
_PARTITION = ("tenant", "day", "shard")
_FOUND = ("device", "time_us", "event_id", "type", "severity", "content_type", "received_us", "size", "body")
_PAGE = select(
    "storage_events", _FOUND, _PARTITION, "AND (time_us) >= (?) AND (time_us, device, event_id) < (?, ?, ?)"
)
_ALL_KEYS = select("storage_events", ("device", "time_us", "event_id", "size"), _PARTITION)
_DROP_BODY = delete("storage_event_bodies", _BODY_KEY)
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
        await gather_all(self._tables.rows(_PUT_DAY, *unit) for unit in new)
        await gather_all(self._tables.rows(_PUT_BODY, *values) for values in bodies)
        put = await self._tables.session.prepare(_PUT)
        await gather_all(
            self._tables.session.batch([(put, values) for values in some[first : first + _BATCH]])
            for some in new.values()
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
        """See EventStore. Day by day, newest first; of a day all shards side by side."""
        below = EventKey(wanted.end_us, b"", "")
        if after is not None:
            below = min(below, after)
        shards = None if wanted.devices is None else {_shard(device) for device in wanted.devices}
        days: dict[int, list[int]] = {}
        for row in await self._tables.rows(_DAYS, tenant):
            if (shards is None or row.shard in shards) and _in_span(row.day, wanted.start_us, below.time_us):
                days.setdefault(row.day, []).append(row.shard)
        found: list[Row] = []
        size = 0
        for day in sorted(days, reverse=True):
            parts = await gather_all(
                self._shard_rows(tenant, day, shard, wanted, below, limit - len(found)) for shard in days[day]
            )
            merged = sorted((row for part in parts for row in part), key=_order, reverse=True)
            for row in merged[: limit - len(found)]:
                found.append(row)
                size += row.size
                if size >= most_bytes:
                    return await self._with_bodies(tenant, found)
            if len(found) >= limit:
                break
        return await self._with_bodies(tenant, found)

    async def _shard_rows(
        self, tenant: TenantId, day: int, shard: int, wanted: EventFilter, below: EventKey, limit: int
    ) -> list[Row]:
        """The first `limit` rows of a partition that are wanted."""
        prepared = await self._tables.session.prepare(_PAGE)
        params = (tenant, day, shard, wanted.start_us, below.time_us, below.device_uid, below.event_id)
        found: list[Row] = []
        async for rows in self._tables.session.execute_paged(prepared, params, page_rows=_PAGE_ROWS):
            found += [row for row in rows if _is_wanted(row, wanted)]
            if len(found) >= limit:
                break
        return found[:limit]

    async def _with_bodies(self, tenant: TenantId, rows: Sequence[Row]) -> list[StoredEvent]:
        async def body(row: Row) -> bytes:
            if row.body is not None or not row.size:
                return row.body or b""
            held = await self._tables.row(_BODY, tenant, row.device, row.time_us, row.event_id)
            return b"" if held is None else bytes(held.body)

        bodies = await gather_all(body(row) for row in rows)
        return [
            StoredEvent(
                Event(
                    row.device,
                    row.time_us,
                    row.event_id,
                    row.type,
                    row.severity,
                    row.content_type or "",
                    data,
                ),
                row.received_us,
            )
            for row, data in zip(rows, bodies, strict=True)
        ]

    async def account(self) -> EventAccount:
        """See EventStore. What is there is not counted: rows go by themselves when they expire."""
        heads = await gather_all(self._head(place) for place in self._places)
        sums = {name: sum(getattr(head, name) for head in heads if head is not None) for name in _COUNTS}
        return EventAccount(**sums)

    # Removing

    async def expire(self, tenant: TenantId, before_us: int) -> int:
        """See EventStore. Rows expire by themselves; this removes days that are wholly older, for a retention that has
        become shorter, and what is noted of them."""
        gone = [unit for unit in await self._units(tenant) if (unit[0] + 1) * _DAY_US <= before_us]
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
            shards = {_shard(device) for device in uids}
            for unit in await self._units(tenant):
                if unit[1] in shards:
                    await self._drop_unit(tenant, unit, uids)
        return 0

    async def _units(self, tenant: TenantId) -> list[Unit]:
        return [(row.day, row.shard) for row in await self._tables.rows(_DAYS, tenant)]

    async def _drop_unit(
        self, tenant: TenantId, unit: Unit, devices: Collection[bytes] | None = None
    ) -> None:
        """Removes a day of a shard, or some devices of it: bodies first, as only rows tell of them."""
        now_us = self._clock.now_us()
        session = self._tables.session
        drop_body, drop_row = await asyncio.gather(session.prepare(_DROP_BODY), session.prepare(_DROP_ROW))
        async for rows in session.execute_paged(
            await session.prepare(_ALL_KEYS), (tenant, *unit), page_rows=_PAGE_ROWS
        ):
            going = [row for row in rows if devices is None or row.device in devices]
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


def _shard(device: bytes) -> int:
    return xxhash.xxh3_64_intdigest(device) % SHARDS


def _key_of(tenant: TenantId, device: bytes, time_us: int, event_id: str) -> tuple[Any, ...]:
    return (tenant, time_us // _DAY_US, _shard(device), time_us, device, event_id)


def _in_span(day: int, start_us: int, end_us: int) -> bool:
    return (day + 1) * _DAY_US > start_us and day * _DAY_US <= end_us


def _order(row: Row) -> tuple[int, bytes, str]:
    return row.time_us, row.device, row.event_id


def _is_wanted(row: Row, wanted: EventFilter) -> bool:
    return (
        (wanted.devices is None or row.device in wanted.devices)
        and (not wanted.type or row.type == wanted.type)
        and row.severity >= wanted.min_severity
    )
