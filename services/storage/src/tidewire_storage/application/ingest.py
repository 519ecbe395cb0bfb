"""Ingest: records of the log become blocks, series states and ledger counts, each record once.

`IngestReadings` is the `Processor` of storage's partition owner. It gathers for at most two seconds or two million
cells, encodes on a thread while the next rows are gathered, and commits what belongs to a partition at once. Only then
does the owner commit to the log; at a start the store's own progress wins over the log's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field

from tidewire_kit.clock import Clock
from tidewire_kit.ids import TenantId
from tidewire_kit.log.port import TopicPartition
from tidewire_kit.owner import AdmittedRecord, Progress
from tidewire_storage.application.encoding import Buried, Encoded, encode_flush
from tidewire_storage.application.gather import EpochLimits, Gather, SealedPartition
from tidewire_storage.domain.block_format import read_block
from tidewire_storage.domain.blocks import StoredBlock, TopicPartitionKey
from tidewire_storage.domain.series import SeriesBuffer, states_of
from tidewire_storage.ports import BlockWriter, Flush, StoredProgress, StoreFull

_FULL_RETRY_SECONDS = 2.0
_CUT_CHECK_SECONDS = 0.25
_LOOKS = 4


@dataclass(frozen=True, slots=True)
class IngestLimits:
    """When rows are stored."""

    flush_seconds: float = 2.0
    """Longest time that rows are gathered."""
    flush_cells: int = 2_000_000
    """Most cells gathered; twice as many are in memory while a flush is under way."""
    series_seconds: float = 1.5
    """Least time between two writings of series states, so that a busy device is written seldom."""
    epochs: EpochLimits = field(default_factory=EpochLimits)


@dataclass(frozen=True, slots=True)
class FlushReport:
    """A flush that became durable, for metrics."""

    encoded: Encoded
    seconds: float


@dataclass(slots=True)
class _Attempt:
    """A flush until it is stored; tried again as it is, unless something was deleted meanwhile."""

    sealed: list[SealedPartition]
    cuts: tuple[int, dict[TopicPartitionKey, bool]] | None
    """Request to cut that it follows, and what it cuts."""
    encoded: Encoded | None = None
    buried: Buried | None = None
    """What was known to be deleted when it was encoded."""


class IngestReadings:
    """The processor. All methods on one loop."""

    def __init__(
        self,
        store: BlockWriter,
        clock: Clock,
        incarnation: bytes,
        limits: IngestLimits,
        on_flush: Callable[[FlushReport], None] = lambda report: None,
    ) -> None:
        """`incarnation` is that of the telemetry topic."""
        self._store = store
        self._clock = clock
        self._incarnation = incarnation
        self._limits = limits
        self._on_flush = on_flush
        self._gather = Gather(limits.epochs)
        self._gathering_since: float | None = None
        self._series = SeriesBuffer()
        self._series_written_at = 0.0
        self._stored: dict[TopicPartition, int] = {}
        self._durable: dict[TopicPartition, int] = {}
        self._flushing: asyncio.Task[None] | None = None
        self._unwritten: _Attempt | None = None
        self._in_flight_readings = 0
        self._retry_at = 0.0
        self._obstacle: str | None = None
        self._buried = Buried()
        self._lock = asyncio.Lock()
        """Held from the moment a flush looks at what is buried until it is stored."""
        self._cut_seen = 0
        self._cut_checked_at = 0.0
        self._cut_wanted: int | None = None

    @property
    def in_flight_readings(self) -> int:
        """Readings taken from the log and not yet stored."""
        return self._gather.readings + self._in_flight_readings

    @property
    def places(self) -> Collection[TopicPartitionKey]:
        """The partitions that this process owns."""
        return self._gather.partitions.values()

    @property
    def pressed(self) -> bool:
        """Whether readings come nearly as fast as they can be stored: what can wait should."""
        return self._gather.cells * 2 >= self._limits.flush_cells

    @property
    def buried(self) -> Buried:
        """What is not to be stored any more."""
        return self._buried

    # Processor

    async def load(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Progress]:
        """See Processor. Also folds blocks into the series states that were stored without them."""
        places = {partition: TopicPartitionKey(self._incarnation, partition[1]) for partition in partitions}
        self._cut_seen = 0  # their last owner may have missed a request
        stored = await self._store.progress(list(places.values()))
        answer = {}
        for partition, place in places.items():
            progress = stored[place]
            await self._catch_up_series(place, progress)
            self._gather.begin(partition, place, progress)
            self._durable.pop(partition, None)
            self._stored.pop(partition, None)
            if progress.next_offset is not None:
                self._stored[partition] = progress.next_offset
            # Of a partition that is not stored at all, all that the log still has is read, whatever was committed.
            answer[partition] = Progress(progress.next_offset or 0, progress.entries)
        return answer

    def take(self, record: AdmittedRecord) -> None:
        """See Processor."""
        self._gather.take(record)
        if self._gathering_since is None:
            self._gathering_since = self._clock.monotonic()

    async def settle(self) -> Mapping[TopicPartition, int]:
        """See Processor."""
        await self._look_for_cut_request()
        if self._flushing is not None and (self._flushing.done() or self._full()):
            await self._end_flush()
        if self._flushing is None and self._due():
            self._begin_flush()
            if self._full():
                await self._end_flush()
        return self._take_durable()

    async def flush(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """See Processor. Flushes all partitions; those that are not asked for lose nothing by it."""
        while (
            self._flushing is not None or self._unwritten is not None or self._gather.records or self._series
        ):
            if self._flushing is None:
                self._begin_flush(series=True)
            await self._end_flush()
            if self._obstacle is not None:
                raise StoreFull(self._obstacle)
        return self._take_durable()

    async def forget(self, partitions: Collection[TopicPartition]) -> None:
        """See Processor."""
        await self._drain_failed()
        self._gather.forget(partitions)
        if not self._gather.records:
            self._gathering_since = None
        for partition in partitions:
            self._stored.pop(partition, None)
            self._durable.pop(partition, None)

    def obstacle(self) -> str | None:
        """See Processor."""
        return self._obstacle

    async def bury(
        self,
        tenants: Collection[TenantId],
        devices: Mapping[TenantId, frozenset[bytes]],
        note: Callable[[], Awaitable[int]],
    ) -> int:
        """From now on stores nothing of these; then runs `note`, which removes what is stored.

        No flush that knew less is under way when `note` begins.
        """
        async with self._lock:
            self._buried = Buried(frozenset(tenants), dict(devices))
            for tenant in tenants:
                self._series.drop(tenant)
            return await note()

    # Flushing

    def _due(self) -> bool:
        now = self._clock.monotonic()
        if self._unwritten is not None:
            return now >= self._retry_at
        if self._cut_wanted is not None or self._gather.cells >= self._limits.flush_cells:
            return True
        if self._gathering_since is not None:
            return now >= self._gathering_since + self._limits.flush_seconds
        return bool(self._series) and self._series_due()

    def _series_due(self) -> bool:
        return self._clock.monotonic() >= self._series_written_at + self._limits.series_seconds

    def _full(self) -> bool:
        """Whether there is so much in memory that reading on has to wait for the flush."""
        return self._gather.cells >= self._limits.flush_cells

    def _begin_flush(self, *, series: bool = False) -> None:
        attempt = self._unwritten
        if attempt is None:
            cuts: tuple[int, dict[TopicPartitionKey, bool]] | None = None
            if self._cut_wanted is not None:
                cuts = (self._cut_wanted, self._gather.cut_all())
                self._cut_wanted = None
            self._in_flight_readings = self._gather.readings
            attempt = _Attempt(self._gather.seal(), cuts)
            self._gathering_since = None
        flush = self._flush(attempt, with_series=series or self._series_due())
        self._flushing = asyncio.create_task(flush, name="storage flush")

    async def _end_flush(self) -> None:
        if self._flushing is not None:
            task, self._flushing = self._flushing, None
            await task

    async def _drain_failed(self) -> None:
        """Waits for a flush whose result does not matter any more."""
        task, self._flushing = self._flushing, None
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)
        self._unwritten = None
        self._obstacle = None
        self._in_flight_readings = 0

    async def _flush(self, attempt: _Attempt, *, with_series: bool) -> None:
        began = self._clock.monotonic()
        async with self._lock:
            if attempt.encoded is None or attempt.buried is not self._buried:
                attempt.buried = self._buried
                attempt.encoded = await asyncio.to_thread(encode_flush, attempt.sealed, attempt.buried)
            encoded = attempt.encoded
            held, self._series = self._series, SeriesBuffer()  # what comes meanwhile is for the next flush
            try:
                flush = await self._assemble(encoded, held if with_series else None)
                await self._store.commit(flush)
            except StoreFull as error:
                self._series.absorb(held)
                self._unwritten = attempt
                self._retry_at = self._clock.monotonic() + _FULL_RETRY_SECONDS
                self._obstacle = error.message
                return
            except BaseException:
                self._series.absorb(held)
                raise
            self._stored_now(flush)
            if not with_series:
                self._series.absorb(held)
                for place, states in encoded.states:
                    self._series.add(place, states)
        if attempt.cuts is not None:
            await self._store.note_cut(*attempt.cuts)
        if encoded.partitions:
            self._on_flush(FlushReport(encoded, self._clock.monotonic() - began))

    async def _assemble(self, encoded: Encoded, series: SeriesBuffer | None) -> Flush:
        if series is None:
            return Flush(encoded.blocks, encoded.partitions)
        offsets = {
            TopicPartitionKey(self._incarnation, number): offset
            for (_, number), offset in self._stored.items()
        }
        offsets |= {part.place: part.next_offset for part in encoded.partitions}
        states = await asyncio.to_thread(series.merged_with, encoded.states)
        return Flush(encoded.blocks, encoded.partitions, states, offsets)

    def _stored_now(self, flush: Flush) -> None:
        owned = {place: partition for partition, place in self._gather.partitions.items()}
        for part in flush.partitions:
            partition = owned.get(part.place)
            if partition is not None:
                self._stored[partition] = self._durable[partition] = part.next_offset
        if flush.series_offsets:
            self._series_written_at = self._clock.monotonic()
        self._unwritten = None
        self._obstacle = None
        self._in_flight_readings = 0

    def _take_durable(self) -> dict[TopicPartition, int]:
        durable, self._durable = self._durable, {}
        return durable

    # Epochs and series

    async def _look_for_cut_request(self) -> None:
        now = self._clock.monotonic()
        if now < self._cut_checked_at + _CUT_CHECK_SECONDS:
            return
        self._cut_checked_at = now
        owned = {place.partition for place in self._gather.partitions.values()}
        request = await self._store.cut_requested() if owned else 0
        if request > self._cut_seen:
            noted = await self._store.cuts_noted(request)
            if owned - noted.keys():
                self._cut_wanted = request
            self._cut_seen = request

    async def _catch_up_series(self, place: TopicPartitionKey, progress: StoredProgress) -> None:
        """Series states are written less often than blocks; after a crash the blocks say what is missing."""
        if progress.next_offset is None or progress.series_offset >= progress.next_offset:
            return
        blocks: list[StoredBlock] = []
        found: list[bytes | None] = []
        for _ in range(_LOOKS):  # the last owner may be late, and seal what was just found
            blocks = await self._store.blocks_after(place, progress.series_offset)
            found = await self._store.read(blocks)
            if None not in found:
                break
        for block, data in zip(blocks, found, strict=True):
            if data is None:
                continue
            _, readers = read_block(data)
            for reader in readers:
                self._series.add(place, states_of(block.key.tenant, reader.table(), block.key.arrival))
