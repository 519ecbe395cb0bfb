"""Removing: what has expired, what was deleted, and bytes that no commit came to name.

Everything goes by commits of the places concerned, so that it is counted in the ledger exactly once, whichever process
does it and wherever that process is killed. What is removed is not found any more from then on; its bytes are deleted
in Cassandra, and leave the disks when Cassandra compacts (docs/reference/cassandra.md says when that is).
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence

from tidewire_kit.ids import TenantId
from tidewire_storage.adapters.cassandra import reading, rows
from tidewire_storage.adapters.cassandra.attempts import ORPHAN_SECONDS, Attempts, remove_orphans
from tidewire_storage.adapters.cassandra.heads import Heads, attempt_us, now_us
from tidewire_storage.adapters.cassandra.series import TENANT_MARK, PlaceOf, SeriesRows
from tidewire_storage.adapters.cassandra.tables import Tables, gather_all, insert, select
from tidewire_storage.adapters.cassandra.writing import Removal, Writing, goes_by_itself
from tidewire_storage.domain.block_format import without_devices
from tidewire_storage.domain.block_header import BlockDamaged
from tidewire_storage.domain.blocks import COLD_BLOCK, StoredBlock, TopicPartitionKey, holds_rollups

_COMMIT_BLOCKS = 256
"""Most blocks removed by one commit."""
_READ_BLOCKS = 32
_SOON_US = 3600 * 1_000_000
"""Bytes that go by themselves within this are accounted for as expired."""

_BURIED = select("storage_buried", ("device", "swept"), ("tenant",))
_BURY = insert("storage_buried", ("tenant", "device", "swept"))


class CassandraUpkeep:
    """Upkeep of a topic's places. On one loop."""

    def __init__(
        self,
        tables: Tables,
        heads: Heads,
        writing: Writing,
        attempts: Attempts,
        series: SeriesRows,
        place_of: PlaceOf,
        buried: dict[TenantId, set[bytes]],
        *,
        orphan_seconds: float = ORPHAN_SECONDS,
    ) -> None:
        """`buried` is filled by `bury`: what is not to be stored any more."""
        self._tables = tables
        self._heads = heads
        self._writing = writing
        self._attempts = attempts
        self._series = series
        self._place_of = place_of
        self._buried = buried
        self._orphan_seconds = orphan_seconds
        self._since_us = now_us()
        self._unswept: dict[TenantId, set[bytes]] = {}
        """Deleted devices that no process is known to have swept."""
        self._swept: dict[TenantId, set[bytes]] = {}
        """Those that one has, though this process may have stored something of theirs since it started."""

    async def expire(self, tenant: TenantId, before_us: int, *, rollups: bool = False) -> int:
        """See Upkeep."""
        soon_us = now_us() + _SOON_US
        by_place: dict[TopicPartitionKey, list[Removal]] = {}
        for unit in await reading.units_of(self._tables, tenant, None):
            going = unit.expires_us is not None and unit.expires_us < soon_us
            if unit.min_time_us >= before_us and not going:
                continue
            for block in await reading.catalog_of(self._tables, tenant, unit):
                expires_us = rows.token_of(block).expires_us
                if holds_rollups(block.key.level) != rollups:
                    continue
                if block.facts.max_time_us < before_us or (expires_us is not None and expires_us < soon_us):
                    removal = Removal(block, left_to_ttl=goes_by_itself(block))
                    by_place.setdefault(unit.place, []).append(removal)
        return await self._remove_all(by_place)

    async def bury(self, tenants: Collection[TenantId], devices: Collection[tuple[TenantId, bytes]]) -> int:
        """See Upkeep."""
        new = 0
        asked: dict[TenantId, set[bytes]] = {tenant: {TENANT_MARK} for tenant in tenants}
        for tenant, device in devices:
            asked.setdefault(tenant, set()).add(device)
        for tenant, marks in asked.items():
            noted = {row.device: row.swept for row in await self._tables.rows(_BURIED, tenant)}
            new += len(marks - noted.keys())
            await gather_all(
                self._tables.rows(_BURY, tenant, mark, mark == TENANT_MARK) for mark in marks - noted.keys()
            )
            self._buried.setdefault(tenant, set()).update(marks)
            places = await self._heads.places()
            if (
                TENANT_MARK in marks
            ):  # also when noted: a process that did not know may have stored more since
                await self._series.bury_tenant(tenant, places)
                await self._remove_tenant(tenant)
            elif marks:
                await self._series.bury_devices(tenant, marks, self._places_of(tenant, marks, places))
                swept = {mark for mark in marks if noted.get(mark)}
                self._swept.setdefault(tenant, set()).update(swept)
                self._unswept.setdefault(tenant, set()).update(marks - swept)
        return new

    async def sweep(self) -> int:
        """See Upkeep. Also removes orphans."""
        removed = 0
        for tenant in {*self._unswept, *self._swept}:
            unswept, swept = self._unswept.get(tenant, set()), self._swept.get(tenant, set())
            removed += await self._sweep_tenant(tenant, frozenset(unswept), frozenset(swept))
            await gather_all(self._tables.rows(_BURY, tenant, device, True) for device in unswept)
            self._unswept.pop(tenant, None)
            self._swept.pop(tenant, None)
        for place in await self._heads.places():
            await remove_orphans(self._tables, self._heads, place, self._orphan_seconds)
        return removed

    def _places_of(
        self, tenant: TenantId, devices: Iterable[bytes], places: Iterable[TopicPartitionKey]
    ) -> list[TopicPartitionKey]:
        """Where devices may have anything: in their own partition, and in any of another incarnation."""
        own = {self._place_of(tenant, device) for device in devices}
        now = {place.incarnation for place in own}
        return [place for place in places if place in own or place.incarnation not in now]

    async def _remove_tenant(self, tenant: TenantId) -> None:
        for unit in await reading.units_of(self._tables, tenant, None):
            blocks = await reading.catalog_of(self._tables, tenant, unit)
            await self._remove_all({unit.place: [Removal(block) for block in blocks]})

    async def _remove_all(self, by_place: dict[TopicPartitionKey, list[Removal]]) -> int:
        async def remove(place: TopicPartitionKey, removals: Sequence[Removal]) -> int:
            removed = 0
            for first in range(0, len(removals), _COMMIT_BLOCKS):
                removed += await self._writing.remove(place, removals[first : first + _COMMIT_BLOCKS])
            return removed

        return sum(await gather_all(remove(place, removals) for place, removals in by_place.items()))

    async def _sweep_tenant(
        self, tenant: TenantId, unswept: frozenset[bytes], swept: frozenset[bytes]
    ) -> int:
        removed = 0
        places = self._places_of(tenant, unswept | swept, await self._heads.places())
        for place in places:
            for unit in await reading.units_of(self._tables, tenant, place):
                blocks = await reading.catalog_of(self._tables, tenant, unit)
                if not unswept:
                    blocks = [b for b in blocks if attempt_us(rows.token_of(b).attempt) >= self._since_us]
                for first in range(0, len(blocks), _READ_BLOCKS):
                    some = blocks[first : first + _READ_BLOCKS]
                    data = await gather_all(self._attempts.read(block) for block in some)
                    removals = await asyncio.to_thread(_without, some, data, unswept | swept)
                    if removals:
                        removed += await self._writing.remove(place, removals)
        return removed


def _without(
    blocks: Sequence[StoredBlock], data: Sequence[bytes | None], devices: Collection[bytes]
) -> list[Removal]:
    """What has to be done so that the blocks hold none of the devices."""
    removals = []
    for block, raw in zip(blocks, data, strict=True):
        if raw is None:
            continue
        if block.key.level == COLD_BLOCK:
            continue  # its object goes first; whoever rewrites that replaces the block too
        try:
            held, replacement = without_devices(raw, devices)
        except BlockDamaged:
            continue  # the ledger says so; what cannot be read cannot be answered either
        if held:
            removals.append(Removal(block, replacement))
    return removals
