"""How far a group is behind the end of a topic, in records and in seconds; as metrics, for alerts and autoscaling.

Every process of a group measures all of it, so that the figure is there while any of them lives and does not depend on
who owns what: over processes take the maximum, never the sum. The same on both backends; used by every service that
consumes, and by `tidewire doctor`.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tidewire_kit.errors import TidewireError
from tidewire_kit.lasting import ended
from tidewire_kit.log.port import MessageLog
from tidewire_kit.observability.logs import get_logger

LOOK_SECONDS = 5.0
"""An autoscaler asks every 15 to 30 s."""
_STALE_SECONDS = 6 * LOOK_SECONDS
"""What is older says nothing about now, and is not shown: a missing series is noticed, a wrong one is believed."""
_LABELS = ("group", "topic")

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Lag:
    """What a group has not committed."""

    records: int
    seconds: float
    """Age of the oldest of them by the log's clock; 0.0 when there is none."""


async def measure(log: MessageLog, group: str, topic: str, now_us: int) -> Lag:
    """Asks the log, and reads one record of each partition that is behind. Raises TidewireError."""
    waiting = [partition for partition, records in (await log.lag(group, topic)).items() if records]
    if not waiting:
        return Lag(0, 0.0)
    committed, begins, ends = await asyncio.gather(
        log.committed(group, topic), log.begin_offsets(topic), log.end_offsets(topic)
    )
    first = {number: max(committed.get(number, 0), begins[number]) for number in waiting}
    oldest = await asyncio.gather(*(log.read(topic, number, first[number], 1) for number in waiting))
    oldest_us = min((records[0].appended_at_us for records in oldest if records), default=now_us)
    return Lag(
        sum(max(0, ends[number] - first[number]) for number in waiting), max(now_us - oldest_us, 0) / 1e6
    )


class LagWatch(Collector):
    """Measures a group's lag every few seconds and shows it as `tidewire_consumer_lag_records` and `_seconds`."""

    def __init__(
        self,
        log: MessageLog,
        now_us: Callable[[], int],
        group: str,
        topic: str,
        registry: CollectorRegistry,
        *,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._log = log
        self._now_us = now_us
        self._labels = (group, topic)
        self._look_seconds = look_seconds
        self._found: Lag | None = None
        self._found_at = 0.0
        self._failing = False
        self._task: asyncio.Task[None] | None = None
        registry.register(self)

    async def start(self) -> None:
        """Begins to look; returns at once. The topic must be known to the log."""
        self._task = asyncio.create_task(self._watch(), name="consumer lag")

    async def close(self) -> None:
        """Looks no more. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def ended(self) -> str | None:
        """Says so when nobody looks any more; see `tidewire_kit.lasting`."""
        return ended(self._task)

    def collect(self) -> Iterable[Metric]:
        """For prometheus-client."""
        records = GaugeMetricFamily(
            "tidewire_consumer_lag_records",
            "Durable records that the group has not committed, of all partitions, whichever process owns them.",
            labels=_LABELS,
        )
        seconds = GaugeMetricFamily(
            "tidewire_consumer_lag_seconds",
            "Age of the oldest record that the group has not committed, in seconds; 0 when there is none.",
            labels=_LABELS,
        )
        if self._found is not None and time.monotonic() - self._found_at < _STALE_SECONDS:
            records.add_metric(self._labels, self._found.records)
            seconds.add_metric(self._labels, self._found.seconds)
        return (records, seconds)

    async def _watch(self) -> None:
        while True:
            try:
                self._found = await measure(self._log, *self._labels, self._now_us())
                self._found_at = time.monotonic()
                self._failing = False
            except TidewireError as error:
                if not self._failing:
                    logger.warning("lag_unknown", group=self._labels[0], error=error.message)
                self._failing = True
            except Exception:
                logger.exception("lag_failed", group=self._labels[0])
            await asyncio.sleep(self._look_seconds)
