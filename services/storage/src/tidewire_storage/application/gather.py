"""Gathering: what was taken from the log and is not stored yet, by partition and epoch.

Decides where epochs end. Used by `IngestReadings` on the process's loop; `seal` hands the gathered rows over to a flush
and begins anew, so that a flush and the gathering of the next one go on at the same time.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from tidewire_kit.ids import TenantId
from tidewire_kit.log.port import TopicPartition
from tidewire_kit.owner import NO_ENTRIES, AdmittedRecord, Ledger, add_to
from tidewire_kit.owner.dedup import Entries
from tidewire_storage.domain.blocks import OpenEpoch, TopicPartitionKey
from tidewire_storage.domain.rows import Piece
from tidewire_storage.ports import StoredProgress

HOUR_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class EpochLimits:
    """When an epoch ends, whichever is first."""

    span_us: int = HOUR_US
    """Log time; a whole fraction of an hour, so that an epoch, and with it a block, lies within one hour."""
    gathered_bytes: int = 64 << 20


@dataclass(slots=True)
class Run:
    """Records of one partition and epoch, gathered for one flush."""

    epoch: int
    epoch_first_offset: int
    slot_us: int
    """Start of the epoch's span of log time."""
    first_offset: int
    end_offset: int
    cut: bool = False
    """The epoch ends with this run."""
    tables: dict[tuple[TenantId, tuple[str, ...]], list[Piece]] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=dict)
    gathered_bytes: int = 0


@dataclass(slots=True)
class SealedPartition:
    """What a flush stores of one partition."""

    place: TopicPartitionKey
    expected_offset: int | None
    next_offset: int
    runs: list[Run]
    entries: Entries
    log_time_us: int
    cells: int
    readings: int


@dataclass(slots=True)
class _Partition:
    place: TopicPartitionKey
    sealed_offset: int | None
    """What will be stored when the flush under way is."""
    next_offset: int | None
    epoch: OpenEpoch | None
    runs: list[Run] = field(default_factory=list)
    entries: list[Entries] = field(default_factory=list)
    log_time_us: int = 0
    cells: int = 0
    readings: int = 0
    records: int = 0


class Gather:
    """The rows between the log and the blocks. Not thread-safe."""

    def __init__(self, limits: EpochLimits) -> None:
        self._limits = limits
        self._partitions: dict[TopicPartition, _Partition] = {}
        self.cells = 0
        """Cells gathered and not sealed."""
        self.readings = 0
        self.records = 0
        """Records gathered and not sealed; the first one after `seal` starts the clock of the next flush."""

    @property
    def partitions(self) -> Mapping[TopicPartition, TopicPartitionKey]:
        """The partitions gathered for."""
        return {partition: state.place for partition, state in self._partitions.items()}

    def begin(self, partition: TopicPartition, place: TopicPartitionKey, progress: StoredProgress) -> None:
        """Starts a partition at what is stored of it."""
        self.forget([partition])
        self._partitions[partition] = _Partition(
            place, progress.next_offset, progress.next_offset, progress.epoch
        )

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """Drops what was gathered of partitions."""
        for partition in partitions:
            state = self._partitions.pop(partition, None)
            if state is not None:
                self.cells -= state.cells
                self.readings -= state.readings
                self.records -= state.records

    def take(self, record: AdmittedRecord) -> None:
        """Adds a record. One that was taken before is ignored."""
        state = self._partitions[record.partition]
        if state.next_offset is not None and record.offset < state.next_offset:
            return
        cells = gathered = readings = 0
        for piece in record.pieces:
            rows = piece.table.rows if piece.rows is None else len(piece.rows)
            cells += rows * len(piece.table.metrics)
            gathered += rows * (12 + 8 * len(piece.table.metrics))
        readings = sum(counts.accepted - counts.duplicate for _, counts in record.ledger)
        run = self._run_for(state, record)
        for piece in record.pieces:
            key = (piece.table.tenant, piece.table.metrics)
            run.tables.setdefault(key, []).append(Piece(record.offset, piece))
        add_to(run.ledger, record.ledger)
        if len(record.entries):
            state.entries.append(record.entries)
        run.gathered_bytes += gathered
        run.end_offset = state.next_offset = record.offset + 1
        state.log_time_us = record.appended_at_us
        state.cells += cells
        state.readings += readings
        state.records += 1
        self.cells += cells
        self.readings += readings
        self.records += 1

    def _run_for(self, state: _Partition, record: AdmittedRecord) -> Run:
        """The run that a record belongs to; ends the epoch before it when it is due."""
        slot = record.appended_at_us - record.appended_at_us % self._limits.span_us
        first = record.offset if state.next_offset is None else state.next_offset
        epoch = state.epoch
        if epoch is not None and epoch.hour_us >= 0:
            gathered = epoch.gathered_bytes + sum(
                r.gathered_bytes for r in state.runs if r.epoch == epoch.epoch
            )
            if slot != epoch.hour_us or gathered >= self._limits.gathered_bytes:
                self._cut(state, epoch, first)
                epoch = state.epoch
        if epoch is None or epoch.hour_us < 0:
            number = 0 if epoch is None else epoch.epoch
            epoch = state.epoch = OpenEpoch(number, first, slot, 0)
        if not state.runs or state.runs[-1].cut:
            state.runs.append(Run(epoch.epoch, epoch.first_offset, epoch.hour_us, first, first))
        return state.runs[-1]

    @staticmethod
    def _cut(state: _Partition, epoch: OpenEpoch, at: int) -> None:
        """Ends the open epoch before offset `at`, which is the end of what was taken."""
        if not state.runs or state.runs[-1].cut:
            state.runs.append(Run(epoch.epoch, epoch.first_offset, epoch.hour_us, at, at))
        state.runs[-1].cut = True
        state.epoch = OpenEpoch(epoch.epoch + 1, at, -1, 0)

    def cut_all(self) -> dict[TopicPartitionKey, bool]:
        """Ends the open epoch of every partition; the value says whether there was anything in it."""
        cuts = {}
        for state in self._partitions.values():
            begun = state.epoch is not None and state.epoch.hour_us >= 0
            if begun and state.epoch is not None and state.next_offset is not None:
                self._cut(state, state.epoch, state.next_offset)
            cuts[state.place] = begun
        return cuts

    def seal(self) -> list[SealedPartition]:
        """Takes out what was gathered, of the partitions that have anything."""
        sealed = []
        for state in self._partitions.values():
            if not state.runs:
                continue
            assert state.next_offset is not None
            entries = np.concatenate(state.entries) if state.entries else NO_ENTRIES
            sealed.append(
                SealedPartition(
                    state.place,
                    state.sealed_offset,
                    state.next_offset,
                    state.runs,
                    entries,
                    state.log_time_us,
                    state.cells,
                    state.readings,
                )
            )
            if state.epoch is not None and state.epoch.hour_us >= 0:
                added = sum(run.gathered_bytes for run in state.runs if run.epoch == state.epoch.epoch)
                state.epoch = OpenEpoch(
                    state.epoch.epoch,
                    state.epoch.first_offset,
                    state.epoch.hour_us,
                    state.epoch.gathered_bytes + added,
                )
            state.sealed_offset = state.next_offset
            state.runs, state.entries = [], []
            state.cells = state.readings = state.records = 0
        self.cells = self.readings = self.records = 0
        return sealed
