"""The owner of partitions: the loop that every consumer of telemetry runs.

Fetch → decode → drop duplicates → processor → commit, after the effect is durable. Services construct one per process
with a `Processor` of theirs, start it, put `check` into their health, and close it when they drain. The loop does not
end before `close`: whatever goes wrong is logged once, turns the health check red, and is tried again.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from tidewire_kit.clock import Clock
from tidewire_kit.errors import FailedPrecondition
from tidewire_kit.lasting import ended
from tidewire_kit.log.port import Buffer, Consumer, LogRecord, MessageLog, TopicPartition
from tidewire_kit.observability import traces
from tidewire_kit.observability.logs import get_logger
from tidewire_kit.observability.messaging import ProcessSpans
from tidewire_kit.owner.admission import Decoded, admit, dead_lettered, decode_checked
from tidewire_kit.owner.dead_letters import DeadLetters
from tidewire_kit.owner.dedup import WINDOW_SECONDS, DedupWindow, SegmentHasher
from tidewire_kit.owner.poison import PoisonGuard
from tidewire_kit.owner.port import AdmittedRecord, Processor
from tidewire_kit.telemetry.record import Record, decode_record

logger = get_logger(__name__)

MOVED = frozenset({"NOT_OWNER", "PROGRESS_MOVED"})
"""Reasons by which log and processors say that a partition has another owner by now."""
MOST_MOVES = 10
"""So many in a row are no rebalance any more."""

TRIES = 3
"""How often a record is tried before it is set aside."""


@dataclass(frozen=True, slots=True)
class OwnerSettings:
    """Times, in seconds; tests shorten them."""

    poll_seconds: float = 0.2
    """Longest wait for records, and so the most that a flush comes late."""
    poll_bytes: int = 8 << 20
    """Most bytes of records taken at once."""
    gather_seconds: float = 0.0
    """Pause after a poll that brought less than half of `poll_bytes`. A processor that gathers anyway saves most of its
    work on small records by taking them in fewer and larger steps."""
    poison_pause_seconds: float = 60.0
    """After stopping for too many bad records: time to the next try."""
    first_retry_seconds: float = 0.5
    longest_retry_seconds: float = 10.0
    window_seconds: float = WINDOW_SECONDS
    """How long a batch is recognised when it is sent again."""


@dataclass(slots=True)
class OwnerStats:
    """Counts since the start of the process, for metrics."""

    records: int = 0
    segments: int = 0
    duplicate_segments: int = 0
    dead_letters: int = 0
    failures: int = 0
    missing_records: int = 0
    """Removed from the log before they were processed: the stores are older than what the log still holds."""


class PartitionOwner:
    """Owns the partitions of `topic` that `group` assigns to this process. It is its own rebalance handler."""

    def __init__(
        self,
        log: MessageLog,
        clock: Clock,
        processor: Processor,
        *,
        group: str,
        topic: str,
        decode: Callable[[Buffer], Record] = decode_record,
        settings: OwnerSettings | None = None,
        guard: PoisonGuard | None = None,
    ) -> None:
        self._log = log
        self._clock = clock
        self._processor = processor
        self._group = group
        self._topic = topic
        self._decode = decode
        self._settings = settings or OwnerSettings()
        self._guard = guard or PoisonGuard()
        self._dead_letters = DeadLetters(log, clock, group)
        self._hasher: SegmentHasher | None = None
        self._windows: dict[TopicPartition, DedupWindow] = {}
        self._loaded: dict[TopicPartition, int] = {}
        """What was found stored, to be committed to the log: its last owner may have died between the two."""
        self._consumer: Consumer | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._stale = False
        self._moves = 0
        self._error: str | None = None
        self._stopped_until: float | None = None
        self._stopped_why = ""
        self._spans = ProcessSpans(group) if traces.exporting() else None
        self.stats = OwnerStats()
        self._missing: dict[int, int] = {}
        """Partition → missing records that are counted already."""

    async def start(self) -> None:
        """Begins to own; returns at once."""
        self._task = asyncio.create_task(self._run(), name=f"owner {self._group}")

    async def close(self) -> None:
        """Flushes, commits, gives up the partitions and leaves the group. Idempotent."""
        self._stopping.set()
        task, self._task = self._task, None
        if task is not None:
            await task

    @property
    def partitions(self) -> frozenset[TopicPartition]:
        """The partitions owned now."""
        return self._consumer.assignment if self._consumer is not None else frozenset()

    def check(self) -> str | None:
        """Says why records are not being processed; None: they are."""
        if self._stopped_until is not None:
            left = max(0.0, self._stopped_until - self._clock.monotonic())
            return (
                f"stopped: {self._guard.recent} of the last records could not be processed, most recently because "
                f"{self._stopped_why}; next try in {left:.0f} s"
            )
        return self._processor.obstacle() or self._error

    def ended(self) -> str | None:
        """Says so when the loop has ended though nobody closed it; see `tidewire_kit.lasting`."""
        return ended(self._task)

    # Rebalance

    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Loads what is stored of partitions that come. See `RebalanceHandler`."""
        return await self._load(partitions)

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Makes what was taken durable, commits, and lets go. See `RebalanceHandler`.

        When that fails nothing is lost: the next owner begins where the stored progress says.
        """
        try:
            if not self._stale:
                await self._commit(await self._processor.flush(partitions))
        except Exception as error:  # noqa: BLE001 - whatever it was, the partitions must be given up
            logger.warning("owner_flush_failed_at_revoke", group=self._group, error=str(error))
            self._stale = True  # what stays may have been in the same flush
        finally:
            await self._processor.forget(partitions)
            if self._spans is not None:
                self._spans.abandon("revoked")
            for partition in partitions:
                self._windows.pop(partition, None)

    async def _load(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        self._hasher = self._hasher or SegmentHasher(self._log.incarnation(self._topic))
        offsets: dict[TopicPartition, int] = {}
        for partition, progress in (await self._processor.load(partitions)).items():
            window = self._windows[partition] = DedupWindow(seconds=self._settings.window_seconds)
            window.load(progress.entries)
            if progress.next_offset is not None:
                offsets[partition] = progress.next_offset
        await self._look_for_missing(offsets)
        self._loaded |= {partition: offset for partition, offset in offsets.items() if offset}
        return offsets

    async def _look_for_missing(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Says which records are gone unprocessed. Retention spares them, unless the stores were restored from a copy
        that is older than the log's beginning."""
        if not any(offsets.values()):
            return
        begins = await self._log.begin_offsets(self._topic)
        for (topic, number), offset in offsets.items():
            missing = begins[number] - offset
            if offset and missing > self._missing.get(number, 0):
                self.stats.missing_records += missing - self._missing.get(number, 0)
                self._missing[number] = missing
                logger.error(
                    "records_removed_unread",
                    group=self._group,
                    topic=topic,
                    partition=number,
                    records=missing,
                )

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
        self._pause_or_resume(consumer)
        records = await consumer.poll(self._settings.poll_seconds, self._settings.poll_bytes)
        if self._loaded:
            loaded, self._loaded = self._loaded, {}
            await self._commit(loaded)
        if records:
            await self._work(consumer, records)
        await self._commit(await self._processor.settle())
        behind = sum(len(record.value) for record in records) >= self._settings.poll_bytes // 2
        if records and not behind and self._settings.gather_seconds:
            await self._sleep(self._settings.gather_seconds)

    async def _start_over(self, consumer: Consumer) -> None:
        """After a failure memory and disk may disagree: drops what is in memory and reads on from what is durable."""
        owned = consumer.assignment
        await self._processor.forget(owned)
        if self._spans is not None:
            self._spans.abandon("the owner starts over")
        offsets = await self._load(owned)
        committed = await self._log.committed(self._group, self._topic)
        for topic, partition in owned:
            consumer.seek(topic, partition, offsets.get((topic, partition), committed.get(partition, 0)))
        self._stale = False

    def _pause_or_resume(self, consumer: Consumer) -> None:
        if self._stopped_until is not None and self._clock.monotonic() >= self._stopped_until:
            self._stopped_until = None
        if self._stopped_until is not None or self._processor.obstacle() is not None:
            consumer.pause(list(consumer.assignment))
        else:
            consumer.resume(list(consumer.assignment))

    async def _commit(self, durable: Mapping[TopicPartition, int]) -> None:
        if durable and self._consumer is not None:
            owned = self._consumer.assignment
            offsets = {partition: offset for partition, offset in durable.items() if partition in owned}
            if offsets:
                if self._spans is not None:
                    self._spans.durable(offsets)
                await self._consumer.commit(offsets)

    # Records

    async def _work(self, consumer: Consumer, records: Sequence[LogRecord]) -> None:
        by_partition: dict[TopicPartition, list[LogRecord]] = {}
        for record in records:
            by_partition.setdefault((record.topic, record.partition), []).append(record)
        while by_partition:
            partition, sources = next(iter(by_partition.items()))
            if not await self._work_partition(consumer, partition, sources):
                break
            del by_partition[partition]
            await asyncio.sleep(0)
        for (topic, number), sources in list(by_partition.items())[1:]:
            consumer.seek(topic, number, sources[0].offset)

    async def _work_partition(
        self, consumer: Consumer, partition: TopicPartition, sources: Sequence[LogRecord]
    ) -> bool:
        """Returns whether all were processed; otherwise the consumer stands at the first that was not."""
        assert self._hasher is not None
        decoded: list[Decoded] = []
        failures: dict[int, Exception] = {}
        for source in sources:
            try:
                decoded.append(self._try_decode(source))
            except Exception as error:  # noqa: BLE001 - bytes from outside may break a decoder in any way
                failures[source.offset] = error
        window = self._windows[partition]
        admissions = admit(partition, decoded, self._hasher, window)
        segments = sum(table.segments for item in decoded for table in item.record.tables)
        self.stats.segments += segments
        self.stats.duplicate_segments += segments - sum(len(record.entries) for record in admissions)
        admitted = iter(admissions)
        for source in sources:
            if self._spans is not None:
                self._spans.begin(source)
            failure = failures.get(source.offset)
            record = next(admitted) if failure is None else None
            if record is not None:
                failure = self._try_take(record)
            if failure is None:
                self._guard.passed()
                continue
            if record is not None:
                window.forget(record.entries)
            if self._spans is not None:
                self._spans.failed(source, failure)
            if not await self._set_aside(partition, source, failure):
                for rest in admitted:
                    window.forget(rest.entries)
                consumer.seek(source.topic, source.partition, source.offset)
                return False
        self.stats.records += len(sources)
        return True

    def _try_decode(self, source: LogRecord) -> Decoded:
        for _ in range(TRIES - 1):
            try:
                return decode_checked(self._decode, source)
            except Exception:  # noqa: BLE001, S112 - the last try says why
                continue
        return decode_checked(self._decode, source)

    def _try_take(self, record: AdmittedRecord) -> Exception | None:
        failure: Exception | None = None
        for _ in range(TRIES):
            try:
                self._processor.take(record)
            except Exception as error:  # noqa: BLE001 - one record must not stop all others
                failure = error
            else:
                return None
        return failure

    async def _set_aside(self, partition: TopicPartition, source: LogRecord, failure: Exception) -> bool:
        """Dead-letters a record; False when there were too many, and then the consumer stops for a while."""
        message = f"{type(failure).__name__}: {failure}"
        if self._guard.would_trip():
            self._stopped_why = message
            self._stopped_until = self._clock.monotonic() + self._settings.poison_pause_seconds
            logger.error("owner_stopped", group=self._group, offset=source.offset, reason=message)
            return False
        reason = "MALFORMED" if isinstance(failure, ValueError) else "PROCESSING_FAILED"
        readings = await self._dead_letters.put(source, reason, message)
        self._processor.take(dead_lettered(partition, source, readings))
        self._guard.failed()
        self.stats.dead_letters += 1
        logger.warning(
            "record_dead_lettered",
            group=self._group,
            partition=source.partition,
            offset=source.offset,
            reason=message,
        )
        return True

    # Failures

    def _note_failure(self, error: Exception) -> None:
        message = f"{type(error).__name__}: {error}"
        self._stale = True
        if isinstance(error, FailedPrecondition) and error.reason in MOVED and self._moves < MOST_MOVES:
            # Rebalances bring it: the next polls tell who owns what, and progress is stored with its effect.
            self._moves += 1
            logger.warning("owner_moved", group=self._group, error=message)
            return
        if message != self._error:
            logger.error("owner_failed", group=self._group, error=message, exc_info=error)
        self._error = message
        self.stats.failures += 1

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass
