"""What is stored, as queries and owners ask for it. Reads only."""

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tidewire_kit.cassandra import Row
from tidewire_kit.ids import TenantId
from tidewire_kit.owner import NO_ENTRIES, WINDOW_SECONDS, WINDOW_SEGMENTS
from tidewire_storage.adapters.cassandra import rows
from tidewire_storage.adapters.cassandra.heads import Head
from tidewire_storage.adapters.cassandra.tables import (
    COUNTS,
    EPOCH_BLOCK_KEY,
    FACTS,
    PLACE,
    Tables,
    gather_all,
    select,
)
from tidewire_storage.domain.blocks import (
    EpochCoverage,
    OpenEpoch,
    SealedEpoch,
    StoredBlock,
    TopicPartitionKey,
    holds_rollups,
)
from tidewire_storage.ports import Look, StoredProgress, TenantUsage

type Order = tuple[Any, ...]
"""Blocks of a tenant by time: (min, max, incarnation, partition, epoch, first offset, slice)."""

_LEAST, _GREATEST = -(1 << 63), (1 << 63) - 1
_GREATEST_INT = (1 << 31) - 1
_PAGE = 1_000
_UNITS_AT_ONCE = 8
_WINDOW_PAGE = 32

_WITHIN = ("min_time_us", "max_time_us", "epoch", "first_offset", "slice")
_BLOCK = (*_WITHIN, *FACTS)
_DAYS = ("incarnation", "log_partition", "day", "level", "min_time_us", "max_time_us", "expires_us")
_SPAN = f"AND ({', '.join(_WITHIN)}) > (?, ?, ?, ?, ?) AND (min_time_us) < (?) LIMIT ?"
_IN_UNIT = select("storage_catalog", _BLOCK, ("tenant", *PLACE, "day", "level"), _SPAN)
_DAYS_OF_TENANT = select("storage_days", _DAYS, ("tenant",))
_DAYS_OF_PLACE = select("storage_days", _DAYS, ("tenant", *PLACE))
_IN_EPOCH = select("storage_epoch_blocks", ("tenant", *_BLOCK), (*PLACE, "epoch"))
NAMED = select("storage_epoch_blocks", ("tenant", *_BLOCK), EPOCH_BLOCK_KEY)
"""The catalog's row of one block."""
_COUNT_IN_EPOCH = select("storage_epoch_blocks", ("COUNT(*)",), (*PLACE, "epoch"))
_EPOCHS = select(
    "storage_epochs",
    (
        "epoch",
        "first_offset",
        "covered_offset",
        "end_offset",
        "hour_us",
        "gathered_bytes",
        "blocks",
        "readings",
        "sealed",
        "merged",
    ),
    PLACE,
)
_EPOCHS_FROM = f"{_EPOCHS} AND epoch >= ?"
_LAST_SEAL = f"{select('storage_epochs', ('last_seal',), PLACE)} LIMIT 1"
_NEWEST_EPOCH = f"{_EPOCHS} LIMIT 1"
_WINDOW = select("storage_dedup", ("end_offset", "newest_us", "segments", "segment_entries"), PLACE)
_SERIES_OFFSET = select("storage_series_offsets", ("series_offset",), PLACE)
_USAGE = select("storage_usage", ("tenant", *COUNTS), PLACE)
_USAGE_OF_TENANT = select("storage_usage", ("tenant", *COUNTS), (*PLACE, "tenant"))


@dataclass(slots=True)
class Unit:
    """Blocks of a tenant that lie together: of a place, a day of log time, and a level."""

    place: TopicPartitionKey
    day: int
    level: int
    min_time_us: int
    max_time_us: int
    expires_us: int | None


async def units_of(tables: Tables, tenant: TenantId, place: TopicPartitionKey | None) -> list[Unit]:
    """All that a tenant has, or has in a place."""
    if place is None:
        found = await tables.rows(_DAYS_OF_TENANT, tenant)
    else:
        found = await tables.rows(_DAYS_OF_PLACE, tenant, place.incarnation, place.partition)
    return [Unit(TopicPartitionKey(row[0], row[1]), *row[2:]) for row in found]


@dataclass(slots=True)
class _Cursor:
    """Goes through a unit in order."""

    tables: Tables
    tenant: TenantId
    unit: Unit
    start_us: int
    end_us: int
    after: tuple[int, ...]
    """Columns of _WITHIN; what comes is greater."""
    page: int
    rollup: int | None
    blocks: deque[StoredBlock] = field(default_factory=deque)
    ended: bool = False

    async def fill(self) -> "_Cursor":
        """Has the next blocks, unless there are none."""
        place = self.unit.place
        while not self.blocks and not self.ended:
            found = await self.tables.rows(
                _IN_UNIT, self.tenant, place.incarnation, place.partition, self.unit.day, self.unit.level,
                *self.after, self.end_us, self.page,
            )  # fmt: skip
            self.ended = len(found) < self.page
            if found:
                self.after = tuple(found[-1][: len(_WITHIN)])
            self.blocks.extend(
                rows.block_of(row, self.tenant, place, row.epoch)
                for row in found
                if row.max_time_us >= self.start_us and rows.wanted(row.block_level, self.rollup)
            )
        return self


def order_of(block: StoredBlock) -> Order:
    """Where a block stands among a tenant's."""
    key, facts = block.key, block.facts
    return (
        facts.min_time_us, facts.max_time_us, key.place.incarnation, key.place.partition, key.epoch,
        key.first_offset, key.slice,
    )  # fmt: skip


async def find_blocks(
    tables: Tables,
    tenant: TenantId,
    place: TopicPartitionKey | None,
    start_us: int,
    end_us: int,
    after: StoredBlock | None = None,
    limit: int | None = None,
    rollup: int | None = None,
) -> list[StoredBlock]:
    """A tenant's blocks that overlap [start_us, end_us), by least time; see BlockReader.find."""
    last = None if after is None else order_of(after)
    page = _PAGE if limit is None else min(limit, _PAGE)
    waiting: deque[_Cursor] = deque()
    for unit in await units_of(tables, tenant, place):
        if unit.max_time_us >= start_us and unit.min_time_us < end_us:
            waiting.append(
                _Cursor(tables, tenant, unit, start_us, end_us, _begin(unit, start_us, last), page, rollup)
            )
    waiting = deque(sorted(waiting, key=_least))
    found: list[StoredBlock] = []
    heads: list[tuple[Order, _Cursor]] = []
    while limit is None or len(found) < limit:
        # A unit is opened when it may hold something that comes next; some are opened ahead.
        while waiting and (not heads or _least(waiting[0]) <= heads[0][0][0]):
            some = [waiting.popleft() for _ in range(min(len(waiting), _UNITS_AT_ONCE))]
            for cursor in await gather_all(cursor.fill() for cursor in some):
                if cursor.blocks:
                    heapq.heappush(heads, (order_of(cursor.blocks[0]), cursor))
        if not heads:
            break
        _, cursor = heads[0]
        found.append(cursor.blocks.popleft())
        await cursor.fill()
        if cursor.blocks:
            heapq.heapreplace(heads, (order_of(cursor.blocks[0]), cursor))
        else:
            heapq.heappop(heads)
    return found


async def look(
    tables: Tables,
    tenant: TenantId,
    place: TopicPartitionKey,
    start_us: int,
    end_us: int,
    kinds: Sequence[int | None],
    limit: int | None,
) -> Look:
    """See BlockReader.look."""
    seals = await last_seal(tables, place)
    while True:
        found = await gather_all(
            find_blocks(tables, tenant, place, start_us, end_us, None, limit, kind) for kind in kinds
        )
        now = await last_seal(tables, place)
        if now == seals:
            return Look(seals, tuple(found))
        seals = now  # a look takes milliseconds, and seals are seconds apart


def _begin(unit: Unit, start_us: int, last: Order | None) -> tuple[int, ...]:
    """After which place in a unit there may be something to find."""
    greatest = (_GREATEST, _GREATEST, _GREATEST, _GREATEST_INT)
    # A block of this level that reaches to the start begins no earlier than its greatest span before it.
    least = _LEAST + 1 if unit.level >= len(rows.LEVEL_US) else start_us - rows.LEVEL_US[unit.level]
    begin = (max(least, _LEAST + 1) - 1, *greatest)
    if last is None:
        return begin
    min_us, max_us, incarnation, partition, *rest = last
    where = (unit.place.incarnation, unit.place.partition)
    if where == (incarnation, partition):
        return max(begin, (min_us, max_us, *rest))
    if where > (incarnation, partition):
        return max(begin, (min_us, max_us, _LEAST, _LEAST, 0))
    return max(begin, (min_us, max_us, *greatest[1:]))


def _least(cursor: _Cursor) -> int:
    return max(cursor.unit.min_time_us, cursor.after[0])


async def catalog_of(tables: Tables, tenant: TenantId, unit: Unit) -> list[StoredBlock]:
    """All blocks of a unit, of readings and of rollups."""
    begin = (_LEAST, _LEAST, _LEAST, _LEAST, 0)
    cursor = _Cursor(tables, tenant, unit, _LEAST, _GREATEST, begin, _PAGE, rows.ALL)
    found: list[StoredBlock] = []
    while (await cursor.fill()).blocks:
        found += cursor.blocks
        cursor.blocks.clear()
    return found


async def blocks_of_epoch(tables: Tables, place: TopicPartitionKey, epoch: int) -> list[StoredBlock]:
    """Blocks of all tenants, by offset."""
    found = await tables.rows(_IN_EPOCH, place.incarnation, place.partition, epoch)
    return [rows.block_of(row, row.tenant, place, epoch) for row in found]


async def blocks_after(tables: Tables, place: TopicPartitionKey, offset: int) -> list[StoredBlock]:
    """Blocks of all tenants in a partition that end after `offset`, by offset."""
    epochs = []
    prepared = await tables.session.prepare(_EPOCHS)
    async for page in tables.session.execute_paged(
        prepared, (place.incarnation, place.partition), page_rows=100
    ):
        epochs += [row.epoch for row in page if row.covered_offset > offset]
        if page[-1].covered_offset <= offset:  # the newest come first
            break
    by_epoch = await gather_all(blocks_of_epoch(tables, place, epoch) for epoch in reversed(epochs))
    return [
        block
        for blocks in by_epoch
        for block in blocks
        if block.key.end_offset > offset and not holds_rollups(block.key.level)
    ]


async def last_seal(tables: Tables, place: TopicPartitionKey) -> int:
    """What the last seal of a place left behind; 0: there was none."""
    row = await tables.row(_LAST_SEAL, place.incarnation, place.partition)
    return 0 if row is None or row.last_seal is None else int(row.last_seal)


async def read_progress(
    tables: Tables, place: TopicPartitionKey, head: Head
) -> tuple[StoredProgress, list[tuple[int, int, int]]]:
    """How far a partition is stored, by its settled head; and (end offset, newest, segments) of its window."""
    key = (place.incarnation, place.partition)
    epochs, offsets, window = await gather_all(
        [
            tables.rows(_NEWEST_EPOCH, *key),
            tables.rows(_SERIES_OFFSET, *key),
            tables.rows(_WINDOW, *key, page_rows=_WINDOW_PAGE),
        ]
    )
    opened = None
    if epochs:
        row = epochs[0]
        opened = (
            OpenEpoch(row.epoch, row.first_offset, row.hour_us, row.gathered_bytes)
            if row.end_offset is None
            else OpenEpoch(row.epoch + 1, row.end_offset, -1, 0)
        )
    live = list(_live(window, head.log_time_us))
    entries = NO_ENTRIES
    if live:
        entries = np.frombuffer(b"".join(row.segment_entries for row in live), "<u8").reshape(-1, 4)
    series_offset = offsets[0].series_offset if offsets and head.next_offset is not None else 0
    progress = StoredProgress(head.next_offset, series_offset, opened, entries)
    return progress, [(row.end_offset, row.newest_us, row.segments) for row in window]


def _live(window: Sequence[Row], log_time_us: int) -> Iterator[Row]:
    oldest = log_time_us - int(WINDOW_SECONDS * 1e6)
    newer = sum(row.segments for row in window)
    for row in window:
        newer -= row.segments
        if row.newest_us >= oldest and newer < WINDOW_SEGMENTS:
            yield row


async def read_epochs(
    tables: Tables, place: TopicPartitionKey, from_epoch: int = 0, *, to_seal: bool = False
) -> list[EpochCoverage]:
    """Epochs of a partition with the blocks that are in the catalog; `to_seal`: only cut ones that are not sealed."""
    key = (place.incarnation, place.partition)
    found = (await tables.rows(_EPOCHS_FROM, *key, from_epoch))[::-1]
    if to_seal:
        found = [row for row in found if row.end_offset is not None and row.sealed is None]
    counts = await gather_all(tables.rows(_COUNT_IN_EPOCH, *key, row.epoch) for row in found)
    return [
        EpochCoverage(
            row.epoch,
            row.first_offset,
            row.end_offset,
            row.covered_offset,
            row.blocks,
            count[0][0],
            row.sealed is not None,
        )
        for row, count in zip(found, counts, strict=True)
    ]


async def read_unmerged(
    tables: Tables, place: TopicPartitionKey, from_epoch: int = 0
) -> tuple[list[SealedEpoch], int]:
    """Epochs from one on that are sealed and not merged; and before which epoch all are merged."""
    found = (await tables.rows(_EPOCHS_FROM, place.incarnation, place.partition, from_epoch))[::-1]
    begin = next((row.epoch for row in found if row.merged is None), from_epoch)
    unmerged = [row for row in found if row.sealed is not None and row.merged is None]
    return [SealedEpoch(row.epoch, row.hour_us, row.readings) for row in unmerged], begin


async def read_usage(
    tables: Tables, places: Sequence[TopicPartitionKey], tenant: TenantId | None
) -> list[TenantUsage]:
    """Sums over the places."""
    totals: dict[bytes, list[int]] = {}
    for found in await gather_all(usage_of(tables, place, tenant) for place in places):
        for row in found:
            total = totals.setdefault(row.tenant, [0, 0, 0])
            total[0] += row.accepted
            total[1] += row.stored - row.purged
            total[2] += row.bytes
    return [TenantUsage(TenantId(owner), *total) for owner, total in sorted(totals.items())]


async def usage_of(tables: Tables, place: TopicPartitionKey, tenant: TenantId | None) -> list[Row]:
    """Counts of a place, by tenant."""
    key = (place.incarnation, place.partition)
    if tenant is None:
        return await tables.rows(_USAGE, *key)
    return await tables.rows(_USAGE_OF_TENANT, *key, tenant)
