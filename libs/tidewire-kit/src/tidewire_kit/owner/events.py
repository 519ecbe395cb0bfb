"""The owner of partitions of the events topic: what storage, alerting and routing share in reading events.

Simpler than `PartitionOwner`: events are rare, so there is nothing to gather, and an event's identity (device, time,
id) is the key of its effect, so there is no window of what was seen. A service brings an `EventSink`, which makes the
effect of records durable together with the progress. Services construct one per process, start it, put `check` into
their health, and close it when they drain. The loop does not end before `close`.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tidewire_kit.clock import Clock
from tidewire_kit.events import EventRecord, claimed_events, decode_events
from tidewire_kit.lasting import ended
from tidewire_kit.log.port import Consumer, LogRecord, MessageLog, TopicPartition
from tidewire_kit.observability.logs import get_logger
from tidewire_kit.owner.dead_letters import DeadLetters
from tidewire_kit.owner.owner import OwnerSettings, OwnerStats
from tidewire_kit.owner.poison import PoisonGuard

logger = get_logger(__name__)


@dataclass(slots=True)
class EventWork:
    """Records of one partition that follow one another, decoded."""

    partition: TopicPartition
    next_offset: int
    """What follows the last of them, those set aside included."""
    records: list[tuple[int, EventRecord]] = field(default_factory=list)
    """(offset, record), rising."""
    dead_lettered: int = 0
    """Events of records that were set aside."""


class EventSink(Protocol):
    """Makes effects durable, each once: together with the progress, and under the events' identities."""

    async def load(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Begins to own partitions, or begins again, and returns where to start in each."""

    async def apply(self, work: EventWork) -> None:
        """Makes the effect of the work durable, and that the partition stands at `next_offset`. Raises when that failed
        or is not known; the owner then starts over from `load`."""


class EventOwner:
    """Owns the partitions of `topic` that `group` assigns to this process. It is its own rebalance handler."""

    def __init__(
        self,
        log: MessageLog,
        clock: Clock,
        sink: EventSink,
        *,
        group: str,
        topic: str,
        settings: OwnerSettings | None = None,
        guard: PoisonGuard | None = None,
    ) -> None:
        self._log = log
        self._clock = clock
        self._sink = sink
        self._group = group
        self._topic = topic
        self._settings = settings or OwnerSettings()
        self._guard = guard or PoisonGuard()
        self._dead_letters = DeadLetters(log, clock, group)
        self._consumer: Consumer | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._stale = False
        self._uncommitted: dict[TopicPartition, int] = {}
        """What is stored and perhaps not committed: a commit may have failed after its effect was durable."""
        self._error: str | None = None
        self._stopped_until: float | None = None
        self._stopped_why = ""
        self.stats = OwnerStats()

    async def start(self) -> None:
        """Begins to own; returns at once."""
        self._task = asyncio.create_task(self._run(), name=f"owner {self._group}")

    async def close(self) -> None:
        """Finishes what it is at, gives up the partitions and leaves the group. Idempotent."""
        self._stopping.set()
        task, self._task = self._task, None
        if task is not None:
            await task

    def check(self) -> str | None:
        """Says why events are not being processed; None: they are."""
        if self._stopped_until is not None:
            return f"events: stopped, as too many records could not be processed, the last because {self._stopped_why}"
        return None if self._error is None else f"events: {self._error}"

    def ended(self) -> str | None:
        """Says so when the loop has ended though nobody closed it; see `tidewire_kit.lasting`."""
        return ended(self._task)

    # Rebalance

    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """See `RebalanceHandler`."""
        offsets = await self._sink.load(partitions)
        self._uncommitted.update(offsets)
        return offsets

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """See `RebalanceHandler`. Nothing is held between two polls."""

    # Loop

    async def _run(self) -> None:
        delay = self._settings.first_retry_seconds
        while not self._stopping.is_set():
            try:
                if self._consumer is None:
                    self._consumer = await self._log.consume(self._group, [self._topic], self)
                await self._cycle(self._consumer)
                self._error = None
                delay = self._settings.first_retry_seconds
            except Exception as error:  # noqa: BLE001 - a consumer that ends is an outage nobody sees
                self._note_failure(error)
                await self._sleep(delay)
                delay = min(delay * 2, self._settings.longest_retry_seconds)
        if self._consumer is not None:
            try:
                await self._consumer.close()
            except Exception as error:  # noqa: BLE001 - nothing is lost, the progress is stored
                logger.warning("owner_close_failed", group=self._group, error=str(error))

    async def _cycle(self, consumer: Consumer) -> None:
        if self._stale:
            await self._start_over(consumer)
        if self._stopped_until is not None and self._clock.monotonic() >= self._stopped_until:
            self._stopped_until = None
        if self._stopped_until is None:
            consumer.resume(list(consumer.assignment))
        else:
            consumer.pause(list(consumer.assignment))
        records = await consumer.poll(self._settings.poll_seconds, self._settings.poll_bytes)
        await self._commit_loaded(consumer)
        by_partition: dict[TopicPartition, list[LogRecord]] = {}
        for record in records:
            by_partition.setdefault((record.topic, record.partition), []).append(record)
        for partition, sources in by_partition.items():
            if self._stopped_until is None:
                await self._work(consumer, partition, sources)
            else:
                consumer.seek(*partition, sources[0].offset)

    async def _start_over(self, consumer: Consumer) -> None:
        """After a failure only what is stored is certain."""
        offsets = await self._sink.load(consumer.assignment)
        for partition, offset in offsets.items():
            consumer.seek(*partition, offset)
        self._uncommitted.update(offsets)
        self._stale = False

    async def _commit_loaded(self, consumer: Consumer) -> None:
        owned = consumer.assignment
        offsets = {place: offset for place, offset in self._uncommitted.items() if offset and place in owned}
        if offsets:
            await consumer.commit(offsets)
        self._uncommitted.clear()

    async def _work(
        self, consumer: Consumer, partition: TopicPartition, sources: Sequence[LogRecord]
    ) -> None:
        work = EventWork(partition, sources[0].offset)
        for source in sources:
            try:
                work.records.append((source.offset, decode_events(source.value)))
            except ValueError as error:
                if self._guard.would_trip():
                    self._stop(str(error), source)
                    break
                await self._dead_letters.put(source, "MALFORMED", str(error), readings=0)
                work.dead_lettered += claimed_events(source.value)
                self._guard.failed()
                self.stats.dead_letters += 1
            else:
                self._guard.passed()
            work.next_offset = source.offset + 1
            self.stats.records += 1
        if work.next_offset > sources[0].offset:
            await self._sink.apply(work)
            await consumer.commit({partition: work.next_offset})
        if work.next_offset <= sources[-1].offset:
            consumer.seek(*partition, work.next_offset)

    def _stop(self, why: str, source: LogRecord) -> None:
        self._stopped_why = why
        self._stopped_until = self._clock.monotonic() + self._settings.poison_pause_seconds
        logger.error("owner_stopped", group=self._group, offset=source.offset, reason=why)

    def _note_failure(self, error: Exception) -> None:
        self._stale = True
        message = f"{type(error).__name__}: {error}"
        if message != self._error:
            # Without the traceback: its frames hold events, and payloads do not belong in logs.
            logger.error("owner_failed", group=self._group, error=message)
        self._error = message
        self.stats.failures += 1

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass
