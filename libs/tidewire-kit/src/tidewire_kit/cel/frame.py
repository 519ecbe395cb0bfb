"""Rows that conditions are asked of, and the memory that answers are worked out in.

A frame is made once for each table of a record and shared by all its conditions, so that what several of them need
(where a metric is missing, its least and greatest value) is worked out once.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.cel.facts import Asked, FactTable
from tidewire_kit.cel.nodes import TIME_COLUMN, Column, Type

type Bools = NDArray[np.bool_]
type Doubles = NDArray[np.float64]

NO_FACTS: Final = FactTable(lambda _: None)


class Scratch:
    """Arrays that are used again for each condition. Not for two threads at once."""

    __slots__ = ("_bools", "_bools_taken", "_doubles", "_doubles_taken")

    def __init__(self) -> None:
        self._bools: list[Bools] = []
        self._doubles: list[Doubles] = []
        self._bools_taken = self._doubles_taken = 0

    def reset(self) -> None:
        """Takes all arrays back: what they hold is over."""
        self._bools_taken = self._doubles_taken = 0

    def bools(self, rows: int) -> Bools:
        """An array of `rows` truth values, not initialised."""
        taken, self._bools_taken = self._bools_taken, self._bools_taken + 1
        if taken == len(self._bools):
            self._bools.append(np.empty(rows, np.bool_))
        elif len(self._bools[taken]) < rows:
            self._bools[taken] = np.empty(rows, np.bool_)
        return self._bools[taken][:rows]

    def doubles(self, rows: int) -> Doubles:
        """An array of `rows` doubles, not initialised."""
        taken, self._doubles_taken = self._doubles_taken, self._doubles_taken + 1
        if taken == len(self._doubles):
            self._doubles.append(np.empty(rows, np.float64))
        elif len(self._doubles[taken]) < rows:
            self._doubles[taken] = np.empty(rows, np.float64)
        return self._doubles[taken][:rows]


class Frame:
    """`rows` rows: columns by name (metrics, and windows by `WindowCall.column`), their times and their devices.

    columns: float64 (rows,), NaN where a row has no value; a column that is absent has none in any row.
    time_us: int64 (rows,), event time in unix µs. slots: integer (rows,), not negative: each row's device in `facts`.
    The arrays are not copied and must not change while the frame is in use.
    """

    __slots__ = ("_known", "_missing", "_nowhere", "columns", "facts", "rows", "scratch", "slots", "time_us")

    def __init__(
        self,
        rows: int,
        columns: Mapping[str, Doubles],
        *,
        time_us: NDArray[np.int64] | None = None,
        slots: NDArray[np.integer] | None = None,
        facts: FactTable = NO_FACTS,
        scratch: Scratch | None = None,
    ) -> None:
        self.rows = rows
        self.columns = columns
        self.time_us = time_us
        self.slots: NDArray[np.intp] | None = None if slots is None else slots.astype(np.intp, copy=False)
        self.facts = facts
        self.scratch = scratch or Scratch()
        self._known: dict[str, tuple[Doubles, Bools | None, float, float]] = {}
        self._nowhere: Bools | None = None

    def column(self, node: Column) -> tuple[Doubles, Bools | None]:
        """A column's values, and which rows have none (None: all have one)."""
        return self._looked_at(node.name)[:2]

    def missing(self, name: str) -> Bools | None:
        """Which rows have no value of a column; None: all have one."""
        return self._looked_at(name)[1]

    def bounds(self, name: str) -> tuple[float, float]:
        """The least and the greatest value in a column; NaN when it has none."""
        return self._looked_at(name)[2:]

    def of_device(self, asked: Asked) -> tuple[Bools | Doubles, Bools | None]:
        """What is asked of each row's device, and which rows have no answer."""
        rows, scratch = self.rows, self.scratch
        values = scratch.bools(rows) if asked.node.type is Type.BOOL else scratch.doubles(rows)
        if self.slots is None:
            values.fill(0)
            return values, self.everywhere()
        return values, self.facts.by_row(asked, self.slots, values, lambda: scratch.bools(rows))

    def everywhere(self) -> Bools:
        """True in each row; not to be written to."""
        if self._nowhere is None:
            self._nowhere = np.ones(self.rows, np.bool_)
        return self._nowhere

    def _looked_at(self, name: str) -> tuple[Doubles, Bools | None, float, float]:
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = self._look_at(name)
        return known

    def _look_at(self, name: str) -> tuple[Doubles, Bools | None, float, float]:
        values = self.columns.get(name)
        if name == TIME_COLUMN and self.time_us is not None:
            values = self.time_us.astype(np.float64)  # exact until the year 2255
        if values is None:
            return np.full(self.rows, np.nan), self.everywhere(), np.nan, np.nan
        if not self.rows:
            return values, None, np.nan, np.nan
        low = float(values.min())
        if low == low:
            return values, None, low, float(values.max())
        missing = np.isnan(values)
        return values, missing, float(np.fmin.reduce(values)), float(np.fmax.reduce(values))
