"""Rollups as merging makes them and queries find them: partial results of readings, and of rows of rollups.

Late readings touch buckets that were rolled up before. Where their times lie apart from those of the readings counted
there, they are added; where they overlap, some may be corrections, and the bucket is counted again from the readings.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.clock import Clock
from tidewire_kit.directory import Retention
from tidewire_kit.ids import TenantId
from tidewire_storage.application.directories import Directories
from tidewire_storage.application.sweep import Found, Wanted, sweep
from tidewire_storage.domain.aggregates import Partials, merge_partials, partials_of_all
from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_storage.domain.collapse import Collapsed
from tidewire_storage.domain.rollups import (
    HOUR_US,
    MINUTE_US,
    TIERS,
    Tier,
    among,
    column_names,
    concatenated,
    partials_in,
    table_of,
    update,
)
from tidewire_storage.domain.rows import SortedTable, uid_list, unique_uids
from tidewire_storage.domain.sealed_format import SealedTable
from tidewire_storage.ports import BlockReader

Interval = tuple[int, int]
"""Event times [start, end) in µs."""

_DENSE = {MINUTE_US: 4, HOUR_US: 16}
"""Rows that a bucket of this width must have for its rollup to be worth while: it takes as many bytes as seven of them
or so, and they are read as quickly."""
_NEAR = 16
"""Touched buckets with fewer than so many others between them are looked up together."""
_MERGE_ROWS = 100_000


def nothing() -> Partials:
    """No rows."""
    whole, real = np.empty(0, np.int64), np.empty(0)
    return Partials(np.empty(0, np.int32), whole, whole, real, real, real, whole, real, whole, real, real)


@dataclass(frozen=True, slots=True)
class Gathering:
    """What partial results are put together to while they are read: memory holds little more than the answer."""

    numbers: NDArray[np.int32] | None = None
    """(devices asked for,): the number that each gets, its own or that of a group; None: as they were asked for."""
    wide: Callable[[NDArray[np.int64]], NDArray[np.int64]] | None = None
    """Buckets of a tier to the buckets that are asked for; None: those of the tier."""
    skipped: Sequence[Interval] = ()
    """Buckets that begin in these are left out."""
    check_rows: Callable[[int], None] = lambda rows: None
    """Raises what is to be raised when a metric has so many rows."""

    def wider(self, part: Partials) -> Partials:
        """Rows of a tier without those to be skipped, by the buckets asked for."""
        clean = np.ones(len(part), np.bool_)
        for start_us, end_us in self.skipped:
            clean &= (part.bucket < start_us) | (part.bucket >= end_us)
        if not clean.all():
            part = part.where(clean)
        if self.wide is not None:
            part.bucket = self.wide(part.bucket)
        return merge_partials([part]) if self.wide is not None and len(part) else part

    def grouped(self, part: Partials) -> Partials:
        """Rows by the numbers that devices get."""
        return part if self.numbers is None else part.grouped(self.numbers)


BY_DEVICE = Gathering()


@dataclass(frozen=True, slots=True)
class Touched:
    """What some devices' merged readings come to."""

    device_uids: NDArray[np.uint8]
    """(n, 16)."""
    tiers: tuple[tuple[Tier, dict[str, Partials]], ...]
    """Per tier and metric."""

    @classmethod
    def of(cls, tables: Sequence[SortedTable], tiers: Sequence[Tier]) -> "Touched":
        """Rolls up tables as a merge makes them: each (device, metric, time) once."""
        if not tables:
            return cls(np.empty((0, 16), np.uint8), ())
        uids, number = unique_uids(np.concatenate([table.device_uids for table in tables]))
        begin = 0
        wholes: list[Collapsed] = []
        for table in tables:
            mine = number[begin : begin + len(table.device_uids)].astype(np.int32)
            begin += len(table.device_uids)
            device = np.repeat(mine, table.row_counts)
            wholes.append(Collapsed(table.metrics, device, table.time_unix_us, table.values))
        found: list[tuple[Tier, dict[str, list[Partials]]]] = [(tier, {}) for tier in tiers]
        for whole in wholes:
            for tier, by_metric in found:
                for metric, part in zip(whole.metrics, partials_of_all(whole, tier.width_us, 0), strict=True):
                    by_metric.setdefault(metric, []).append(part)
        concatenations = (
            (tier, {metric: concatenated(parts) for metric, parts in by_metric.items()})
            for tier, by_metric in found
        )
        return cls(uids, tuple(concatenations))


class Rollup:
    """Looks up and brings up to date. All methods on one loop."""

    def __init__(
        self,
        store: BlockReader,
        directories: Directories,
        clock: Clock,
        retention: Callable[[TenantId], Retention],
    ) -> None:
        self._store = store
        self._directories = directories
        self._clock = clock
        self._retention = retention

    def tiers(self, tenant: TenantId, sealed: Sequence[SealedTable]) -> list[Tier]:
        """The tiers that a merge of these tables makes, for all of its devices: a block of rollups that one of them was
        missing from would say that it had no readings.

        Where rollups have to stand in for readings that have expired, all.
        """
        rows = sum(int(table.row_counts.sum()) for table in sealed)
        every = _outlive(self._retention(tenant))

        def dense(tier: Tier) -> bool:
            least = _DENSE.get(tier.width_us, 0)
            return rows >= least * sum(table.most_buckets(tier.width_us) for table in sealed)

        return [tier for tier in TIERS if every or dense(tier)]

    async def tables(
        self, tenant: TenantId, place: TopicPartitionKey, touched: Touched
    ) -> list[tuple[int, SortedTable]]:
        """(level, rows) for all buckets that were touched, with what was counted in them before."""
        retention = self._retention(tenant)
        horizon_us = -(1 << 62)
        if retention.raw_seconds is not None:
            horizon_us = self._clock.now_us() - int(retention.raw_seconds * 1e6)
        made = []
        for tier, new in touched.tiers:
            rows = await self._brought_up_to_date(tenant, place, touched.device_uids, tier, new, horizon_us)
            if any(len(part) for part in rows.values()):
                made.append((tier.level, await asyncio.to_thread(table_of, touched.device_uids, rows, tier)))
        return made

    async def counted(
        self,
        tenant: TenantId,
        place: TopicPartitionKey,
        device_uids: Sequence[bytes],
        metrics: Sequence[str],
        intervals: Iterable[Interval],
        width_us: int | None,
        origin_us: int = 0,
        gathering: Gathering = BY_DEVICE,
    ) -> dict[str, Partials]:
        """Partial results per metric, counted from the readings with times in the intervals."""
        wanted = Wanted(device_uids)
        tally = _Tally(metrics, gathering)
        for start_us, end_us in intervals:
            async for rows in sweep(
                self._store, self._directories, tenant, place, wanted, tuple(metrics), start_us, end_us
            ):
                parts = await asyncio.to_thread(_partials, rows, width_us, origin_us)
                tally.add(parts)
        return tally.result()

    async def stored(
        self,
        tenant: TenantId,
        place: TopicPartitionKey,
        device_uids: Sequence[bytes],
        metrics: Sequence[str],
        intervals: Iterable[Interval],
        tier: Tier,
        gathering: Gathering = BY_DEVICE,
        found: Found | None = None,
    ) -> dict[str, Partials]:
        """Partial results per metric, by the buckets of a tier that begin in the intervals, or as `gathering` says.

        `found`: all blocks of the tier with such buckets, by one who has looked already.
        """
        wanted = Wanted(device_uids)
        names = tuple(name for metric in metrics for name in column_names(metric))
        tally = _Tally(metrics, gathering)
        for start_us, end_us in intervals:
            async for rows in sweep(
                self._store,
                self._directories,
                tenant,
                place,
                wanted,
                names,
                start_us,
                end_us,
                tier.level,
                found,
            ):
                tally.add({metric: gathering.wider(partials_in(rows, metric)) for metric in metrics})
        return tally.result()

    async def _brought_up_to_date(
        self,
        tenant: TenantId,
        place: TopicPartitionKey,
        device_uids: NDArray[np.uint8],
        tier: Tier,
        new: dict[str, Partials],
        horizon_us: int,
    ) -> dict[str, Partials]:
        metrics = sorted(new)
        uids = uid_list(device_uids)
        touched = intervals_of(np.concatenate([new[metric].bucket for metric in metrics]), tier.width_us)
        old = await self.stored(tenant, place, uids, metrics, touched, tier)
        result: dict[str, Partials] = {}
        again: dict[str, Partials] = {}
        for metric in metrics:
            kept = new[metric].bucket >= horizon_us
            result[metric], flags = update(old[metric], new[metric], kept)
            if flags.any():
                again[metric] = result[metric].where(flags)
        if not again:
            return result
        buckets = np.concatenate([part.bucket for part in again.values()])
        devices = np.unique(np.concatenate([part.device for part in again.values()]))
        counted = await self.counted(
            tenant,
            place,
            [uids[number] for number in devices],
            sorted(again),
            intervals_of(buckets, tier.width_us),
            tier.width_us,
        )
        for metric, part in counted.items():
            part.device = devices[part.device].astype(np.int32)
            fresh = part.where(among(part, again[metric]))
            result[metric] = concatenated([result[metric].where(~among(result[metric], fresh)), fresh])
        return result


def intervals_of(buckets: NDArray[np.int64], width_us: int) -> list[Interval]:
    """Intervals that hold the buckets, in order of time and apart; near ones are joined."""
    starts = np.unique(buckets)
    if not len(starts):
        return []
    gaps = np.flatnonzero(np.diff(starts) > _NEAR * width_us)
    firsts = starts[np.append(0, gaps + 1)]
    lasts = starts[np.append(gaps, len(starts) - 1)]
    return [(int(first), int(last) + width_us) for first, last in zip(firsts, lasts, strict=True)]


class _Tally:
    """Partial results of metrics, while rows come."""

    def __init__(self, metrics: Sequence[str], gathering: Gathering) -> None:
        self._gathering = gathering
        self._parts: dict[str, list[Partials]] = {metric: [] for metric in metrics}

    def add(self, parts: dict[str, Partials]) -> None:
        for metric, part in parts.items():
            held = self._parts[metric]
            if len(part):
                held.append(self._gathering.grouped(part))
            if sum(len(other) for other in held[1:]) > max(_MERGE_ROWS, len(held[0]) if held else 0):
                held[:] = [merge_partials(held)]
            self._gathering.check_rows(max((len(other) for other in held), default=0))

    def result(self) -> dict[str, Partials]:
        return {
            metric: merge_partials(parts) if parts else nothing() for metric, parts in self._parts.items()
        }


def _partials(rows: Collapsed, width_us: int | None, origin_us: int) -> dict[str, Partials]:
    return dict(zip(rows.metrics, partials_of_all(rows, width_us, origin_us), strict=True))


def _outlive(retention: Retention) -> bool:
    """Whether rollups are kept for longer than readings, so that they have to stand in for them."""
    if retention.raw_seconds is None:
        return False
    return retention.rollup_seconds is None or retention.rollup_seconds > retention.raw_seconds
