"""What is known of each device, metric and day: the one place where the report gets its numbers from.

Today it goes through the blocks. Whoever answers instead from what is kept by day keeps to this: every (device, day)
of a metric occurs once, and days come in order of time.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass

from tidewire_kit.ids import TenantId
from tidewire_storage.application.aggregate import Tier
from tidewire_storage.application.directories import Directories
from tidewire_storage.application.sweep import MIN_US, Wanted, sweep
from tidewire_storage.domain.aggregates import Partials, merge_partials, partials_of
from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_storage.domain.collapse import Collapsed
from tidewire_storage.domain.periods import DAY_US
from tidewire_storage.domain.report import rows_of
from tidewire_storage.ports import BlockReader

_MERGE_EVERY = 64


@dataclass(frozen=True, slots=True)
class Days:
    """Complete days, later than those of the items before."""

    by_metric: Mapping[str, Partials]
    """Metric → per (device number, start of the day), each once."""
    before_us: int
    """Nothing before this time follows."""
    tier: Tier
    """What it was read from."""


class DailyPartials:
    """Reads days."""

    def __init__(self, store: BlockReader, directories: Directories) -> None:
        self._store = store
        self._directories = directories

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
        wanted, gathered = Wanted(device_uids), _Gathered()
        rows = sweep(self._store, self._directories, tenant, place, wanted, metrics, start_us, end_us)
        async for item in rows:
            if await asyncio.to_thread(gathered.add, item):
                yield await asyncio.to_thread(gathered.take, gathered.complete_us)
        if gathered.parts:
            yield await asyncio.to_thread(gathered.take, end_us)


class _Gathered:
    """Days that rows are still added to."""

    def __init__(self) -> None:
        self.parts: dict[str, list[Partials]] = {}
        self.complete_us = MIN_US
        """Start of the day of the last row so far: every row to come is later than that row."""

    def add(self, rows: Collapsed) -> bool:
        """Adds rows later than all before. Returns whether that has completed days."""
        for number, metric in enumerate(rows.metrics):
            part = partials_of(rows, number, DAY_US, 0)
            if len(part):
                parts = self.parts.setdefault(metric, [])
                parts.append(part)
                if len(parts) >= _MERGE_EVERY:
                    parts[:] = [merge_partials(parts)]
        first, last = (int(time) // DAY_US * DAY_US for time in (rows.time.min(), rows.time.max()))
        begun = first if self.complete_us == MIN_US else self.complete_us
        self.complete_us = last
        return last > begun

    def take(self, before_us: int) -> Days:
        """What is known of the days before, which is forgotten here."""
        taken: dict[str, Partials] = {}
        for metric, parts in list(self.parts.items()):
            merged = merge_partials(parts)
            done = merged.bucket < before_us
            if done.any():
                taken[metric] = rows_of(merged, done)
            if done.all():
                del self.parts[metric]
            else:
                parts[:] = [rows_of(merged, ~done)]
        return Days(taken, before_us, Tier.RAW)
