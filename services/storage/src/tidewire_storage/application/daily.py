"""What is known of each device, metric and day: the one place where the report gets its numbers from.

Days are read from rollups where these stand for the readings, some at once, so that memory holds a few days of a large
fleet or years of a few devices.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tidewire_kit.ids import TenantId
from tidewire_storage.application.aggregate import TIER_OF, Tier
from tidewire_storage.application.buckets import Buckets, Plan
from tidewire_storage.application.directories import Directories
from tidewire_storage.application.rollup import Rollup
from tidewire_storage.application.sweep import Opened, Question, Wanted, open_blocks, prefix
from tidewire_storage.domain.blocks import ROLLUP_DAY, StoredBlock, TopicPartitionKey
from tidewire_storage.domain.day_grid import DayGrid
from tidewire_storage.domain.periods import DAY_US
from tidewire_storage.domain.rollups import STATISTICS, TIERS, column_names, metric_of
from tidewire_storage.ports import BlockReader

_CELLS_AT_ONCE = 500_000
"""(device, metric, day)s: 36 MB."""
_TRIES = 4
"""Looks that sealing may upset, before the readings alone are asked."""
(_BY_DAY,) = (tier for tier in TIERS if tier.width_us == DAY_US)


@dataclass(frozen=True, slots=True)
class Days:
    """Complete days, later than those of the items before."""

    by_metric: Mapping[str, DayGrid]
    before_us: int
    """Nothing before this time follows."""
    tier: Tier
    """What it was read from."""


class Daily:
    """Reads days. All methods on one loop."""

    def __init__(
        self, store: BlockReader, directories: Directories, buckets: Buckets, rollup: Rollup
    ) -> None:
        self._store = store
        self._directories = directories
        self._buckets = buckets
        self._rollup = rollup

    async def of(
        self,
        tenant: TenantId,
        place: TopicPartitionKey,
        device_uids: Sequence[bytes],
        metrics: tuple[str, ...] | None,
        start_us: int,
        end_us: int,
    ) -> AsyncGenerator[Days]:
        """Days of some devices of one partition in [start_us, end_us), which are whole days.

        Devices are numbered as in `device_uids`. `metrics` None: all that there are. Raises BlockDamaged, Unavailable.
        """
        look = await self._store.look(tenant, place, start_us, end_us, (ROLLUP_DAY, None))
        rollups, readings = look.found
        blocks = [*rollups, *readings]
        if metrics is None:
            metrics = _metrics(rollups, readings)
        if not blocks or not metrics:
            return
        begin = max(start_us, min(block.facts.min_time_us for block in blocks) // DAY_US * DAY_US)
        last = min(end_us, (max(block.facts.max_time_us for block in blocks) // DAY_US + 1) * DAY_US)
        step = max(1, _CELLS_AT_ONCE // (len(device_uids) * len(metrics))) * DAY_US
        while begin < last:
            end = min(last, begin + step)
            grids, tier = await self._grids(tenant, place, device_uids, metrics, begin, end)
            yield Days(grids, end_us if end == last else end, tier)
            begin = end

    async def _grids(
        self,
        tenant: TenantId,
        place: TopicPartitionKey,
        device_uids: Sequence[bytes],
        metrics: tuple[str, ...],
        begin: int,
        end: int,
    ) -> tuple[dict[str, DayGrid], Tier]:
        def empty() -> dict[str, DayGrid]:
            days = (end - begin) // DAY_US
            return {metric: DayGrid(len(device_uids), begin, days) for metric in metrics}

        for _ in range(_TRIES):
            plan = await self._buckets.plan(tenant, place, device_uids, _BY_DAY, begin, end)
            if plan is None:
                break
            grids = empty()
            if not await self._put_rollups(grids, plan, device_uids):
                continue
            if plan.counted:
                # They take the place of the rollups' cells.
                counted = await self._rollup.counted(
                    tenant, place, device_uids, metrics, plan.counted, DAY_US
                )
                for metric, part in counted.items():
                    grids[metric].put_partials(part)
                if await self._store.seals(place) != plan.seals:
                    continue
            return grids, TIER_OF[ROLLUP_DAY]
        grids = empty()
        counted = await self._rollup.counted(tenant, place, device_uids, metrics, [(begin, end)], DAY_US)
        for metric, part in counted.items():
            grids[metric].put_partials(part)
        return grids, Tier.RAW

    async def _put_rollups(
        self, grids: Mapping[str, DayGrid], plan: Plan, device_uids: Sequence[bytes]
    ) -> bool:
        """False: a block was gone, and the grids are not complete."""
        begin, end = plan.inner
        names = tuple(name for metric in grids for name in column_names(metric))
        question = Question(Wanted(device_uids), names, end)
        ahead = sorted(plan.rollups, key=lambda block: block.key.arrival)
        while ahead:
            first = prefix(ahead, question)
            some, ahead = ahead[:first], ahead[first:]
            opened, gone = await open_blocks(self._store, self._directories, some, question, begin)
            if gone:
                return False
            await asyncio.to_thread(_put, grids, opened, question, begin)
        return True


def _put(grids: Mapping[str, DayGrid], opened: Sequence[Opened], question: Question, begin: int) -> None:
    """Rows of rollups into the grids, in the order in which they arrived."""
    for _, reader in sorted(opened, key=lambda item: item[0]):
        device = np.repeat(question.wanted.numbers(reader.device_uids), reader.row_counts).astype(np.intp)
        time = reader.time()
        rows = (device >= 0) & (time >= begin) & (time < question.end_us)
        everything = bool(rows.all())
        if not everything:
            device, time = device[rows], time[rows]
        for metric, grid in grids.items():
            names = column_names(metric)
            if names[0] in reader.metrics:
                columns = (reader.column(name) for name in names)
                found = columns if everything else (column[rows] for column in columns)
                grid.put(device, time, dict(zip(STATISTICS, found, strict=True)))


def _metrics(rollups: Sequence[StoredBlock], readings: Sequence[StoredBlock]) -> tuple[str, ...]:
    """Names of the metrics that blocks have, in order."""
    names = {name for block in readings for names in block.facts.metric_sets for name in names}
    for block in rollups:
        names |= {metric_of(name) for names in block.facts.metric_sets for name in names}
    return tuple(sorted(names))
