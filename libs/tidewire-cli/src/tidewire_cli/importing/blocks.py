"""Reads a planned file as blocks of columns, and says by line what could not be read.

A block is first converted whole by Arrow; only a block in which a cell does not convert is looked at again cell by
cell, so that one broken line costs its block some milliseconds and no other reading anything.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tidewire_cli.importing.convert import Converted, convert
from tidewire_cli.importing.csv_source import TextBlock, text_blocks
from tidewire_cli.importing.moments import MISSING
from tidewire_cli.importing.names import is_device, to_device
from tidewire_cli.importing.plan import ImportPlan
from tidewire_cli.importing.propose import NULLS
from tidewire_client import InvalidArgument
from tidewire_client.answers import SeriesColumns

PARQUET_ROWS = 131_072
_NULLS = sorted({spelled for null in NULLS for spelled in (null, null.upper(), null.title(), "NaN", "N/A")})


@dataclass(frozen=True, slots=True)
class Position:
    """Where a block ends, for a later run: byte offset and line (CSV), or row (Parquet)."""

    offset: int = 0
    line: int = 0


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A cell or row of the file that gave no reading: its line (row in Parquet), from 1, and why."""

    line: int
    why: str


@dataclass(frozen=True, slots=True)
class Block:
    """Readings of some rows of the file, in its order.

    Attributes:
        number: of the block, from its position in the file; the same at every run.
        lines: line of each row in the file, int64 (rows,).
        devices: device ids.
        device_index: row → `devices`, uint32 (rows,); None: all rows are the first device's.
        time_unix_us: int64 (rows,).
        metrics: names of the columns.
        values: float64 (metrics, rows), NaN where there is no reading; no row without any.
        unreadable: what was left out, the first hundred.
        unreadable_count: all that was left out.
        end: where the next block begins.
    """

    number: int
    lines: NDArray[np.int64]
    devices: tuple[str, ...]
    device_index: NDArray[np.uint32] | None
    time_unix_us: NDArray[np.int64]
    metrics: tuple[str, ...]
    values: NDArray[np.float64]
    unreadable: tuple[Unreadable, ...]
    unreadable_count: int
    end: Position

    @property
    def rows(self) -> int:
        """Rows with at least one reading."""
        return len(self.time_unix_us)


@dataclass(slots=True)
class _Complaints:
    """Collects what could not be read, the first hundred in words."""

    found: list[Unreadable] = field(default_factory=list)
    count: int = 0

    def add(self, line: int, why: str) -> None:
        self.count += 1
        if len(self.found) < 100:
            self.found.append(Unreadable(line, why))


def read_blocks(plan: ImportPlan, start: Position | None = None) -> Iterator[Block]:
    """The file's readings from a block's end (or the beginning), with the plan's shift.

    Raises InvalidArgument for a file that is not what its beginning looked like.
    """
    start = start or Position()
    if plan.format == "parquet":
        yield from _parquet_blocks(plan, start)
        return
    for text in text_blocks(plan.path, plan.dialect, start.offset, start.line):
        table, lines, broken = _parse(plan, text)
        complaints = _Complaints()
        for line, why in broken:
            complaints.add(line, why)
        end = Position(text.next_offset, text.next_line)
        yield _block(plan, text.first_line, table, lines, complaints, end)


def _needed(plan: ImportPlan) -> list[int]:
    positions = [plan.time.position, *(column.position for column in plan.columns)]
    return positions if plan.device_position is None else [*positions, plan.device_position]


def _parse(
    plan: ImportPlan, text: TextBlock
) -> tuple[dict[int, pa.ChunkedArray], NDArray[np.int64], list[tuple[int, str]]]:
    """(position → column, line of each row, lines with the wrong number of fields) of a block of text."""
    names = [str(position) for position in range(len(plan.headings))]
    types: dict[str, pa.DataType] = {str(column.position): pa.float64() for column in plan.columns}
    types |= {str(column.position): pa.string() for column in plan.columns if column.boolean}
    if plan.device_position is not None:
        types[str(plan.device_position)] = pa.string()
    match plan.time.kind:
        case "zoned":
            types[str(plan.time.position)] = pa.timestamp("ns", tz="UTC")
        case "epoch":
            types[str(plan.time.position)] = pa.float64() if plan.time.unit_us > 1 else pa.int64()
        case _:
            types[str(plan.time.position)] = pa.timestamp("ns")
    formats = [plan.time.format] if plan.time.kind == "format" else [pacsv.ISO8601]
    broken: list[tuple[int, int, int]] = []

    def note(row: pacsv.InvalidRow) -> str:
        broken.append((row.number, row.expected_columns, row.actual_columns))
        return "skip"

    def read(as_types: dict[str, pa.DataType]) -> pa.Table:
        broken.clear()
        return pacsv.read_csv(
            pa.BufferReader(text.data),
            pacsv.ReadOptions(column_names=names, use_threads=False, block_size=len(text.data) + 1),
            pacsv.ParseOptions(
                delimiter=plan.dialect.delimiter,
                newlines_in_values=b'"' in text.data,
                ignore_empty_lines=False,
                invalid_row_handler=note,
            ),
            pacsv.ConvertOptions(
                include_columns=[str(position) for position in _needed(plan)],
                column_types=as_types,
                null_values=_NULLS,
                strings_can_be_null=True,
                timestamp_parsers=formats,
                decimal_point=plan.dialect.decimal_point,
                check_utf8=False,
            ),
        )

    try:
        table = read(types)
    except pa.ArrowInvalid:
        table = read(dict.fromkeys(types, pa.string()))
    columns = {position: table.column(str(position)) for position in _needed(plan)}
    count = text.next_line - text.first_line
    if table.num_rows + len(broken) == count:
        lines = np.arange(text.first_line, text.next_line)
        if broken:
            keep = np.ones(count, bool)
            keep[[number - 1 for number, _, _ in broken]] = False
            lines = lines[keep]
        where = [text.first_line + number - 1 for number, _, _ in broken]
    else:  # quoted line ends: count the slow way
        reader = csv.reader(
            io.StringIO(text.data.decode("utf-8", "replace")), delimiter=plan.dialect.delimiter
        )
        ends = [reader.line_num for _ in reader]
        starts = np.array([1, *(end + 1 for end in ends[:-1])], np.int64) + text.first_line - 1
        where = [int(starts[min(number, len(starts)) - 1]) for number, _, _ in broken]
        keep = np.ones(len(starts), bool)
        keep[[min(number, len(starts)) - 1 for number, _, _ in broken]] = False
        lines = np.resize(starts[keep], table.num_rows)
    wrong = [
        (line, f"has {actual} field{'' if actual == 1 else 's'} instead of {expected}")
        for line, (_, expected, actual) in zip(where, broken, strict=True)
    ]
    return columns, lines, wrong


def _parquet_blocks(plan: ImportPlan, start: Position) -> Iterator[Block]:
    names = {position: plan.headings[position] for position in _needed(plan)}
    row = 0
    with pq.ParquetFile(plan.path) as file:
        for group in range(file.num_row_groups):
            group_rows = file.metadata.row_group(group).num_rows
            if row + group_rows <= start.offset:
                row += group_rows
                continue
            for batch in file.iter_batches(
                batch_size=PARQUET_ROWS, row_groups=[group], columns=list(names.values())
            ):
                first, row = row, row + batch.num_rows
                if row <= start.offset:
                    continue
                columns = {
                    position: pa.chunked_array([batch.column(name)]) for position, name in names.items()
                }
                lines = np.arange(first + 1, row + 1)
                yield _block(plan, first + 1, columns, lines, _Complaints(), Position(row, row))


def _block(
    plan: ImportPlan,
    number: int,
    columns: dict[int, pa.ChunkedArray],
    lines: NDArray[np.int64],
    complaints: _Complaints,
    end: Position,
) -> Block:
    read: Converted = convert(plan, columns, lines, complaints.add)
    keep = read.time_unix_us != MISSING
    keep &= ~np.isnan(read.values).all(axis=0)
    devices: tuple[str, ...] = (plan.device,)
    index: NDArray[np.uint32] | None = None
    if plan.device_position is not None:
        devices, index, known = _devices(columns[plan.device_position], lines, keep, complaints)
        keep &= known
    if not keep.all():
        lines, values, times = lines[keep], read.values[:, keep], read.time_unix_us[keep]
        index = None if index is None else index[keep]
    else:
        values, times = read.values, read.time_unix_us
    return Block(
        number,
        lines,
        devices,
        index,
        times + plan.shift_us,
        plan.metrics,
        values,
        tuple(complaints.found),
        complaints.count,
        end,
    )


def _devices(
    column: pa.ChunkedArray, lines: NDArray[np.int64], keep: NDArray[np.bool_], complaints: _Complaints
) -> tuple[tuple[str, ...], NDArray[np.uint32], NDArray[np.bool_]]:
    """(device ids, row → id, rows that have one) of the column that names devices."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    coded = column.cast(pa.string()).dictionary_encode().combine_chunks()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.chunk(0) if coded.num_chunks else pa.array([], pa.string()).dictionary_encode()
    written = coded.dictionary.to_pylist()
    ids = [text if is_device(text) else to_device(text) for text in written]
    by_id: dict[str, str] = {}
    for text, device in zip(written, ids, strict=True):
        if device and by_id.setdefault(device, text) != text:
            raise InvalidArgument(
                f"'{by_id[device]}' and '{text}' would both become the device {device}; rename one in the file",
                field="device_column",
            )
    index = pc.fill_null(coded.indices, len(ids)).to_numpy(zero_copy_only=False).astype(np.uint32)
    good = np.array([bool(device) for device in [*ids, ""]])
    known: NDArray[np.bool_] = good[index]
    for row in np.flatnonzero(keep & ~known).tolist():
        complaints.add(int(lines[row]), "no device")
    return tuple(device or "-" for device in ids), index, known


def last_time_us(plan: ImportPlan) -> int:
    """The greatest time in the file, unshifted. Reads all of it. Raises InvalidArgument when it has no reading."""
    last = MISSING
    for block in read_blocks(plan):
        if block.rows:
            last = max(last, int(block.time_unix_us.max()) - plan.shift_us)
    if last == MISSING:
        raise InvalidArgument(f"{plan.path} has no readings", field="file")
    return last


def load(plan: ImportPlan) -> SeriesColumns:
    """All of a small file of one device as columns, in the order of time, the last of equal times kept."""
    if plan.device_position is not None:
        raise InvalidArgument("load() takes files of one device", field="device_column")
    blocks = [block for block in read_blocks(plan) if block.rows]
    if not blocks:
        return SeriesColumns(
            plan.device, plan.metrics, np.empty(0, np.int64), np.empty((len(plan.metrics), 0))
        )
    times = np.concatenate([block.time_unix_us for block in blocks])
    values = np.concatenate([block.values for block in blocks], axis=1)
    order = np.argsort(times, kind="stable")
    times, values = times[order], values[:, order]
    newest = np.append(times[1:] != times[:-1], True)
    return SeriesColumns(plan.device, plan.metrics, times[newest], values[:, newest])
