"""Partial results by bucket, from rollups where they can stand for the readings, and from the readings where not.

What Aggregate and reports ask. Rollups do not know of readings that came since they were made: those lie in blocks that
no block of rollups covers, and the buckets that they touch are counted from the readings.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.ids import TenantId
from tidewire_storage.application.directories import Directories
from tidewire_storage.application.rollup import Gathering, Interval, Rollup, intervals_of
from tidewire_storage.application.sweep import MAX_US, MIN_US, Wanted, rows_in
from tidewire_storage.domain.aggregates import Partials, merge_partials
from tidewire_storage.domain.blocks import StoredBlock, TopicPartitionKey
from tidewire_storage.domain.rollups import DAY_US, TIERS, Tier
from tidewire_storage.ports import BlockReader

WORTH_DEVICE_DAYS = 32.0
"""For less the readings are as quick."""
_TRIES = 4
"""Looks that sealing may upset, before the readings alone are asked."""


@dataclass(frozen=True, slots=True)
class Bucketed:
    """Partial results per metric; devices are numbered as asked."""

    parts: dict[str, Partials]
    tier: Tier | None
    """The rollups used; None: readings alone."""


class Buckets:
    """The use case's reading half. All methods on one loop."""

    def __init__(
        self,
        store: BlockReader,
        directories: Directories,
        rollup: Rollup,
        *,
        worth_device_days: float = WORTH_DEVICE_DAYS,
    ) -> None:
        """For less than `worth_device_days` rollups are not looked for."""
        self._worth_device_days = worth_device_days
        self._store = store
        self._directories = directories
        self._rollup = rollup

    async def of(
        self,
        tenant: TenantId,
        place: TopicPartitionKey,
        device_uids: Sequence[bytes],
        metrics: Sequence[str],
        start_us: int,
        end_us: int,
        width_us: int | None,
        origin_us: int = 0,
        numbers: NDArray[np.int32] | None = None,
        check_rows: Callable[[int], None] = lambda rows: None,
    ) -> Bucketed:
        """Results of readings with times in [start_us, end_us), which may be MIN_US and MAX_US.

        Buckets are `width_us` wide; None: one bucket, which is said to start at `origin_us`. `numbers` (devices,) are
        those that they get in the answer; devices of one number are counted together. `check_rows` may raise when a
        metric has too many rows.
        """
        gathering = Gathering(numbers, check_rows=check_rows)
        days = (end_us - start_us) / DAY_US
        if days * len(device_uids) >= self._worth_device_days:
            for tier in TIERS:
                if width_us is not None and width_us % tier.width_us:
                    continue
                for _ in range(_TRIES):
                    plan = await self.plan(tenant, place, device_uids, tier, start_us, end_us)
                    if plan is None:
                        break
                    parts = await self._carry_out(
                        plan, tenant, place, device_uids, metrics, width_us, origin_us, gathering
                    )
                    if not plan.counted or await self._store.seals(place) == plan.seals:
                        return Bucketed(parts, tier)
        counted = await self._rollup.counted(
            tenant, place, device_uids, metrics, [(start_us, end_us)], width_us, origin_us, gathering
        )
        return Bucketed(counted, None)

    async def plan(
        self,
        tenant: TenantId,
        place: TopicPartitionKey,
        device_uids: Sequence[bytes],
        tier: Tier,
        start_us: int,
        end_us: int,
    ) -> "Plan | None":
        """What is to be read for readings in [start_us, end_us) by buckets of a tier. None: nothing is rolled up there.

        It holds as long as the partition's `seals` stay what they were.
        """
        begin, end = -(-start_us // tier.width_us) * tier.width_us, end_us // tier.width_us * tier.width_us
        if begin >= end:
            return None
        look = await self._store.look(tenant, place, begin, end, (tier.level, None))
        rollups, readings = look.found
        if not rollups:
            return None
        covered = _joined((block.key.first_offset, block.key.end_offset) for block in rollups)
        late = [block for block in readings if not _covered(block, covered)]
        touched = await self._touched(late, device_uids, begin, end, tier)
        dirty = intervals_of(touched, tier.width_us)
        edges = [(start_us, begin)] if MIN_US < start_us < begin else []
        edges += [(end, end_us)] if end < end_us < MAX_US else []
        return Plan(tier, look.seals, rollups, (begin, end), dirty, edges)

    async def _touched(
        self, blocks: Sequence[StoredBlock], device_uids: Sequence[bytes], begin: int, end: int, tier: Tier
    ) -> NDArray[np.int64]:
        """Buckets of which the blocks hold readings of the devices. Blocks that are gone are passed over: then `seals`
        has changed."""
        wanted = Wanted(device_uids)
        found = [
            np.unique(times - times % tier.width_us)
            async for times in rows_in(self._store, self._directories, blocks, wanted, begin, end)
        ]
        return np.unique(np.concatenate([np.empty(0, np.int64), *found]))

    async def _carry_out(
        self,
        plan: "Plan",
        tenant: TenantId,
        place: TopicPartitionKey,
        device_uids: Sequence[bytes],
        metrics: Sequence[str],
        width_us: int | None,
        origin_us: int,
        gathering: Gathering,
    ) -> dict[str, Partials]:
        def wide(bucket: NDArray[np.int64]) -> NDArray[np.int64]:
            return np.full(len(bucket), origin_us) if width_us is None else bucket - bucket % width_us

        rolled = await self._rollup.stored(
            tenant,
            place,
            device_uids,
            metrics,
            [plan.inner],
            plan.tier,
            replace(gathering, wide=None if width_us == plan.tier.width_us else wide, skipped=plan.dirty),
            (plan.seals, plan.rollups),
        )
        if not plan.counted:
            return rolled
        counted = await self._rollup.counted(
            tenant,
            place,
            device_uids,
            metrics,
            plan.counted,
            width_us,
            origin_us,
            gathering,
        )
        return await asyncio.to_thread(
            lambda: {metric: merge_partials([rolled[metric], counted[metric]]) for metric in metrics}
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What is read from where."""

    tier: Tier
    seals: int
    rollups: list[StoredBlock]
    inner: Interval
    """Whole buckets of the tier: from rollups, but for the dirty ones."""
    dirty: list[Interval]
    edges: list[Interval]
    """Parts of buckets: from the readings, as what is dirty."""

    @property
    def counted(self) -> list[Interval]:
        """What is not taken from rollups."""
        return [*self.edges, *self.dirty]


def _joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges of offsets, those that touch as one: readings of several merges may lie in one block by now."""
    joined: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if joined and first <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((first, end))
    return joined


def _covered(block: StoredBlock, covered: Sequence[tuple[int, int]]) -> bool:
    return any(first <= block.key.first_offset and block.key.end_offset <= end for first, end in covered)


__all__ = ["MAX_US", "MIN_US", "Bucketed", "Buckets"]
