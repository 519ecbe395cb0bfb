"""Rows in memory: a table sorted by device and time, which is what blocks hold and queries read.

Pure NumPy. Used by ingest (gathered pieces → sorted table), by the block format, and by the queries.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.owner import PieceOfTable

ROW_BITS = 20
"""Arrival order of a row: offset of its record « 20 | its row in the record (a record has fewer than 2^20 rows)."""

_FOLD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(slots=True)
class SortedTable:
    """Rows of one metric set, by device, then event time, then arrival; a device's rows are one run.

    Nobody changes the arrays once the table is made.
    """

    metrics: tuple[str, ...]
    device_uids: NDArray[np.uint8]
    """(devices, 16), each once, in no meaningful order."""
    row_counts: NDArray[np.uint32]
    """(devices,): rows of each device, none 0; their sum is the number of rows."""
    time_unix_us: NDArray[np.int64]
    """(rows,): not falling within a device."""
    values: list[NDArray[np.float64]]
    """Per metric (rows,); NaN: no reading in that cell."""
    arrival: NDArray[np.int64] | None = None
    """(rows,): arrival order, kept only where another table of the block has a metric in common; otherwise that of all
    rows is the block's first offset « 20, and equal times of a device are in order of arrival."""

    _readings: int = field(default=-1, init=False, repr=False, compare=False)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.time_unix_us)

    def readings(self) -> int:
        """Cells that are not NaN; counted once."""
        if self._readings < 0:
            self._readings = sum(
                len(column) - int(np.count_nonzero(np.isnan(column))) for column in self.values
            )
        return self._readings

    def run_starts(self) -> NDArray[np.int64]:
        """(devices,): first row of each device."""
        ends = np.cumsum(self.row_counts, dtype=np.int64)
        return ends - self.row_counts

    def keep_devices(self, keep: NDArray[np.bool_]) -> "SortedTable":
        """The table without the devices where `keep` (devices,) is false."""
        rows = np.repeat(keep, self.row_counts)
        return SortedTable(
            self.metrics,
            self.device_uids[keep],
            self.row_counts[keep],
            self.time_unix_us[rows],
            [column[rows] for column in self.values],
            None if self.arrival is None else self.arrival[rows],
        )


def joined_tables(tables: Sequence[SortedTable]) -> list[SortedTable]:
    """Tables whose devices differ, without an arrival column: those of one metric set as one."""
    by_set: dict[tuple[str, ...], list[SortedTable]] = {}
    for table in tables:
        by_set.setdefault(table.metrics, []).append(table)
    return [
        some[0]
        if len(some) == 1
        else SortedTable(
            metrics,
            np.concatenate([table.device_uids for table in some]),
            np.concatenate([table.row_counts for table in some]),
            np.concatenate([table.time_unix_us for table in some]),
            [np.concatenate(columns) for columns in zip(*(table.values for table in some), strict=True)],
        )
        for metrics, some in by_set.items()
    ]


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a table as gathered, with the offset of its record."""

    offset: int
    piece: PieceOfTable


def sort_pieces(
    metrics: tuple[str, ...], pieces: Sequence[Piece], *, with_arrival: bool = False
) -> SortedTable:
    """Puts pieces of one tenant, partition and metric set together; pieces come in order of arrival, at least one.

    Copies every value twice and compares no reading with another: rows are bucketed by device, and usually arrive in
    order of time.
    """
    tables = [item.piece.table for item in pieces]
    uids = np.concatenate([table.device_uids for table in tables])
    device_uids, slot_of = unique_uids(uids)
    slot_of = slot_of.astype(np.uint16 if len(device_uids) <= 0xFFFF else np.uint32)  # 16 bits sort by radix
    times = np.concatenate([_picked(item, item.piece.table.time_unix_us) for item in pieces])
    slots = np.empty(len(times), slot_of.dtype)
    first_row = first_device = 0
    for item in pieces:
        table = item.piece.table
        index = _picked(item, table.device_index)
        slots[first_row : first_row + len(index)] = slot_of[
            first_device : first_device + len(table.device_uids)
        ][index]
        first_row += len(index)
        first_device += len(table.device_uids)
    order, sorted_times = order_of(slots, times)
    counts = np.bincount(slots, minlength=len(device_uids)).astype(np.uint32)
    present = counts > 0
    if not present.all():  # devices named by a table but without rows of their own
        device_uids, counts = device_uids[present], counts[present]
    columns = []
    for number in range(len(metrics)):
        column = np.concatenate([_picked(item, item.piece.table.values[number]) for item in pieces])
        columns.append(column[order])
    arrival = _arrival(pieces)[order] if with_arrival else None
    return SortedTable(metrics, device_uids, counts, sorted_times, columns, arrival)


def order_of(slots: NDArray[Any], times: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Returns (the stable order by slot, then time; the times in it). `slots` are uint16 or uint32.

    A device's rows arrive in a few rising runs: once they lie together, merging runs is all that is left.
    """
    order = np.argsort(slots, kind="stable")  # by radix where slots have 16 bits
    slots, times = slots[order], times[order]
    if not ((times[1:] < times[:-1]) & (slots[1:] == slots[:-1])).any():
        return order, times
    least = int(times.min())
    bits = (int(times.max()) - least).bit_length()
    if bits + int(slots[-1]).bit_length() > 63:
        finer = np.lexsort((times, slots))
    else:
        keys = slots.astype(np.int64) << bits
        keys |= times - least
        finer = np.argsort(keys, kind="stable")
    return order[finer], times[finer]


def unique_uids(uids: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """Returns (each uid once (n, 16), index into them for each of `uids`)."""
    words = np.ascontiguousarray(uids).view("<u8")
    folded = words[:, 0] * _FOLD ^ words[:, 1]
    _, first, inverse = np.unique(folded, return_index=True, return_inverse=True)
    if not np.array_equal(words[first][inverse], words):  # two uids fold to one word: next to never
        unique, inverse = np.unique(words, axis=0, return_inverse=True)
        return unique.view(np.uint8).reshape(-1, 16), inverse.reshape(-1)
    return uids[first], inverse


def uid_list(uids: NDArray[np.uint8]) -> list[bytes]:
    """(n, 16) as bytes objects."""
    flat = uids.tobytes()
    return [flat[first : first + 16] for first in range(0, len(flat), 16)]


def not_among(uids: NDArray[np.uint8], dropped: Collection[bytes]) -> NDArray[np.bool_]:
    """bool (n,): which uids are not in `dropped`."""
    return np.array([uid not in dropped for uid in uid_list(uids)], np.bool_)


def _picked[T: np.generic](item: Piece, column: NDArray[T]) -> NDArray[T]:
    rows = item.piece.rows
    return column if rows is None else column[rows]


def _arrival(pieces: Sequence[Piece]) -> NDArray[np.int64]:
    parts = []
    for item in pieces:
        rows = item.piece.rows
        numbers = np.arange(item.piece.table.rows) if rows is None else rows
        parts.append((item.offset << ROW_BITS) + item.piece.first_row + numbers.astype(np.int64))
    return np.concatenate(parts)
