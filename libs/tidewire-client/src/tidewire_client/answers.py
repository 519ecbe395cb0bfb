"""What queries answer: newest values, series, readings as NumPy columns, aggregates. Made by the clients of `query`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewire.type.v1 import columns_pb2


@dataclass(frozen=True, slots=True)
class Latest:
    """Newest value of one metric of one device."""

    device: str
    metric: str
    time_unix_us: int
    value: float


@dataclass(frozen=True, slots=True)
class Series:
    """One metric of one device, and the times of its oldest and newest readings."""

    device: str
    metric: str
    first_time_unix_us: int
    last_time_unix_us: int


@dataclass(frozen=True, slots=True)
class SeriesColumns:
    """Readings of one device, in the order of time.

    Attributes:
        device: device id.
        metrics: names of the columns.
        time_unix_us: int64 (rows,), strictly rising.
        values: float64 (metrics, rows); NaN: no reading in that cell.
    """

    device: str
    metrics: tuple[str, ...]
    time_unix_us: NDArray[np.int64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.time_unix_us)

    def __getitem__(self, metric: str) -> NDArray[np.float64]:
        """The column of a metric. Raises KeyError when there is no reading of it, or none yet."""
        try:
            column: NDArray[np.float64] = self.values[self.metrics.index(metric)]
        except ValueError:
            raise KeyError(f"no readings of {metric} of {self.device} in this time") from None
        return column

    @property
    def times(self) -> NDArray[np.datetime64]:
        """Times as `datetime64[us]`, UTC."""
        return self.time_unix_us.view("datetime64[us]")

    @property
    def readings(self) -> int:
        """Cells that are not NaN."""
        return self.values.size - int(np.isnan(self.values).sum())


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Buckets of one metric of one device, or of several devices together (`device` is "").

    Attributes:
        group: value of the label that groups; "": of devices without it, or not grouped.
        tier: what it was read from: `raw`, `cold`, `rollup_1m`, `rollup_1h` or `rollup_1d`; "" of older servers.
        bucket_start_unix_us: int64 (buckets,), rising; only buckets that have readings.
        columns: function → float64 (buckets,).
    """

    device: str
    metric: str
    bucket_start_unix_us: NDArray[np.int64]
    columns: Mapping[str, NDArray[np.float64]]
    group: str = ""
    tier: str = ""


def join_columns(device: str, parts: Sequence[SeriesColumns]) -> SeriesColumns:
    """Puts parts that follow one another in time together; a metric that a part lacks is NaN there."""
    metrics = tuple(dict.fromkeys(metric for part in parts for metric in part.metrics))
    rows = sum(map(len, parts))
    values = np.full((len(metrics), rows), np.nan)
    place = {metric: number for number, metric in enumerate(metrics)}
    start = 0
    for part in parts:
        stop = start + len(part)
        if part.metrics == metrics:
            values[:, start:stop] = part.values
        else:
            values[[place[metric] for metric in part.metrics], start:stop] = part.values
        start = stop
    times = np.concatenate([part.time_unix_us for part in parts]) if parts else np.empty(0, np.int64)
    return SeriesColumns(device, metrics, times, values)


def columns_of(device: str, message: columns_pb2.SeriesColumns) -> SeriesColumns:
    """Columns as the API sends them."""
    times = np.array(message.time_unix_us, np.int64)
    values = np.array(message.values, np.float64).reshape(len(message.metrics), len(times))
    return SeriesColumns(device, tuple(message.metrics), times, values)
