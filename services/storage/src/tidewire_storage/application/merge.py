"""Merging: sealed epochs of a day of log time become blocks of the day, and rollups are made of them.

A round of housekeeping, after sealing. A device that sends once a minute has 60 rows in an epoch of an hour, and 1,440
in a day: fewer bytes, fewer places to look. Where epochs hold many rows a device already, their blocks stay, and only
rollups are made. Blocks and rollups come in one change of the store, as sealed blocks do.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.clock import Clock
from tidewire_kit.ids import TenantId
from tidewire_kit.owner import Ledger, LedgerCounts, hour_of
from tidewire_storage.application.encoding import Buried
from tidewire_storage.application.rollup import Rollup, Touched
from tidewire_storage.application.sweep import MAX_US, MIN_US, Wanted
from tidewire_storage.domain.block_format import encode_block
from tidewire_storage.domain.blocks import (
    DAY_BLOCK,
    Block,
    BlockKey,
    SealedEpoch,
    StoredBlock,
    TopicPartitionKey,
)
from tidewire_storage.domain.merging import Merged, merge
from tidewire_storage.domain.rollups import DAY_US
from tidewire_storage.domain.rows import SortedTable, joined_tables, uid_list, unique_uids
from tidewire_storage.domain.sealed_format import PAGE_ROWS, Directory, SealedTable
from tidewire_storage.ports import RangesOf, Seal, Sealing

SLICE_CELLS = 2_000_000
"""Cells merged at once: some 100 MB with the rollups made of them."""
_LATE_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class MergeLimits:
    """When sealed epochs are merged."""

    span_us: int = DAY_US
    """Epochs of one span of log time are merged once it has ended."""
    readings: int = 30_000_000
    """Or once there are as many of them: that is enough for one merge."""


@dataclass(frozen=True, slots=True)
class MergeReport:
    """Epochs that were merged, for metrics."""

    epochs: int
    readings: int
    rollup_rows: int


@dataclass(slots=True)
class _Sources:
    """What a tenant has in the epochs."""

    blocks: list[StoredBlock] = field(default_factory=list)
    directories: list[Directory] = field(default_factory=list)

    def devices(self) -> tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]:
        """Each device once (n, 16), and masks (n,) of slices of them that are merged one after the other."""
        tables = [table for directory in self.directories for table in directory.tables]
        uids, number = unique_uids(np.concatenate([table.device_uids for table in tables]))
        cells = np.concatenate([table.row_counts * float(len(table.metrics)) for table in tables])
        ends = np.cumsum(np.bincount(number, cells, len(uids)))
        slice_of = ((ends - 1) // SLICE_CELLS).astype(np.int64)
        return uids, [slice_of == number for number in np.unique(slice_of)]

    def dense(self) -> bool:
        """Whether there are so many rows a device that merging would make the blocks no better."""
        tables = [table for directory in self.directories for table in directory.tables]
        rows = sum(int(table.row_counts.sum()) for table in tables)
        return rows >= PAGE_ROWS * sum(len(table.device_uids) for table in tables)


class MergeEpochs:
    """The use case. All methods on one loop."""

    def __init__(
        self,
        store: Sealing,
        rollup: Rollup,
        owned: Callable[[], Collection[TopicPartitionKey]],
        buried: Callable[[], Buried],
        lock: asyncio.Lock,
        clock: Clock,
        limits: MergeLimits,
        pressed: Callable[[], bool] = lambda: False,
        on_merge: Callable[[MergeReport], None] = lambda report: None,
    ) -> None:
        """`lock` is that of sealing: what is buried with it held does not come back.

        While `pressed` says so one merge a partition waits, as in sealing.
        """
        self._store = store
        self._rollup = rollup
        self._owned = owned
        self._buried = buried
        self._lock = lock
        self._clock = clock
        self._limits = limits
        self._pressed = pressed
        self._on_merge = on_merge

    async def round(self) -> int:
        """Merges what is due of the owned partitions. Returns the number of merges."""
        merged = 0
        for place in list(self._owned()):
            due = _groups(await self._store.unmerged(place), self._limits, self._clock.now_us())
            for number, group in enumerate(due, start=1):
                if number == len(due) and self._pressed():
                    break
                async with self._lock:
                    merged += await self._merge(place, group)
        return merged

    async def _merge(self, place: TopicPartitionKey, group: Sequence[SealedEpoch]) -> bool:
        buried = self._buried()
        sources: dict[TenantId, _Sources] = {}
        for epoch in group:
            for block in await self._store.blocks_of_epoch(place, epoch.epoch):
                sources.setdefault(block.key.tenant, _Sources()).blocks.append(block)
        made: list[Block] = []
        replaced: list[StoredBlock] = []
        kept: list[StoredBlock] = []
        ledger: Ledger = {}
        rollup_rows = 0
        for tenant, some in sources.items():
            found = await self._store.read_ranges(
                [RangesOf(block, [(0, block.head_bytes)]) for block in some.blocks]
            )
            if None in found:
                return False  # removed or rewritten since; the next round finds what is left
            some.directories = [Directory(data[0]) for data in found if data is not None]
            one = _OfTenant(tenant, place, group, some, buried)
            if not await self._merge_tenant(one):
                return False
            made += one.blocks
            rollup_rows += one.rollup_rows
            (kept if one.keeps else replaced).extend(some.blocks)
            ledger[tenant, hour_of(group[0].hour_us)] = one.counts
        seal = Seal(
            place,
            tuple(epoch.epoch for epoch in group),
            tuple(replaced),
            tuple(made),
            ledger,
            tuple(kept),
            merge=True,
        )
        if not await self._store.seal(seal):
            return False
        self._on_merge(MergeReport(len(group), sum(epoch.readings for epoch in group), rollup_rows))
        return True

    async def _merge_tenant(self, one: "_OfTenant") -> bool:
        """Fills in what a tenant's blocks come to. False: some are gone."""
        if one.tenant in one.buried.tenants:
            one.counts.purged += sum(block.facts.readings for block in one.sources.blocks)
            return True
        uids, slices = one.sources.devices()
        sealed = [table for directory in one.sources.directories for table in directory.tables]
        tiers = self._rollup.tiers(one.tenant, sealed)
        for mask in slices:
            chosen = uids[mask]
            asked = [
                (block, list(_pages(directory, chosen)))
                for block, directory in zip(one.sources.blocks, one.sources.directories, strict=True)
            ]
            data = await self._store.read_ranges(
                [RangesOf(block, [table.span(page) for table, page in pages]) for block, pages in asked]
            )
            if None in data:
                return False
            merged = await asyncio.to_thread(one.merge, chosen, asked, data)
            touched = await asyncio.to_thread(Touched.of, merged.tables, tiers)
            for level, table in await self._rollup.tables(one.tenant, one.place, touched):
                await asyncio.to_thread(one.hold, level, table)
        await asyncio.to_thread(one.add_held)
        return True


@dataclass(slots=True)
class _OfTenant:
    """What becomes of a tenant's blocks in a merge."""

    tenant: TenantId
    place: TopicPartitionKey
    group: Sequence[SealedEpoch]
    sources: _Sources
    buried: Buried
    blocks: list[Block] = field(default_factory=list)
    counts: LedgerCounts = field(default_factory=LedgerCounts)
    rollup_rows: int = 0
    held: dict[int, list[SortedTable]] = field(default_factory=dict)
    """Rollups by level, of slices so far: a block of few rows takes a query as long as one of many."""

    @property
    def keeps(self) -> bool:
        """Whether the blocks stay as they are."""
        return (
            self.sources.dense()
            and self.tenant not in self.buried.tenants
            and not self.buried.devices.get(self.tenant)
        )

    def merge(
        self,
        chosen: NDArray[np.uint8],
        asked: Sequence[tuple[StoredBlock, Sequence[tuple[SealedTable, int]]]],
        data: Sequence[list[bytes] | None],
    ) -> Merged:
        """Merges the chosen devices' rows, and adds the block of them unless the old ones stay."""
        wanted = Wanted(uid_list(chosen))
        found: list[tuple[int, list[SortedTable]]] = []
        for (block, pages), raw in zip(asked, data, strict=True):
            assert raw is not None
            tables = []
            for table, first, some in _side_by_side(pages, raw):
                whole = table.neighbours(first, some).table()
                mine = wanted.numbers(whole.device_uids) >= 0
                tables.append(whole if mine.all() else whole.keep_devices(mine))
            found.append((block.key.first_offset, tables))
        merged = merge(found, self.buried.devices.get(self.tenant, frozenset()))
        self.counts.purged += merged.purged
        if not self.keeps:
            self.counts.stored -= merged.collapsed
            self.counts.duplicate += merged.collapsed
            if merged.tables:
                self.add(DAY_BLOCK, merged.tables)
        return merged

    def hold(self, level: int, table: SortedTable) -> None:
        """Rollups of a slice; added once there are enough of them."""
        held = self.held.setdefault(level, [])
        held.append(table)
        self.rollup_rows += table.rows
        if sum(table.rows * len(table.metrics) for table in held) > SLICE_CELLS:
            self.add(level, joined_tables(self.held.pop(level)))

    def add_held(self) -> None:
        """Rollups that are left."""
        for level, tables in sorted(self.held.items()):
            self.add(level, joined_tables(tables))
        self.held.clear()

    def add(self, level: int, tables: Sequence[SortedTable]) -> None:
        """A block that is made of the epochs."""
        first, last = self.sources.blocks[0].key, self.sources.blocks[-1].key
        key = BlockKey(
            self.tenant,
            self.place,
            len(self.blocks) + self._first_slice,
            self.group[0].epoch,
            first.first_offset,
            last.end_offset,
            level,
        )
        self.blocks.append(encode_block(key, hour_of(self.group[0].hour_us), tables))

    @property
    def _first_slice(self) -> int:
        """Slice 0 of the first epoch is taken by a block that stays."""
        return 1 if self.keeps else 0


def _groups(epochs: Sequence[SealedEpoch], limits: MergeLimits, now_us: int) -> list[list[SealedEpoch]]:
    """Epochs to be merged with each other: neighbours of one span, enough of them, or all there will be."""
    groups: list[list[SealedEpoch]] = []
    group: list[SealedEpoch] = []

    def span(epoch: SealedEpoch) -> int:
        return epoch.hour_us // limits.span_us

    def full() -> bool:
        return sum(epoch.readings for epoch in group) >= limits.readings

    for epoch in epochs:
        apart = group and (span(group[0]) != span(epoch) or group[-1].epoch + 1 != epoch.epoch)
        if group and (apart or full()):
            groups.append(group)
            group = []
        group.append(epoch)
    if group:
        groups.append(group)
    late_us = min(_LATE_US, limits.span_us)
    ended = now_us - late_us
    return [
        group
        for group in groups
        if (span(group[0]) + 1) * limits.span_us <= ended
        or sum(epoch.readings for epoch in group) >= limits.readings
    ]


def _pages(directory: Directory, chosen: NDArray[np.uint8]) -> Sequence[tuple[SealedTable, int]]:
    """Pages that hold rows of the chosen devices."""
    wanted = Wanted(uid_list(chosen))
    found = []
    for table in directory.tables:
        devices = wanted.numbers(table.device_uids) >= 0
        found += [(table, page) for page in table.wanted_pages(devices, MIN_US, MAX_US)]
    return found


def _side_by_side(
    pages: Sequence[tuple[SealedTable, int]], data: Sequence[bytes]
) -> list[tuple[SealedTable, int, list[bytes]]]:
    """Runs of neighbouring pages: the table, its first page, the bytes of each."""
    runs: list[tuple[SealedTable, int, list[bytes]]] = []
    for (table, page), piece in zip(pages, data, strict=True):
        if runs and runs[-1][0] is table and page == runs[-1][1] + len(runs[-1][2]):
            runs[-1][2].append(piece)
        else:
            runs.append((table, page, [piece]))
    return runs
