"""Series states: many devices in a row, merged by the owner of their place, newest offset wins.

A row holds the states of a share of a place's devices, and its write timestamp says up to which offset of the place
they are complete. An owner writes only what it merged after its commit up to that offset, on what was stored; states
are a function of the records before an offset, and merging is idempotent. So of two owners the one that has seen more
of the log wins, and one that wakes up late changes nothing. Where an owner was killed before it wrote, the next one
folds the blocks in again, from the series offset on, which is noted after the rows.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from tidewire_kit.ids import TenantId
from tidewire_storage.adapters.cassandra.tables import PLACE, Tables, delete, gather_all, insert, select
from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_storage.domain.rows import not_among
from tidewire_storage.domain.series import SeriesStates, merge_states, states_from_bytes

SHARDS = 8
"""Rows of a place and metric set."""
TENANT_MARK = b"\0"
"""Stands for all devices of a tenant in storage_buried."""

_OFFSET_BITS = 8
"""Write timestamps are the offset « 8, so that a row may be written again at the same offset."""
_LAST_TIMESTAMP = 1 << 62
_MOST_HELD = 400_000
"""Devices remembered, over all rows."""
_BURIED_AT_ONCE = 100

_KEY = ("tenant", *PLACE)
_ROWS = select("storage_series", ("shard", "metrics", "states", "WRITETIME(states) AS written"), _KEY)
_SHARD = select("storage_series", ("metrics", "states"), (*_KEY, "shard"))
_WRITE = insert("storage_series", (*_KEY, "shard", "metrics", "states"), "USING TIMESTAMP ?")
_DROP = delete("storage_series", _KEY)
_WRITE_OFFSET = insert("storage_series_offsets", (*PLACE, "series_offset"), "USING TIMESTAMP ?")
_BURIED = select("storage_buried", ("device",), ("tenant",), "AND device IN ?")

PlaceOf = Callable[[TenantId, bytes], TopicPartitionKey]
"""The place of a device."""

type _Rows = dict[tuple[int, str], tuple[SeriesStates, int]]
"""(shard, metrics) → (states, write timestamp)."""


class SeriesRows:
    """Reads and writes them. On one loop."""

    def __init__(
        self, tables: Tables, place_of: PlaceOf, buried: Mapping[TenantId, Collection[bytes]]
    ) -> None:
        """`buried` are the devices that are not to be written any more; it may grow."""
        self._tables = tables
        self._place_of = place_of
        self._buried = buried
        self._held: dict[TopicPartitionKey, dict[TenantId, _Rows]] = {}
        self._offsets: dict[TopicPartitionKey, int] = {}

    def forget(self, place: TopicPartitionKey) -> None:
        """What is remembered of a place counts no more: it comes from another owner."""
        self._held.pop(place, None)
        self._offsets.pop(place, None)

    async def write(self, place: TopicPartitionKey, offset: int, states: Sequence[SeriesStates]) -> None:
        """Merges states with the stored ones; then they cover everything of the place before `offset`."""
        by_tenant: dict[TenantId, list[SeriesStates]] = {}
        for item in states:
            by_tenant.setdefault(item.tenant, []).append(item)
        await gather_all(
            self._write_tenant(place, offset, tenant, items) for tenant, items in by_tenant.items()
        )
        if self._offsets.get(place) != offset:
            key = (place.incarnation, place.partition)
            await self._tables.rows(_WRITE_OFFSET, *key, offset, offset + 1)
            self._offsets[place] = offset

    async def read(self, tenant: TenantId, device_uids: Sequence[bytes]) -> list[SeriesStates]:
        """States of these devices, one item per metric set."""
        wanted: set[tuple[TopicPartitionKey, int]] = set()
        for uid in device_uids:
            wanted.add((self._place_of(tenant, uid), _shard(uid)))
        buried = await self._buried_among(tenant, device_uids)
        if TENANT_MARK in buried or not wanted:
            return []
        asked = set(device_uids) - buried
        found = await gather_all(
            self._tables.rows(_SHARD, tenant, place.incarnation, place.partition, shard)
            for place, shard in wanted
        )
        by_set: dict[str, list[SeriesStates]] = {}
        for row in (row for some in found for row in some):
            states = states_from_bytes(tenant, _names(row.metrics), row.states)
            states = states.where(~not_among(states.device_uids, asked))
            if len(states.device_uids):
                by_set.setdefault(row.metrics, []).append(states)
        return [merge_states(parts) for parts in by_set.values()]

    async def bury_devices(
        self, tenant: TenantId, devices: Collection[bytes], places: Collection[TopicPartitionKey]
    ) -> None:
        """Removes devices from the rows of places, whoever owns them."""
        for place in places:
            held = await self._read_rows(place, tenant)
            self._held.get(place, {}).pop(tenant, None)
            await gather_all(
                self._put(tenant, place, shard, metrics, kept, written + 1)
                for (shard, metrics), (states, written) in held.items()
                if len((kept := _without(states, devices)).device_uids) < len(states.device_uids)
            )

    async def bury_tenant(self, tenant: TenantId, places: Collection[TopicPartitionKey]) -> None:
        """Removes a tenant's rows, for good."""
        for place in places:
            self._held.get(place, {}).pop(tenant, None)
        await gather_all(
            self._tables.rows(_DROP, _LAST_TIMESTAMP, tenant, place.incarnation, place.partition)
            for place in places
        )

    async def _write_tenant(
        self, place: TopicPartitionKey, offset: int, tenant: TenantId, parts: Sequence[SeriesStates]
    ) -> None:
        of_place = self._held.setdefault(place, {})
        held = of_place.get(tenant)
        if held is None:
            self._make_room()
            held = await self._read_rows(place, tenant)
        buried = self._buried.get(tenant, ())
        writes = []
        changed: _Rows = {}
        for states in parts:
            metrics = " ".join(states.metrics)
            shards = states.device_uids[:, -1] % SHARDS
            for shard in np.unique(shards).tolist():
                mine = _without(states.where(shards == shard), buried)
                before = held.get((shard, metrics))
                timestamp = offset << _OFFSET_BITS
                if before is not None:
                    parts_of_row = [_without(before[0], buried), mine]
                    mine = merge_states([part for part in parts_of_row if len(part.device_uids)] or [mine])
                    timestamp = max(timestamp, before[1] + 1)
                changed[shard, metrics] = (mine, timestamp)
                writes.append(self._put(tenant, place, shard, metrics, mine, timestamp))
        try:
            await gather_all(writes)
        except BaseException:
            of_place.pop(tenant, None)
            raise
        held.update(changed)
        of_place[tenant] = held

    async def _read_rows(self, place: TopicPartitionKey, tenant: TenantId) -> _Rows:
        found = await self._tables.rows(_ROWS, tenant, place.incarnation, place.partition, page_rows=64)
        return {
            (row.shard, row.metrics): (
                states_from_bytes(tenant, _names(row.metrics), row.states),
                row.written,
            )
            for row in found
        }

    async def _put(
        self,
        tenant: TenantId,
        place: TopicPartitionKey,
        shard: int,
        metrics: str,
        states: SeriesStates,
        timestamp: int,
    ) -> None:
        """Overwrites a row, unless it is stored with a later timestamp."""
        await self._tables.rows(
            _WRITE, tenant, place.incarnation, place.partition, shard, metrics, states.to_bytes(), timestamp
        )  # fmt: skip

    async def _buried_among(self, tenant: TenantId, device_uids: Sequence[bytes]) -> set[bytes]:
        some = [
            [TENANT_MARK, *device_uids[first : first + _BURIED_AT_ONCE]]
            for first in range(0, len(device_uids), _BURIED_AT_ONCE)
        ]
        found = await gather_all(self._tables.rows(_BURIED, tenant, devices) for devices in some)
        return {row.device for part in found for row in part}

    def _make_room(self) -> None:
        held = sum(
            len(states.device_uids)
            for tenants in self._held.values()
            for of_tenant in tenants.values()
            for states, _ in of_tenant.values()
        )
        if held > _MOST_HELD:
            self._held.clear()


def _shard(uid: bytes) -> int:
    return uid[-1] % SHARDS


def _names(metrics: str) -> tuple[str, ...]:
    return tuple(metrics.split(" ")) if metrics else ()


def _without(states: SeriesStates, devices: Collection[bytes]) -> SeriesStates:
    if not devices or not len(states.device_uids):
        return states
    keep = not_among(states.device_uids, devices)
    return states if keep.all() else states.where(keep)
