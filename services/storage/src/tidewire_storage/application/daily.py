"""What is known of each device, metric and day: the one place where the report gets its numbers from.

Days are read from rollups where these stand for the readings, some at once, so that memory holds a few days of a large
fleet or years of a few devices.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass

from tidewire_kit.ids import TenantId
from tidewire_storage.application.aggregate import TIER_OF, Tier
from tidewire_storage.application.buckets import Buckets
from tidewire_storage.domain.aggregates import Partials
from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_storage.domain.periods import DAY_US

_ROWS_AT_ONCE = 500_000
"""(device, metric, day)s: 45 MB."""


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

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets

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
        begin = start_us
        while begin < end_us:
            names = metrics
            if names is None:
                names = await self._buckets.metrics(tenant, place, begin, end_us)
            if not names:
                return
            days = max(1, _ROWS_AT_ONCE // (len(device_uids) * len(names)))
            end = min(end_us, begin + days * DAY_US)
            found = await self._buckets.of(tenant, place, device_uids, names, begin, end, DAY_US)
            there = {metric: part for metric, part in found.parts.items() if len(part)}
            yield Days(there, end, TIER_OF[found.tier.level if found.tier else None])
            begin = end
