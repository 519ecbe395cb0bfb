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
from tidewire_kit.errors import FailedPrecondition
from tidewire_kit.events import EventRecord, claimed_events, decode_events
from tidewire_kit.ids import partition_of
from tidewire_kit.lasting import ended
from tidewire_kit.log.port import Consumer, LogRecord, MessageLog, TopicPartition
from tidewire_kit.observability import traces
from tidewire_kit.observability.logs import get_logger
from tidewire_kit.observability.messaging import ProcessSpans
from tidewire_kit.owner.dead_letters import DeadLetters
from tidewire_kit.owner.owner import MOST_MOVES, MOVED, TRIES, OwnerSettings, OwnerStats
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


class RecordRefused(Exception):
    """A record cannot be processed, however often it is tried; nothing of the work it came with has counted."""

    def __init__(self, offset: int, why: str) -> None:
        super().__init__(why)
        self.offset = offset


class EventSink(Protocol):
    """Makes effects durable, each once: together with the progress, and under the events' identities."""

    async def load(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Begins to own partitions, or begins again, and returns where to start in each."""

    async def apply(self, work: EventWork) -> None:
        """Makes the effect of the work durable, and that the partition stands at `next_offset`. Raises when that failed
        or is not known; the owner then starts over from `load`. RecordRefused when it is one record's fault:
        that one is tried three times, then dead-lettered, and the others are applied without it."""


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
        self._moves = 0
        self._error: str | None = None
        self._stopped_until: float | None = None
        self._stopped_why = ""
        self._spans = ProcessSpans(group) if traces.exporting() else None
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
        if self._spans is not None:
            self._spans.abandon("revoked")

    # Loop

    async def _run(self) -> None:
        delay = self._settings.first_retry_seconds
        while not self._stopping.is_set():
            try:
                if self._consumer is None:
                    self._consumer = await self._log.consume(self._group, [self._topic], self)
                await self._cycle(self._consumer)
                self._error = None
                self._moves = 0
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
        aside: dict[int, int] = {}
        for source in sources:
            if self._spans is not None:
                self._spans.begin(source)
            try:
                record = self._decoded(source)
            except ValueError as error:
                if not await self._set_aside(source, "MALFORMED", error):
                    break
                aside[source.offset] = claimed_events(source.value)
            else:
                work.records.append((source.offset, record))
                self._guard.passed()
            work.next_offset = source.offset + 1
        await self._apply(work, aside, {source.offset: source for source in sources})
        if work.next_offset > sources[0].offset:
            if self._spans is not None:
                self._spans.durable({partition: work.next_offset})
            await consumer.commit({partition: work.next_offset})
        self.stats.records += sum(source.offset < work.next_offset for source in sources)
        if work.next_offset <= sources[-1].offset:
            consumer.seek(*partition, work.next_offset)

    def _decoded(self, source: LogRecord) -> EventRecord:
        record = decode_events(source.value)
        partitions = self._log.partitions(self._topic)
        for event in record.events:
            if partition_of(record.tenant, event.device_uid, partitions) != source.partition:
                raise ValueError("an event of a tenant or device that belongs into another partition")
        return record

    async def _apply(self, work: EventWork, aside: dict[int, int], sources: Mapping[int, LogRecord]) -> None:
        """Applies what can be, and makes `work` end before the first record that can neither be applied nor set aside.

        `aside`: offset → events of the records that were set aside.
        """
        tries = 0
        while work.next_offset > min(sources):
            work.dead_lettered = sum(aside[offset] for offset in aside if offset < work.next_offset)
            try:
                await self._sink.apply(work)
            except RecordRefused as error:
                events = {offset: len(record.events) for offset, record in work.records}.get(error.offset)
                if events is None:
                    raise  # the sink names a record that it was not given
                tries += 1
                if tries < TRIES:
                    continue
                tries = 0
                if await self._set_aside(sources[error.offset], "PROCESSING_FAILED", error):
                    aside[error.offset] = events
                    work.records = [item for item in work.records if item[0] != error.offset]
                else:
                    work.next_offset = error.offset
                    work.records = [item for item in work.records if item[0] < error.offset]
            else:
                return

    async def _set_aside(self, source: LogRecord, reason: str, error: Exception) -> bool:
        """Dead-letters a record; False when there were too many, and then the consumer stops for a while."""
        if self._guard.would_trip():
            self._stop(str(error), source)
            return False
        await self._dead_letters.put(source, reason, f"{type(error).__name__}: {error}", readings=0)
        if self._spans is not None:
            self._spans.failed(source, error)
        self._guard.failed()
        self.stats.dead_letters += 1
        logger.warning(
            "record_dead_lettered",
            group=self._group,
            partition=source.partition,
            offset=source.offset,
            reason=str(error),
        )
        return True

    def _stop(self, why: str, source: LogRecord) -> None:
        self._stopped_why = why
        self._stopped_until = self._clock.monotonic() + self._settings.poison_pause_seconds
        logger.error("owner_stopped", group=self._group, offset=source.offset, reason=why)

    def _note_failure(self, error: Exception) -> None:
        self._stale = True
        if self._spans is not None:
            self._spans.abandon("the owner starts over")
        message = f"{type(error).__name__}: {error}"
        if isinstance(error, FailedPrecondition) and error.reason in MOVED and self._moves < MOST_MOVES:
            # Rebalances bring it: the next polls tell who owns what, and progress is stored with its effect.
            self._moves += 1
            logger.warning("owner_moved", group=self._group, error=message)
            return
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
