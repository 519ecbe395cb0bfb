"""Gathers readings into batches: rows one at a time and whole columns alike, until a batch is full or its time is up.

Filled by the publisher's `add` and `add_columns`, from any thread; emptied by its sender. It knows nothing of sending.
"""

import threading
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tidewire_client.encoding import Frame, row_bytes
from tidewire_client.errors import InvalidArgument

_TIME_LIMIT = 1 << 63


class Columns:
    """Checked columns of `add_columns`, with the right dtypes and shapes.

    Attributes: `devices` (ids), `device_index` uint32 (rows,) or None, `time_unix_us` int64 (rows,), `metrics`,
    `values` float64 (metrics, rows).
    """

    __slots__ = ("device_index", "devices", "metrics", "time_unix_us", "values")

    def __init__(
        self,
        devices: str | Sequence[str],
        time_unix_us: ArrayLike,
        metrics: Sequence[str],
        values: ArrayLike,
        device_index: ArrayLike | None = None,
    ) -> None:
        times = np.asarray(time_unix_us)
        if times.dtype.kind == "M":
            times = times.astype("datetime64[us]").astype(np.int64)
        if times.ndim == 0:
            times = times.reshape(1)
        if times.ndim != 1 or times.dtype.kind not in "iu":
            raise InvalidArgument(
                "time_unix_us must be one column of whole microseconds since 1970, or of datetime64",
                field="time_unix_us",
            )
        rows = len(times)
        table = np.asarray(values, dtype=np.float64)
        if table.ndim == 1 and len(metrics) == 1:
            table = table.reshape(1, -1)
        if table.shape != (len(metrics), rows):
            raise InvalidArgument(
                f"values have the shape {table.shape}; {len(metrics)} metrics of {rows} rows need "
                f"({len(metrics)}, {rows})",
                field="values",
            )
        self.metrics = tuple(metrics)
        if len(set(self.metrics)) != len(self.metrics):
            raise InvalidArgument("a metric is named twice", field="metrics")
        self.time_unix_us = times.astype(np.int64, copy=False)
        self.values = table
        self.devices, self.device_index = _devices(devices, device_index, rows)

    @property
    def rows(self) -> int:
        """Rows."""
        return len(self.time_unix_us)

    def slice(self, start: int, stop: int) -> Frame:
        """Rows from `start` up to `stop`, as a frame over the same `devices`; views, nothing is copied."""
        index = None if self.device_index is None else self.device_index[start:stop]
        return Frame(self.metrics, index, self.time_unix_us[start:stop], self.values[:, start:stop])


def _devices(
    devices: str | Sequence[str], device_index: ArrayLike | None, rows: int
) -> tuple[tuple[str, ...], NDArray[np.uint32] | None]:
    """Unique ids, and the row → id column. One id: all rows; with an index: a table of ids; else: one id a row."""
    if isinstance(devices, str):
        if not devices:
            raise InvalidArgument("the device is missing; name one", field="devices")
        return (devices,), None
    if device_index is not None:
        index = np.asarray(device_index)
        if index.shape != (rows,) or index.dtype.kind not in "iu":
            raise InvalidArgument(
                f"device_index must have one whole number a row, {rows} in all", field="device_index"
            )
        if rows and (int(index.min()) < 0 or int(index.max()) >= len(devices)):
            raise InvalidArgument(
                f"device_index points outside of the {len(devices)} devices", field="device_index"
            )
        return tuple(devices), index.astype(np.uint32, copy=False)
    if len(devices) != rows:
        raise InvalidArgument(
            f"{len(devices)} devices for {rows} rows; give one device, one a row, or a device_index",
            field="devices",
        )
    unique, inverse = np.unique(np.asarray(devices, dtype=str), return_inverse=True)
    return tuple(unique.tolist()), inverse.reshape(-1).astype(np.uint32)


def _not_a_number(values: Mapping[str, float]) -> InvalidArgument:
    """The error for the first of some values that is no number."""
    for metric, value in values.items():
        try:
            float(value)
        except (TypeError, ValueError, OverflowError):
            return InvalidArgument(f"{metric}: {value!r:.80} is not a number", field="values")
    return InvalidArgument("the values are not numbers", field="values")


class _Open:
    """The columns gathered for one metric set: finished chunks, then loose rows, in the order they came."""

    __slots__ = ("chunks", "index", "times", "values")

    def __init__(self) -> None:
        self.chunks: list[tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.float64]]] = []
        self.index: list[int] = []
        self.times: list[int] = []
        self.values: list[tuple[float, ...]] = []

    def settle(self) -> None:
        """Turns the loose rows into a chunk."""
        if self.times:
            self.chunks.append(
                (
                    np.array(self.index, np.uint32),
                    np.array(self.times, np.int64),
                    np.array(self.values, np.float64).T,
                )
            )
            self.index, self.times, self.values = [], [], []

    def frame(self, metrics: tuple[str, ...], *, one_device: bool) -> Frame:
        """All of it as one frame."""
        self.settle()
        if len(self.chunks) == 1:
            index, times, values = self.chunks[0]
        else:
            index = np.concatenate([chunk[0] for chunk in self.chunks])
            times = np.concatenate([chunk[1] for chunk in self.chunks])
            values = np.concatenate([chunk[2] for chunk in self.chunks], axis=1)
        return Frame(metrics, None if one_device else index, times, values)


class Gatherer:
    """One open batch. Safe to call from several threads.

    Args:
        max_readings: cells at which the batch is full.
        max_bytes: bytes on the wire at which it is full.
    """

    def __init__(self, max_readings: int, max_bytes: int) -> None:
        self.max_readings = max_readings
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._devices: dict[str, int] = {}
        self._open: dict[tuple[str, ...], _Open] = {}
        self._cells = 0
        self._bytes = 0

    @property
    def cells(self) -> int:
        """Cells gathered so far."""
        return self._cells

    @property
    def full(self) -> bool:
        """Whether the batch is to be sent now."""
        return self._cells >= self.max_readings or self._bytes >= self.max_bytes

    def _slot(self, device: str) -> int:
        slot = self._devices.get(device)
        if slot is None:
            slot = self._devices[device] = len(self._devices)
            self._bytes += len(device) + 3
        return slot

    def add_row(self, device: str, time_unix_us: int, values: Mapping[str, float]) -> bool:
        """Adds the values of one device at one moment. Returns whether the batch was empty before.

        Raises InvalidArgument for what is no number, before it can spoil the batch that others share.
        """
        metrics = tuple(values)
        if not -_TIME_LIMIT <= time_unix_us < _TIME_LIMIT:
            raise InvalidArgument(f"time {time_unix_us} is beyond 64 bits of microseconds", field="time")
        try:
            numbers = tuple(map(float, values.values()))
        except (TypeError, ValueError, OverflowError):
            raise _not_a_number(values) from None
        with self._lock:
            empty = not self._cells
            table = self._open.get(metrics)
            if table is None:
                table = self._open[metrics] = _Open()
                self._bytes += sum(map(len, metrics)) + 64
            table.index.append(self._slot(device))
            table.times.append(time_unix_us)
            table.values.append(numbers)
            self._cells += len(metrics)
            self._bytes += row_bytes(len(metrics))
            return empty

    def has_room_for(self, columns: Columns) -> bool:
        """Whether the open batch stays within `max_bytes` with these; an empty one takes any."""
        names = (
            sum(map(len, columns.devices)) + 3 * len(columns.devices) + sum(map(len, columns.metrics)) + 64
        )
        return not self._cells or (
            self._bytes + names + columns.rows * row_bytes(len(columns.metrics)) <= self.max_bytes
        )

    def add_columns(self, columns: Columns) -> bool:
        """Adds columns that are small enough to share a batch. Returns whether the batch was empty before."""
        with self._lock:
            empty = not self._cells
            table = self._open.get(columns.metrics)
            if table is None:
                table = self._open[columns.metrics] = _Open()
                self._bytes += sum(map(len, columns.metrics)) + 64
            table.settle()
            slots = np.array([self._slot(device) for device in columns.devices], np.uint32)
            if columns.device_index is None:
                index = np.full(columns.rows, slots[0], np.uint32)
            else:
                index = slots[columns.device_index]
            # A copy, because the caller may fill the same arrays again.
            table.chunks.append((index, columns.time_unix_us.copy(), columns.values.copy()))
            self._cells += columns.values.size
            self._bytes += columns.rows * row_bytes(len(columns.metrics))
            return empty

    def take(self) -> tuple[tuple[str, ...], list[Frame]] | None:
        """Ends the batch: its devices and frames, or None when it is empty."""
        with self._lock:
            if not self._cells:
                return None
            devices, tables = tuple(self._devices), self._open
            self._clear()
        frames = [table.frame(metrics, one_device=len(devices) == 1) for metrics, table in tables.items()]
        return devices, frames
