"""Report: usage and key figures of days or months, by device or by the value of a label.

Days come in order of time, partition by partition, so that only periods which are not over yet are held, and rows leave
as soon as theirs is complete. Groups by a label are held until the end, as their devices are in all partitions.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.clock import Clock
from tidewire_kit.errors import InvalidArgument, TidewireError
from tidewire_kit.ids import TenantId
from tidewire_storage.application.aggregate import Tier
from tidewire_storage.application.daily import Daily, Days
from tidewire_storage.application.directories import ColdUse, cold_use
from tidewire_storage.application.names import Names
from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_storage.domain.periods import Periods
from tidewire_storage.domain.report import Tallies, continue_tallies, joined, merge_tallies
from tidewire_storage.ports import BlockReader

PART_ROWS = 5_000
"""About 1.3 MB with the longest names."""
_DEVICES_AT_ONCE = 50_000
_MOST_GROUP_ROWS = 250_000
"""Some 30 MB, thrice while they are merged."""
_MERGE_EVERY = 32
_FINEST_FIRST = (Tier.COLD, Tier.RAW, Tier.ROLLUP_1M, Tier.ROLLUP_1H, Tier.ROLLUP_1D)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for."""

    periods: Periods
    device_ids: Sequence[str] = ()
    filter_text: str = ""
    """Neither ids nor a filter: all devices."""
    metrics: Sequence[str] = ()
    """Empty: all."""
    group_by_label: str = ""
    """Key of a label; "": by device."""


@dataclass(frozen=True, slots=True)
class ReportPart:
    """Rows by period, subject and metric; all arrays (rows,). There may be none, when only work was done."""

    subjects: Sequence[str]
    metrics: Sequence[str]
    subject: NDArray[np.int64]
    """Row → `subjects`."""
    metric: NDArray[np.int64]
    """Row → `metrics`."""
    tallies: Tallies
    members: NDArray[np.int64]
    """Devices asked for."""
    coverage: NDArray[np.float64]
    bytes_per_reading: float
    progress: float
    tier: Tier

    def __len__(self) -> int:
        """Rows."""
        return len(self.tallies)


class Report:
    """The use case."""

    def __init__(
        self,
        store: BlockReader,
        daily: Daily,
        names: Names,
        clock: Clock,
        incarnation: bytes,
        observe: Callable[[str, float, int], None] = lambda outcome, seconds, rows: None,
    ) -> None:
        """`observe` gets each report's outcome (`ok`, `cancelled` or the reason of the error), seconds and rows."""
        self._store = store
        self._daily = daily
        self._names = names
        self._clock = clock
        self._incarnation = incarnation
        self._observe = observe

    async def run(self, tenant: TenantId, asked: Asked) -> AsyncGenerator[ReportPart]:
        """Yields parts of at most 5,000 rows; each (subject, metric, period) with readings is in one of them.

        NotFound for an unknown device; InvalidArgument for a wrong filter, or one beside devices, and when there are
        too many groups, metrics and periods to hold. Raises BlockDamaged, Unavailable.
        """
        begun, outcome, rows = self._clock.monotonic(), "cancelled", 0
        try:
            async with aclosing(self._run(tenant, asked)) as parts:
                async for part in parts:
                    rows += len(part)
                    yield part
            outcome = "ok"
        except TidewireError as error:
            outcome = error.reason
            raise
        finally:
            self._observe(outcome, self._clock.monotonic() - begun, rows)

    async def _run(self, tenant: TenantId, asked: Asked) -> AsyncGenerator[ReportPart]:
        use = ColdUse()
        cold_use.set(use)
        devices = await self._names.select(tenant, asked.device_ids, asked.filter_text)
        subjects, group_of = devices.ids, np.arange(len(devices), dtype=np.int32)
        if asked.group_by_label:
            subjects, group_of = devices.label_values(asked.group_by_label)
        members = np.bincount(group_of, minlength=len(subjects))
        usage = await self._store.usage(tenant)
        stored = sum(one.stored_readings for one in usage)
        per_reading = sum(one.stored_bytes for one in usage) / stored if stored else 0.0
        render = _Render(asked.periods, subjects, members, self._clock.now_us(), per_reading)
        metrics = tuple(dict.fromkeys(asked.metrics)) or None
        uids = devices.uids()
        slices = [
            (partition, numbers[first : first + _DEVICES_AT_ONCE])
            for partition, numbers in devices.by_partition()
            for first in range(0, len(numbers), _DEVICES_AT_ONCE)
        ]
        start_us, end_us = asked.periods.start_us, asked.periods.end_us
        groups = _Groups()
        for number, (partition, numbers) in enumerate(slices):
            place = TopicPartitionKey(self._incarnation, partition)
            wanted = [uids[device] for device in numbers.tolist()]
            held = _Held(asked.periods, group_of[numbers], groups if asked.group_by_label else None)
            async with aclosing(self._daily.of(tenant, place, wanted, metrics, start_us, end_us)) as all_days:
                async for days in all_days:
                    render.seen(Tier.COLD if use.used else days.tier)
                    share = (min(days.before_us, end_us) - start_us) / (end_us - start_us)
                    complete = await asyncio.to_thread(held.add, days)
                    for part in render.parts(complete, (number + share) / len(slices)):
                        yield part
            complete = await asyncio.to_thread(held.rest)
            for part in render.parts(complete, (number + 1) / len(slices)):
                yield part
        for part in render.parts(await asyncio.to_thread(groups.take), 1.0):
            yield part


class _Groups:
    """What is known of groups, of the devices that were gone through so far."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Tallies]] = {}

    def add(self, metric: str, tallies: Tallies) -> None:
        """Adds complete periods of devices, whose subjects are their groups already."""
        parts = self._parts.setdefault(metric, [])
        parts.append(tallies)
        if len(parts) >= _MERGE_EVERY:
            parts[:] = [merge_tallies(parts)]
        if self._rows() > _MOST_GROUP_ROWS:
            for parts in self._parts.values():
                parts[:] = [merge_tallies(parts)]
        if self._rows() > _MOST_GROUP_ROWS:
            why = f"makes more than {_MOST_GROUP_ROWS:,} rows; ask by device, for fewer metrics, or for less time"
            raise InvalidArgument("group_by_label", why, reason="ANSWER_TOO_LARGE")

    def _rows(self) -> int:
        return sum(len(part) for parts in self._parts.values() for part in parts)

    def take(self) -> dict[str, Tallies]:
        """All of it."""
        return {metric: merge_tallies(parts) for metric, parts in self._parts.items()}


class _Held:
    """Periods of a slice's devices that are not complete."""

    def __init__(self, periods: Periods, subject_of: NDArray[np.int32], groups: _Groups | None) -> None:
        """`groups`: where complete periods go instead of out."""
        self._periods = periods
        self._subject_of = subject_of
        self._groups = groups
        self._limit_us = periods.start_us
        """Periods that begin before are complete, and gone."""
        self._open: dict[str, Tallies] = {}

    def add(self, days: Days) -> dict[str, Tallies]:
        """Adds days; returns what is complete, by metric, with its subjects."""
        for metric, grid in days.by_metric.items():
            later = grid.tallies(self._periods)
            if len(later):
                before = self._open.get(metric)
                self._open[metric] = later if before is None else continue_tallies(before, later)
        limit_us = self._periods.end_us
        if days.before_us < limit_us:
            before_us = np.array([max(days.before_us, self._periods.start_us)])
            limit_us = int(self._periods.starts(before_us)[0])
        complete: dict[str, Tallies] = {}
        if limit_us > self._limit_us:
            self._limit_us = limit_us
            for metric, tallies in list(self._open.items()):
                complete[metric], self._open[metric] = tallies.before(limit_us)
                if not len(self._open[metric]):
                    del self._open[metric]
        return self._out(complete)

    def rest(self) -> dict[str, Tallies]:
        """What is left when there are no more days."""
        complete, self._open = self._open, {}
        return self._out(complete)

    def _out(self, complete: Mapping[str, Tallies]) -> dict[str, Tallies]:
        found = {metric: tallies for metric, tallies in complete.items() if len(tallies)}
        if self._groups is None:
            return {metric: tallies.renumbered(self._subject_of) for metric, tallies in found.items()}
        for metric, tallies in found.items():
            self._groups.add(metric, tallies.of_groups(self._subject_of))
        return {}


class _Render:
    """Makes parts of tallies."""

    def __init__(
        self,
        periods: Periods,
        subjects: Sequence[str],
        members: NDArray[np.int64],
        now_us: int,
        bytes_per_reading: float,
    ) -> None:
        self._periods = periods
        self._subjects = subjects
        self._members = members
        self._now_us = now_us
        self._bytes_per_reading = bytes_per_reading
        self._tier: Tier | None = None

    def seen(self, tier: Tier) -> None:
        """Something was read from a tier."""
        seen = [tier] if self._tier is None else [tier, self._tier]
        self._tier = min(seen, key=_FINEST_FIRST.index)

    def parts(self, complete: Mapping[str, Tallies], progress: float) -> Iterator[ReportPart]:
        """Parts of complete periods; one without rows when there are none."""
        metrics = sorted(complete)
        if not metrics:
            yield self._part((), joined([]), np.empty(0, np.int64), progress)
            return
        metric = np.repeat(np.arange(len(metrics)), [len(complete[name]) for name in metrics])
        tallies = joined([complete[name] for name in metrics])
        order = np.lexsort((metric, tallies.partials.device, tallies.partials.bucket))
        for first in range(0, len(order), PART_ROWS):
            rows = order[first : first + PART_ROWS]
            yield self._part(metrics, tallies.at(rows), metric[rows], progress)

    def _part(
        self, metrics: Sequence[str], tallies: Tallies, metric: NDArray[np.int64], progress: float
    ) -> ReportPart:
        distinct, subject = np.unique(tallies.partials.device, return_inverse=True)
        members = self._members[tallies.partials.device]
        days = self._periods.days(tallies.partials.bucket, self._now_us)
        return ReportPart(
            [self._subjects[number] for number in distinct.tolist()],
            metrics,
            subject,
            metric,
            tallies,
            members,
            tallies.device_days / (days * members),
            self._bytes_per_reading,
            progress,
            self._tier or Tier.RAW,
        )
