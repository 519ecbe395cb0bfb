"""Pages of events in Cassandra: by tenant, day and shard, or, when few devices are asked for, by device.

`CassandraEventStore` uses it. Asking for one device of thousands reads that device's rows alone, however much history
the tenant has; a filter that leaves little of many devices still reads what it leaves out.
"""

from collections.abc import Sequence

import xxhash

from tidewire_kit.cassandra import Row
from tidewire_kit.events import Event
from tidewire_kit.ids import TenantId
from tidewire_storage.adapters.cassandra.tables import Tables, gather_all, select
from tidewire_storage.ports import EventFilter, EventKey, StoredEvent

SHARDS = 16
INLINE_BYTES = 1 << 10
"""Larger bodies lie in a table of their own."""
DAY_US = 86_400_000_000
PERIOD_DAYS = 32
"""Days of a device in one partition."""
PAGE_ROWS = 500
_FEW_DEVICES = 8
"""Of more devices the partitions of all are read."""
_PERIODS_AT_ONCE = 8
PARTITION = ("tenant", "day", "shard")
DEVICE_PARTITION = ("tenant", "device", "period")
BODY_KEY = ("tenant", "device", "time_us", "event_id")
_FOUND = ("device", "time_us", "event_id", "type", "severity", "content_type", "received_us", "size", "body")
_BODY = select("storage_event_bodies", ("body",), BODY_KEY)
DAYS = select("storage_event_days", ("day", "shard"), ("tenant",))
_PAGE = select(
    "storage_events", _FOUND, PARTITION, "AND (time_us) >= (?) AND (time_us, device, event_id) < (?, ?, ?)"
)
_PAGE_OF_DEVICE = select(
    "storage_device_events",
    _FOUND,
    DEVICE_PARTITION,
    "AND (time_us) >= (?) AND (time_us, event_id) < (?, ?)",
)


def shard_of(device: bytes) -> int:
    """Where among a day's partitions a device's events are."""
    return xxhash.xxh3_64_intdigest(device) % SHARDS


def period_of(time_us: int) -> int:
    """Number of the 32 days that a time is in."""
    return time_us // (PERIOD_DAYS * DAY_US)


class EventPages:
    """Reads pages; holds nothing."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def page(
        self, tenant: TenantId, wanted: EventFilter, after: EventKey | None, limit: int, most_bytes: int
    ) -> list[StoredEvent]:
        """See EventStore. Newest day or period first; of one all partitions side by side."""
        below = EventKey(wanted.end_us, b"", "")
        if after is not None:
            below = min(below, after)
        shards = None if wanted.devices is None else {shard_of(device) for device in wanted.devices}
        days: dict[int, list[int]] = {}
        for row in await self._tables.rows(DAYS, tenant):
            if (shards is None or row.shard in shards) and _in_span(row.day, wanted.start_us, below.time_us):
                days.setdefault(row.day, []).append(row.shard)
        found: list[Row] = []
        size = 0
        for parts in self._parts(wanted, days):
            read = await gather_all(
                self._rows(tenant, part, wanted, below, limit - len(found)) for part in parts
            )
            merged = sorted((row for rows in read for row in rows), key=_order, reverse=True)
            for row in merged[: limit - len(found)]:
                found.append(row)
                size += row.size
                if size >= most_bytes:
                    return await self._with_bodies(tenant, found)
            if len(found) >= limit:
                break
        return await self._with_bodies(tenant, found)

    def _parts(self, wanted: EventFilter, days: dict[int, list[int]]) -> list[list[tuple[bytes | int, int]]]:
        """Partitions in the order of reading, those in one list at once: (device, period) or (day, shard)."""
        newest_first = sorted(days, reverse=True)
        if wanted.devices is None or len(wanted.devices) > _FEW_DEVICES:
            return [[(day, shard) for shard in days[day]] for day in newest_first]
        periods = list(dict.fromkeys(period_of(day * DAY_US) for day in newest_first))
        devices = sorted(wanted.devices)
        return [
            [(device, period) for period in periods[first : first + _PERIODS_AT_ONCE] for device in devices]
            for first in range(0, len(periods), _PERIODS_AT_ONCE)
        ]

    async def _rows(
        self,
        tenant: TenantId,
        part: tuple[bytes | int, int],
        wanted: EventFilter,
        below: EventKey,
        limit: int,
    ) -> list[Row]:
        """The first `limit` rows of a partition that are wanted."""
        if isinstance(part[0], bytes):
            # Of equal times the device decides: those of a larger one come before `below`, whatever their id.
            event_id = below.event_id if part[0] == below.device_uid else ""
            time_us = below.time_us + (part[0] < below.device_uid)
            prepared = await self._tables.session.prepare(_PAGE_OF_DEVICE)
            params: tuple[object, ...] = (tenant, *part, wanted.start_us, time_us, event_id)
        else:
            prepared = await self._tables.session.prepare(_PAGE)
            params = (tenant, *part, wanted.start_us, below.time_us, below.device_uid, below.event_id)
        found: list[Row] = []
        async for rows in self._tables.session.execute_paged(prepared, params, page_rows=PAGE_ROWS):
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


def _in_span(day: int, start_us: int, end_us: int) -> bool:
    return (day + 1) * DAY_US > start_us and day * DAY_US <= end_us


def _order(row: Row) -> tuple[int, bytes, str]:
    return row.time_us, row.device, row.event_id


def _is_wanted(row: Row, wanted: EventFilter) -> bool:
    return (
        (wanted.devices is None or row.device in wanted.devices)
        and (not wanted.type or row.type == wanted.type)
        and row.severity >= wanted.min_severity
    )
