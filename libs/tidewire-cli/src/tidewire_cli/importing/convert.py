"""Arrow columns to the two arrays that telemetry is made of: times and values.

Takes columns that Arrow has converted, and columns that are still text because a cell of the block would not convert;
the latter are read as far as they can be, and each cell that cannot is reported with its line.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidewire_cli.importing.moments import MISSING, explain_missing, localize, micros, parse_slowly
from tidewire_cli.importing.plan import ColumnPlan, ImportPlan, TimePlan
from tidewire_cli.importing.propose import BOOLEANS

type Complain = Callable[[int, str], None]
"""Takes the line and what is wrong with it."""

_NUMBER = r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$"


@dataclass(frozen=True, slots=True)
class Converted:
    """`time_unix_us` int64 (rows,), MISSING where unreadable; `values` float64 (metrics, rows), NaN where so."""

    time_unix_us: NDArray[np.int64]
    values: NDArray[np.float64]


def convert(
    plan: ImportPlan, columns: dict[int, pa.ChunkedArray], lines: NDArray[np.int64], complain: Complain
) -> Converted:
    """Converts a block's columns; rows keep their places."""
    rows = len(lines)
    values = np.empty((len(plan.columns), rows))
    for number, column in enumerate(plan.columns):
        values[number] = _values(column, columns[column.position], plan, lines, complain)
    infinite = np.isinf(values)
    if infinite.any():
        for number, row in np.argwhere(infinite).tolist():
            complain(int(lines[row]), f"'{plan.columns[number].heading}' is infinite")
        values[infinite] = np.nan
    times = _times(plan.time, columns[plan.time.position])
    missing = times == MISSING
    if missing.any():
        empty = np.isnan(values).all(axis=0)
        cells = columns[plan.time.position]
        for row in np.flatnonzero(missing).tolist():
            cell = cells[row].as_py()
            if cell is not None or not empty[row]:  # a line with nothing on it is no complaint
                complain(int(lines[row]), explain_missing(None if cell is None else _text(cell), plan.time))
    return Converted(times, values)


def _text(cell: object) -> str:
    return cell if isinstance(cell, str) else str(cell).removesuffix("+00:00")


def _values(
    column: ColumnPlan,
    cells: pa.ChunkedArray,
    plan: ImportPlan,
    lines: NDArray[np.int64],
    complain: Complain,
) -> NDArray[np.float64]:
    if pa.types.is_boolean(cells.type):
        cells = cells.cast(pa.int8())
    if not (pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type)):
        numbers: NDArray[np.float64] = cells.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return numbers
    text = pc.utf8_trim_whitespace(cells)
    if plan.dialect.decimal_point == ",":
        text = pc.replace_substring(text, ",", ".")
    if column.boolean:
        lower = pc.utf8_lower(text)
        for word, value in BOOLEANS.items():
            lower = pc.if_else(pc.equal(lower, word), "1" if value else "0", lower)
        text = lower
    good = pc.match_substring_regex(text, _NUMBER)
    read: NDArray[np.float64] = pc.if_else(good, text, None).cast(pa.float64()).to_numpy(zero_copy_only=False)
    bad = pc.fill_null(pc.invert(good), False).to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(bad).tolist():
        complain(int(lines[row]), f"'{column.heading}' is '{cells[row].as_py()[:40]}', not a number")
    return read


def _times(plan: TimePlan, cells: pa.ChunkedArray) -> NDArray[np.int64]:
    kind = cells.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return parse_slowly(cells.to_pylist(), plan)
    if pa.types.is_date(kind):
        cells = cells.cast(pa.timestamp("us"))
    if pa.types.is_timestamp(cells.type):
        times = micros(cells)
        return times if cells.type.tz else localize(times, plan.timezone, plan.ambiguous)
    if pa.types.is_floating(kind):
        numbers = cells.to_numpy(zero_copy_only=False) * plan.unit_us
        missing = ~np.isfinite(numbers) | (np.abs(numbers) > 9e18)
        return np.where(missing, MISSING, np.round(np.where(missing, 0.0, numbers)).astype(np.int64))
    whole: NDArray[np.int64] = pc.fill_null(cells.cast(pa.int64()), MISSING).to_numpy(zero_copy_only=False)
    here = whole != MISSING
    scaled = whole // round(1 / plan.unit_us) if plan.unit_us < 1 else whole * round(plan.unit_us)
    return np.where(here, scaled, MISSING)
