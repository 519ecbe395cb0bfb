"""Aggregating: partial results per (device, bucket) that can be merged, so that blocks are gone through once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from tidewire_storage.domain.collapse import Collapsed


class Function(Enum):
    """What can be asked of the readings of a bucket."""

    COUNT = "count"
    MIN = "min"
    MAX = "max"
    AVG = "avg"
    SUM = "sum"
    FIRST = "first"
    LAST = "last"
    STDDEV = "stddev"
    P50 = "p50"
    P95 = "p95"
    P99 = "p99"

    @property
    def percentile(self) -> float | None:
        """0 to 100; None: not a percentile, and `Partials` tell it."""
        return float(self.value[1:]) if self.value[:1] == "p" else None


@dataclass(slots=True)
class Partials:
    """Per (device, bucket): everything that any function needs. All arrays (n,), by device, bucket, first time."""

    device: NDArray[np.int32]
    """Number of the device, or of the group of devices."""
    bucket: NDArray[np.int64]
    """Start of the bucket in µs."""
    count: NDArray[np.int64]
    total: NDArray[np.float64]
    least: NDArray[np.float64]
    greatest: NDArray[np.float64]
    first_us: NDArray[np.int64]
    first: NDArray[np.float64]
    last_us: NDArray[np.int64]
    last: NDArray[np.float64]
    squares: NDArray[np.float64]
    """Sum of the squared distances from the mean."""

    def __len__(self) -> int:
        """Number of (device, bucket)s."""
        return len(self.device)

    def where(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> "Partials":
        """The rows that a mask or numbers choose."""
        return Partials(*(getattr(self, name)[rows] for name in Partials.__slots__))

    def column(self, function: Function) -> NDArray[np.float64]:
        """(n,): the values of a function that is not a percentile."""
        match function:
            case Function.COUNT:
                return self.count.astype(np.float64)
            case Function.MIN:
                return self.least
            case Function.MAX:
                return self.greatest
            case Function.SUM:
                return self.total
            case Function.AVG:
                return self.total / self.count
            case Function.FIRST:
                return self.first
            case Function.LAST:
                return self.last
            case Function.STDDEV:
                return np.sqrt(self.squares / self.count)
            case _:
                raise ValueError(f"{function} cannot be told from partial results")

    def grouped(self, group_of: NDArray[np.int32]) -> "Partials":
        """The same of groups; `group_of` (devices,) is the group of each device number."""
        return merge_partials([replace(self, device=group_of[self.device])])


def partials_of(rows: Collapsed, metric: int, width_us: int | None, origin_us: int) -> Partials:
    """Partial results of one metric. `width_us` None: one bucket, which is said to start at `origin_us`."""
    values = rows.values[metric]
    there = ~np.isnan(values)
    if there.all():
        return _partials(values, rows.time, _Runs.of(rows.device, rows.time, width_us, origin_us))
    return _partials_where(there, rows, metric, width_us, origin_us)


def partials_of_all(rows: Collapsed, width_us: int | None, origin_us: int) -> list[Partials]:
    """The same of each metric; what is alike for metrics without missing readings is found once."""
    runs: _Runs | None = None
    made = []
    for metric, values in enumerate(rows.values):
        there = ~np.isnan(values)
        if there.all():
            runs = runs or _Runs.of(rows.device, rows.time, width_us, origin_us)
            made.append(_partials(values, rows.time, runs))
        else:
            made.append(_partials_where(there, rows, metric, width_us, origin_us))
    return made


@dataclass(slots=True)
class _Runs:
    """Rows of one device and bucket, which lie side by side."""

    device: NDArray[np.int32]
    bucket: NDArray[np.int64]
    starts: NDArray[np.intp]
    count: NDArray[np.intp]

    @classmethod
    def of(
        cls, device: NDArray[np.int32], time: NDArray[np.int64], width_us: int | None, origin_us: int
    ) -> "_Runs":
        begins = np.ones(len(time), np.bool_)
        np.not_equal(device[1:], device[:-1], out=begins[1:])
        number: NDArray[np.int64] | None = None
        if width_us is not None:
            number = time // width_us
            begins[1:] |= number[1:] != number[:-1]
        starts = np.flatnonzero(begins)
        if number is None or width_us is None:
            bucket = np.full(len(starts), origin_us)
        else:
            bucket = number[starts] * width_us
        return cls(device[starts], bucket, starts, np.diff(starts, append=len(time)))


def _partials_where(
    there: NDArray[np.bool_], rows: Collapsed, metric: int, width_us: int | None, origin_us: int
) -> Partials:
    device, time = rows.device[there], rows.time[there]
    return _partials(rows.values[metric][there], time, _Runs.of(device, time, width_us, origin_us))


def _partials(values: NDArray[np.float64], time: NDArray[np.int64], runs: _Runs) -> Partials:
    if not len(values):
        nothing = np.empty(0, np.int64)
        none = np.empty(0)
        return Partials(runs.device, nothing, nothing, none, none, none, nothing, none, nothing, none, none)
    starts = runs.starts
    ends = starts + runs.count - 1
    total = np.add.reduceat(values, starts)
    distance = values - np.repeat(total / runs.count, runs.count)
    distance *= distance
    return Partials(
        runs.device,
        runs.bucket,
        runs.count,
        total,
        np.minimum.reduceat(values, starts),
        np.maximum.reduceat(values, starts),
        time[starts],
        values[starts],
        time[ends],
        values[ends],
        np.add.reduceat(distance, starts),
    )


def merge_partials(parts: Sequence[Partials]) -> Partials:
    """Merges partial results of the same metric: each (device, bucket) once, in this order."""
    parts = [part for part in parts if len(part)] or parts[:1]
    if len(parts) == 1 and _in_order(parts[0]):
        return parts[0]

    def joined(name: str) -> NDArray[np.float64]:
        return np.concatenate([getattr(part, name) for part in parts])

    device = np.concatenate([part.device for part in parts])
    bucket = np.concatenate([part.bucket for part in parts])
    first_us = np.concatenate([part.first_us for part in parts])
    last_us = np.concatenate([part.last_us for part in parts])
    count = np.concatenate([part.count for part in parts])
    order = np.lexsort((first_us, bucket, device))
    by_last = np.lexsort((last_us, bucket, device))
    sorted_device, sorted_bucket = device[order], bucket[order]
    begins = np.append(
        True, (sorted_device[1:] != sorted_device[:-1]) | (sorted_bucket[1:] != sorted_bucket[:-1])
    )
    starts = np.flatnonzero(begins)
    ends = np.append(starts[1:], len(device)) - 1
    part_count, total = count[order], joined("total")[order]
    counts = np.add.reduceat(part_count, starts)
    totals = np.add.reduceat(total, starts)
    apart = total / part_count - np.repeat(totals / counts, ends - starts + 1)
    squares = np.add.reduceat(joined("squares")[order] + part_count * apart * apart, starts)
    return Partials(
        sorted_device[starts],
        sorted_bucket[starts],
        counts,
        totals,
        np.minimum.reduceat(joined("least")[order], starts),
        np.maximum.reduceat(joined("greatest")[order], starts),
        first_us[order][starts],
        joined("first")[order][starts],
        last_us[by_last][ends],
        joined("last")[by_last][ends],
        squares,
    )


def _in_order(part: Partials) -> bool:
    device, bucket = part.device, part.bucket
    rising = (device[1:] > device[:-1]) | ((device[1:] == device[:-1]) & (bucket[1:] > bucket[:-1]))
    return bool(rising.all())
