"""Compares, at the end of a demo, what was acknowledged with what queries see, and with the platform's loss ledger."""

import asyncio
import time
from dataclasses import dataclass

from tidewire_client import AsyncQueryClient, TidewireError
from tidewire_platform.demo.fleet import METERS, METRICS
from tidewire_platform.demo.publishing import DemoPublisher
from tidewire_platform.demo.setup import TENANT

SETTLE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the readings. All counts are of readings."""

    accepted: int
    """Acknowledged in this run."""
    expected: int
    """That must be visible now: every real one acknowledged in any run, and this run's of the fleet."""
    visible: int
    """That are visible, of the same."""
    collapsed: int
    """Real ones of the same device, metric and time as a later one: accepted, and visible as one."""
    difference: int
    """Of the tenant's loss ledger: accepted less stored, duplicate and dead-lettered."""
    unsettled: bool
    """The platform had not written everything when the time for it was over."""

    @property
    def lost(self) -> int:
        """Acknowledged and not visible."""
        return max(0, self.expected - self.visible)

    @property
    def duplicates(self) -> int:
        """Visible more often than sent."""
        return max(0, self.visible - self.expected)

    @property
    def good(self) -> bool:
        """Whether the platform kept its promise."""
        return not (self.lost or self.duplicates or self.difference or self.unsettled)


async def visible_readings(query: AsyncQueryClient, publisher: DemoPublisher) -> int:
    """Readings that are visible: of the real sensors all, of the fleet those of this run."""
    total = await _count(query, list(METERS), list(METRICS), publisher.fleet_since_us)
    for source in publisher.sources.values():
        total += await _count(query, [source.device], list(source.metrics), None)
    return total


async def _count(
    query: AsyncQueryClient, devices: list[str], metrics: list[str], start_us: int | None
) -> int:
    answers = await query.aggregate(devices, metrics, "count", start=start_us, across_devices=True)
    return int(sum(answer.columns["count"].sum() for answer in answers))


def expected_readings(publisher: DemoPublisher) -> int:
    """Readings that must be visible once everything acknowledged is stored."""
    done = publisher.state.rows_done
    real = sum(source.visible_readings(done[device]) for device, source in publisher.sources.items())
    return real + publisher.fleet_accepted


async def check(query: AsyncQueryClient, publisher: DemoPublisher) -> Verdict:
    """Waits until the platform has read and written everything, at most 30 s, and compares. Raises TidewireError."""
    expected = expected_readings(publisher)
    done = publisher.state.rows_done
    real = sum(source.readings(0, done[device]) for device, source in publisher.sources.items())
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        ledger = await query.ledger(tenant=TENANT)
        settled = ledger.lag_records == 0 and ledger.in_flight_readings == 0
        visible = await visible_readings(query, publisher)
        if (settled and visible == expected) or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.25)
    return Verdict(
        accepted=publisher.stats.accepted,
        expected=expected,
        visible=visible,
        collapsed=real - (expected - publisher.fleet_accepted),
        difference=ledger.difference_readings,
        unsettled=not settled,
    )


async def stored_so_far(query: AsyncQueryClient) -> tuple[int, int] | None:
    """(accepted, stored or recognised as duplicate) readings of the tenant ever; None when storage does not answer."""
    try:
        ledger = await query.ledger(tenant=TENANT)
    except TidewireError:
        return None
    return (
        sum(entry.accepted_readings for entry in ledger.entries),
        sum(entry.stored_readings + entry.duplicate_readings for entry in ledger.entries),
    )
