"""A day's readings of each device, by place instead of by order: what a report adds up without sorting anything.

Filled by `application.daily`, a cell for each (day, device) of one metric; a cell that is filled again holds what came
last. Added up to `Tallies` of periods.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tidewire_storage.domain.aggregates import Partials
from tidewire_storage.domain.periods import DAY_US, Periods
from tidewire_storage.domain.report import Tallies, joined
from tidewire_storage.domain.rollups import STATISTICS

_EMPTY = {"least": np.inf, "greatest": -np.inf}


class DayGrid:
    """Cells of `days` days from `start_us` on and `devices` devices; 72 bytes each."""

    __slots__ = ("_cells", "_days", "_devices", "_start_us")

    def __init__(self, devices: int, start_us: int, days: int) -> None:
        self._devices = devices
        self._start_us = start_us
        self._days = days
        self._cells = {name: np.full(days * devices, _EMPTY.get(name, 0.0)) for name in STATISTICS}

    def put(
        self, device: NDArray[np.intp], bucket: NDArray[np.int64], columns: Mapping[str, NDArray[np.float64]]
    ) -> None:
        """Fills cells of days in the grid.

        Rows as rollups have them: all arrays (rows,), each (device, bucket) once; times from the start of the day;
        where `count` is NaN there is nothing.
        """
        there = ~np.isnan(columns["count"])
        cell = (bucket - self._start_us) // DAY_US * self._devices + device
        everything = bool(there.all())
        if not everything:
            cell = cell[there]
        for name, cells in self._cells.items():
            cells[cell] = columns[name] if everything else columns[name][there]

    def put_partials(self, part: Partials) -> None:
        """Fills cells; buckets are days."""
        columns = {name: getattr(part, name) for name in STATISTICS}
        columns["first_us"] = part.first_us - part.bucket
        columns["last_us"] = part.last_us - part.bucket
        self.put(part.device.astype(np.intp), part.bucket, {name: columns[name] * 1.0 for name in columns})

    def tallies(self, periods: Periods) -> Tallies:
        """What each device's days come to in each period, without those that have no readings."""
        days = self._start_us + np.arange(self._days) * DAY_US
        starts = periods.starts(days)
        bits = np.left_shift(np.int64(1), periods.offset(days))
        cells = {name: column.reshape(self._days, self._devices) for name, column in self._cells.items()}
        found = []
        for start_us in np.unique(starts).tolist():
            span = slice(*np.searchsorted(starts, [start_us, start_us + 1]).tolist())
            of_period = {name: column[span] for name, column in cells.items()}
            found.append(_tallies(of_period, days[span], bits[span], start_us))
        return joined([tallies for tallies in found if len(tallies)])


def _tallies(
    cells: Mapping[str, NDArray[np.float64]], days: NDArray[np.int64], bits: NDArray[np.int64], start_us: int
) -> Tallies:
    """Of one period; cells (days, devices)."""
    count = cells["count"]
    there = count > 0
    device = np.flatnonzero(there.any(axis=0))
    if len(device) < count.shape[1]:
        cells = {name: column[:, device] for name, column in cells.items()}
        count, there = cells["count"], there[:, device]
    counts = count.sum(axis=0)
    totals = cells["total"].sum(axis=0)
    # The squares about the whole's mean: those about each day's, and the days' distances (Chan, Golub and LeVeque).
    apart = np.zeros(count.shape)
    np.divide(cells["total"], count, out=apart, where=there)
    np.subtract(apart, totals / counts, out=apart, where=there)
    squares = (cells["squares"] + count * apart * apart).sum(axis=0)
    column = np.arange(len(device))
    first = there.argmax(axis=0)
    last = len(days) - 1 - there[::-1].argmax(axis=0)
    active = there.sum(axis=0)
    ones = np.ones(len(device), np.int64)
    partials = Partials(
        device.astype(np.int32),
        np.full(len(device), start_us),
        counts.astype(np.int64),
        totals,
        cells["least"].min(axis=0),
        cells["greatest"].max(axis=0),
        days[first] + cells["first_us"][first, column].astype(np.int64),
        cells["first"][first, column],
        days[last] + cells["last_us"][last, column].astype(np.int64),
        cells["last"][last, column],
        squares,
    )
    days_bits = np.bitwise_or.reduce(np.where(there, bits[:, None], 0), axis=0)
    return Tallies(partials, days_bits, ones, active)
