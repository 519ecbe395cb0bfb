"""From log records to what a processor takes: decoding, dropping duplicates, counting. No I/O."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.log.port import Buffer, LogRecord, TopicPartition
from tidewire_kit.owner.dedup import DedupWindow, SegmentHasher
from tidewire_kit.owner.ledger import UNKNOWN_TENANT, LedgerCounts, LedgerKey, hour_of
from tidewire_kit.owner.port import NO_ENTRIES, AdmittedRecord, PieceOfTable
from tidewire_kit.telemetry.record import Record

Decode = Callable[[Buffer], Record]


@dataclass(frozen=True, slots=True)
class Decoded:
    """A record of the log with its tables."""

    source: LogRecord
    record: Record
    accepted: list[int]
    """Readings of each table."""


def decode_checked(decode: Decode, source: LogRecord) -> Decoded:
    """Decodes a record; ValueError also when its count is not that of its segments, as the ledger relies on both."""
    record = decode(source.value)
    accepted = [_sum(table.segment_readings) for table in record.tables]
    readings = sum(accepted)
    if readings != record.readings:
        raise ValueError(f"the record counts {record.readings} readings and its segments {readings}")
    return Decoded(source, record, accepted)


def admit(
    partition: TopicPartition, decoded: Sequence[Decoded], hasher: SegmentHasher, window: DedupWindow
) -> list[AdmittedRecord]:
    """Looks up all segments of one partition's records (ascending by offset), and splits the answer up by record."""
    tables = [table for item in decoded for table in item.record.tables]
    if not tables:
        return [
            AdmittedRecord(partition, d.source.offset, d.source.appended_at_us, [], [], NO_ENTRIES)
            for d in decoded
        ]
    times = [item.source.appended_at_us for item in decoded for _ in item.record.tables]
    entries = hasher.entries(tables, times)
    fresh = window.admit(entries)
    all_fresh = bool(fresh.all())
    admitted = []
    first = 0
    for item in decoded:
        last = first + sum(table.segments for table in item.record.tables)
        some = slice(first, last)
        first = last
        if all_fresh:
            pieces, ledger = _whole(item)
            admitted.append(_record(partition, item, pieces, ledger, entries[some]))
        else:
            pieces, ledger = _without_duplicates(item, fresh[some])
            admitted.append(_record(partition, item, pieces, ledger, entries[some][fresh[some]]))
    return admitted


def dead_lettered(partition: TopicPartition, source: LogRecord, readings: int) -> AdmittedRecord:
    """What is left of a record that was set aside: its place and its count."""
    key = (UNKNOWN_TENANT, hour_of(source.appended_at_us))
    counts = LedgerCounts(accepted=readings, dead_lettered=readings)
    ledger = [(key, counts)] if readings else []
    return AdmittedRecord(partition, source.offset, source.appended_at_us, [], ledger, NO_ENTRIES)


def _record(
    partition: TopicPartition,
    item: Decoded,
    pieces: list[PieceOfTable],
    ledger: list[tuple[LedgerKey, LedgerCounts]],
    entries: NDArray[np.uint64],
) -> AdmittedRecord:
    return AdmittedRecord(partition, item.source.offset, item.source.appended_at_us, pieces, ledger, entries)


def _whole(item: Decoded) -> tuple[list[PieceOfTable], list[tuple[LedgerKey, LedgerCounts]]]:
    hour = hour_of(item.source.appended_at_us)
    pieces = []
    ledger = []
    first_row = 0
    for table, accepted in zip(item.record.tables, item.accepted, strict=True):
        pieces.append(PieceOfTable(table, first_row))
        first_row += table.rows
        ledger.append(((table.tenant, hour), LedgerCounts(accepted=accepted)))
    return pieces, ledger


def _without_duplicates(
    item: Decoded, fresh: NDArray[np.bool_]
) -> tuple[list[PieceOfTable], list[tuple[LedgerKey, LedgerCounts]]]:
    hour = hour_of(item.source.appended_at_us)
    pieces = []
    ledger = []
    first_row = first_segment = 0
    for table, accepted in zip(item.record.tables, item.accepted, strict=True):
        kept = fresh[first_segment : first_segment + table.segments]
        if kept.all():
            pieces.append(PieceOfTable(table, first_row))
        elif kept.any():
            rows = np.flatnonzero(np.repeat(kept, table.segment_rows))
            pieces.append(PieceOfTable(table, first_row, rows))
        duplicate = _sum(table.segment_readings[~kept])
        ledger.append(((table.tenant, hour), LedgerCounts(accepted=accepted, duplicate=duplicate)))
        first_row += table.rows
        first_segment += table.segments
    return pieces, ledger


def _sum(counts: NDArray[np.uint32]) -> int:
    return int(counts[0]) if len(counts) == 1 else int(counts.sum(dtype=np.int64))
