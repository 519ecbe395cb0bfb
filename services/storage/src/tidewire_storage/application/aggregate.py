"""Aggregate: count, min, max, avg, sum, first, last, standard deviation and percentiles, in buckets.

By device, by the value of a label, or over all devices together; by going through the blocks of the devices once.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.errors import InvalidArgument
from tidewire_kit.ids import TenantId
from tidewire_storage.application.buckets import Buckets
from tidewire_storage.application.directories import ColdUse, Directories, cold_use
from tidewire_storage.application.names import Names
from tidewire_storage.application.sweep import MAX_US, MIN_US, Wanted, sweep
from tidewire_storage.domain.aggregates import Function, Partials, merge_partials, partials_of
from tidewire_storage.domain.blocks import ROLLUP_DAY, ROLLUP_HOUR, ROLLUP_MINUTE, TopicPartitionKey
from tidewire_storage.domain.collapse import Collapsed
from tidewire_storage.domain.percentiles import Samples
from tidewire_storage.ports import BlockReader

MOST_DEVICES = 100_000
"""That a filter may admit, or a tenant have, in one question."""
_ANSWER_BYTES = 3_500_000
"""Of 4 MiB that a message may have."""
_SERIES_BYTES = 24
"""Besides names and numbers."""
_MERGE_EVERY = 64
_MOST_HELD = 4_000_000
"""Values that percentiles may keep at once: 30 MB, and 120 MB while they are ordered."""
_INLINE_ROWS = 2_000
"""Partial results that are ordered in about the time that a thread takes to begin."""
_PERCENTILES_AT_ONCE = 2
"""Questions with percentiles that are worked on; others wait."""


class Tier(Enum):
    """What an answer was read from: readings, or their rollups."""

    COLD = "cold"
    """Readings, some of them from objects of the cold tier."""
    RAW = "raw"
    ROLLUP_1M = "1m"
    ROLLUP_1H = "1h"
    ROLLUP_1D = "1d"


TIER_OF = {
    None: Tier.RAW,
    ROLLUP_MINUTE: Tier.ROLLUP_1M,
    ROLLUP_HOUR: Tier.ROLLUP_1H,
    ROLLUP_DAY: Tier.ROLLUP_1D,
}
"""By the level of the rollups that `Buckets` has used."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of some devices' readings in [start_us, end_us)."""

    metrics: Sequence[str]
    functions: Sequence[Function]
    start_us: int | None = None
    end_us: int | None = None
    bucket_us: int | None = None
    """None: one bucket over the whole time."""
    across_devices: bool = False
    group_by_label: str = ""
    """Key of a label, whose values make the groups; "": by device. Not with `across_devices`."""


@dataclass(frozen=True, slots=True)
class AggregatedSeries:
    """Buckets of one metric of one device, of a group of devices, or of all."""

    device_id: str
    """"" when of a group or of all."""
    metric: str
    bucket_start_us: NDArray[np.int64]
    columns: list[NDArray[np.float64]]
    """Per function asked for, in the order asked."""
    group: str = ""
    """The label's value; "": of devices without it, or not grouped."""


@dataclass(frozen=True, slots=True)
class Aggregated:
    """Series by device or group, and metric."""

    series: list[AggregatedSeries]
    tier: Tier


class Aggregate:
    """The use case."""

    def __init__(
        self,
        store: BlockReader,
        directories: Directories,
        buckets: Buckets,
        names: Names,
        incarnation: bytes,
    ) -> None:
        self._store = store
        self._directories = directories
        self._buckets = buckets
        self._names = names
        self._incarnation = incarnation
        self._percentiles = asyncio.Semaphore(_PERCENTILES_AT_ONCE)

    async def run(
        self, tenant: TenantId, device_ids: Sequence[str], asked: Question, filter_text: str = ""
    ) -> Aggregated:
        """Neither `device_ids` nor a filter: all devices. Without readings a series is left out.

        NotFound for an unknown device; InvalidArgument for a wrong filter, for more than 100,000 devices, when the
        answer would not fit in a message, and when percentiles would need too much memory.
        """
        if any(function.percentile is not None for function in asked.functions):
            async with self._percentiles:
                return await self._run(tenant, device_ids, asked, filter_text)
        return await self._run(tenant, device_ids, asked, filter_text)

    async def _run(
        self, tenant: TenantId, device_ids: Sequence[str], asked: Question, filter_text: str
    ) -> Aggregated:
        use = ColdUse()
        cold_use.set(use)
        devices = await self._names.select(tenant, device_ids, filter_text)
        if len(devices) > MOST_DEVICES:
            why = (
                f"{len(devices):,} devices are asked for, and {MOST_DEVICES:,} is the most; narrow the filter"
            )
            raise InvalidArgument("filter", why, reason="TOO_MANY_DEVICES")
        groups: Sequence[str] | None = None
        group_of: NDArray[np.int32] | None = None
        if asked.across_devices:
            groups, group_of = [""], np.zeros(len(devices), np.int32)
        elif asked.group_by_label:
            groups, group_of = devices.label_values(asked.group_by_label)
        start = MIN_US if asked.start_us is None else asked.start_us
        end = MAX_US if asked.end_us is None else asked.end_us
        tally = _Tally(asked, group_of)
        tiers: list[Tier] = []
        names = tuple(dict.fromkeys(asked.metrics))
        uids = devices.uids()
        for partition, numbers in devices.by_partition():
            place = TopicPartitionKey(self._incarnation, partition)
            of_partition = numbers.astype(np.int32)
            chosen = [uids[number] for number in numbers.tolist()]
            if not tally.samples:
                found = await self._buckets.of(
                    tenant,
                    place,
                    chosen,
                    names,
                    start,
                    end,
                    asked.bucket_us,
                    asked.start_us or 0,
                    of_partition if group_of is None else group_of[of_partition],
                    tally.check_rows,
                )
                tally.add_partials(found.parts)
                if any(len(part) for part in found.parts.values()):
                    tiers.append(TIER_OF[found.tier.level if found.tier else None])
                continue
            wanted = Wanted(chosen)
            async for rows in sweep(self._store, self._directories, tenant, place, wanted, names, start, end):
                await asyncio.to_thread(tally.add, rows, of_partition)
            if group_of is None:
                await asyncio.to_thread(tally.settle)
        if use.used:
            tiers.append(Tier.COLD)
        subjects = devices.ids if groups is None else groups
        if tally.rows <= _INLINE_ROWS:
            return Aggregated(tally.series(subjects), _finest(tiers))
        return Aggregated(await asyncio.to_thread(tally.series, subjects), _finest(tiers))


def _finest(tiers: Sequence[Tier]) -> Tier:
    return min(tiers, key=list(Tier).index, default=Tier.RAW)


class _Tally:
    """Partial results while blocks are gone through."""

    def __init__(self, asked: Question, group_of: NDArray[np.int32] | None) -> None:
        """`group_of` (devices,): the group of each device; None: each device by itself."""
        self._metrics = tuple(dict.fromkeys(asked.metrics))
        self._functions = asked.functions
        self._start_us = asked.start_us
        self._bucket_us = asked.bucket_us
        self._across = asked.across_devices
        self._group_of = group_of
        self._parts: list[list[Partials]] = [[] for _ in self._metrics]
        percentiles = [p for function in asked.functions if (p := function.percentile) is not None]
        self.samples = [Samples(percentiles) for _ in self._metrics] if percentiles else []
        """Per metric; empty when no percentile is asked for."""

    def add_partials(self, found: Mapping[str, Partials]) -> None:
        """Adds what rows come to, by device or by group as it is asked."""
        for metric, parts in zip(self._metrics, self._parts, strict=True):
            if len(found[metric]):
                parts.append(found[metric])
        self._check_size()

    @property
    def rows(self) -> int:
        """Partial results, and values that percentiles keep."""
        return sum(map(len, chain.from_iterable(self._parts))) + sum(one.held for one in self.samples)

    def check_rows(self, rows: int) -> None:
        """InvalidArgument when so many rows of a metric would not fit in an answer."""
        _check_bytes(rows * 8 * (1 + len(self._functions)))

    def add(self, rows: Collapsed, numbers: NDArray[np.int32]) -> None:
        """Adds rows; `numbers` are their devices' numbers among all that were asked for."""
        rows.device = numbers[rows.device]
        for metric, parts in enumerate(self._parts):
            part = partials_of(rows, metric, self._bucket_us, self._start_us or 0)
            if not len(part):
                continue
            if self.samples:
                column = rows.values[metric]
                self._sample(self.samples[metric], part, column[~np.isnan(column)])
            parts.append(part if self._group_of is None else part.grouped(self._group_of))
            if len(parts) >= _MERGE_EVERY:
                parts[:] = [merge_partials(parts)]
        if self.samples and self._group_of is None and self._bucket_us is not None and len(rows):
            # Each item of a sweep is later than all before it, so what ends before this one's last row is complete.
            last = int(rows.time.max())
            for samples in self.samples:
                samples.settle(last - last % self._bucket_us)
        self._check_held()
        self._check_size()

    def settle(self) -> None:
        """All rows of the devices so far have been added."""
        for samples in self.samples:
            samples.settle()

    def series(self, names: Sequence[str]) -> list[AggregatedSeries]:
        """The answer, by device or group (whose `names` are given) and metric."""
        self.settle()
        found: list[tuple[int, int, AggregatedSeries]] = []
        size = 0
        for metric, parts in enumerate(self._parts):
            if not parts:
                continue
            merged = merge_partials(parts)
            parts[:] = [merged]
            begins = np.flatnonzero(np.append(True, merged.device[1:] != merged.device[:-1]))
            columns = self._columns(merged, metric)
            starts = merged.bucket
            if self._bucket_us is None and self._start_us is None:
                starts = merged.first_us
            size += len(merged) * 8 * (1 + len(columns))
            for first, last in zip(begins.tolist(), [*begins[1:].tolist(), len(merged)], strict=True):
                number = int(merged.device[first])
                of_device = self._group_of is None
                series = AggregatedSeries(
                    names[number] if of_device else "",
                    self._metrics[metric],
                    starts[first:last],
                    [column[first:last] for column in columns],
                    "" if of_device else names[number],
                )
                size += _SERIES_BYTES + len(names[number].encode()) + len(series.metric) + 16 * len(columns)
                found.append((number, metric, series))
        _check_bytes(size)
        return [series for _, _, series in sorted(found, key=lambda item: item[:2])]

    def _columns(self, merged: Partials, metric: int) -> list[NDArray[np.float64]]:
        percentiles = iter(self.samples[metric].columns() if self.samples else ())
        return [
            merged.column(function) if function.percentile is None else next(percentiles)
            for function in self._functions
        ]

    def _sample(self, samples: Samples, part: Partials, values: NDArray[np.float64]) -> None:
        """Devices become groups here too; the runs stay those of devices, as the values are in their order."""
        if self._group_of is None:
            samples.add(part, values)
        else:
            samples.add(replace(part, device=self._group_of[part.device]), values)

    def _check_held(self) -> None:
        if sum(samples.held for samples in self.samples) > _MOST_HELD:
            raise InvalidArgument(
                "functions",
                f"the percentiles need more than {_MOST_HELD:,} readings at once; ask for a narrower bucket, "
                "less time, fewer devices or metrics, or by device",
                reason="PERCENTILES_TOO_LARGE",
            )

    def _check_size(self) -> None:
        least = sum(max((len(part) for part in parts), default=0) for parts in self._parts)
        _check_bytes(least * 8 * (1 + len(self._functions)))


def _check_bytes(size: int) -> None:
    if size > _ANSWER_BYTES:
        why = "the answer would exceed 4 MiB; ask for a wider bucket, fewer devices or metrics, or less time"
        raise InvalidArgument("bucket_duration", why, reason="ANSWER_TOO_LARGE")
