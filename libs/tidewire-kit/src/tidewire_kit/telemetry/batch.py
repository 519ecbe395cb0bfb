"""A batch of telemetry as columns: what every front end hands to the use case, whatever the transport was.

`wire` reads a `RawBatch` from protobuf; other front ends will make one of what they speak. `RawBatch.checked` makes a
`Batch` of it by the rules that need nothing but the batch itself; whether rows are admitted is ingestion's business.
Ingestion checks many raw batches together, and one by one only those where that finds a fault.
"""

import os
import uuid
from dataclasses import dataclass
from math import isfinite
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.errors import InvalidArgument

MAX_DEVICES = 100_000
MAX_FRAMES = 1_000
_FEW = 16


@dataclass(slots=True)
class Frame:
    """A table of readings. Columns are views, possibly read-only; nobody writes to them."""

    metrics: tuple[str, ...]
    device_index: NDArray[np.uint32] | None
    """(rows,): row → `Batch.devices`. None: every row belongs to the first device."""
    time_unix_us: NDArray[np.int64]
    """(rows,): event time in microseconds since 1970-01-01T00:00:00Z."""
    values: NDArray[np.float64]
    """(metrics, rows), C-contiguous; NaN: no reading in that cell."""
    readings: int
    """Cells that are not NaN; at least 1."""
    complete: bool
    """Neither NaN nor infinities: every cell is a good reading."""

    @property
    def rows(self) -> int:
        """Number of rows; at least 1."""
        return len(self.time_unix_us)

    @classmethod
    def of(cls, field: str, raw: "RawFrame", devices: int) -> Self:
        """A frame of flat columns, checked. `devices` is the number of devices that `device_index` may refer to.

        Raises InvalidArgument naming `field` and the column.
        """
        metrics, device_index, time_unix_us, values = (
            raw.metrics,
            raw.device_index,
            raw.time_unix_us,
            raw.values,
        )
        columns, rows, cells = len(metrics), len(time_unix_us), len(values)
        if columns == 0:
            raise InvalidArgument(
                f"{field}.metrics", "is empty; name at least one metric", reason="NO_METRICS"
            )
        if rows == 0:
            why = f"is empty, {cells} values without a time; send one time for each row"
            raise InvalidArgument(f"{field}.time_unix_us", why, reason="NO_ROWS")
        if cells != rows * columns:
            why = (
                f"has {cells} elements, but {rows} rows × {columns} metrics = {rows * columns}; "
                "send every metric's column in full, one after the other, with NaN where there is no reading"
            )
            raise InvalidArgument(f"{field}.values", why, reason="COLUMN_LENGTHS")
        index: NDArray[np.uint32] | None = None
        if len(device_index):
            index = device_index
            if len(index) != rows:
                why = (
                    f"has {len(index)} elements, but time_unix_us has {rows}; "
                    "send one for each row, or none if all rows belong to the first device"
                )
                raise InvalidArgument(f"{field}.device_index", why, reason="COLUMN_LENGTHS")
            highest = int(index[0]) if rows == 1 else int(index.max())
            if highest >= devices:
                row = int((index >= devices).argmax())
                why = (
                    f"is {int(index[row])} in row {row}, but the batch has {devices} devices; "
                    f"send 0 to {devices - 1}"
                )
                raise InvalidArgument(f"{field}.device_index", why, reason="DEVICE_INDEX_RANGE")
            if highest == 0:
                index = None
        if columns > 1 and len(set(metrics)) != columns:
            twice = sorted({metric for metric in metrics if metrics.count(metric) > 1})
            why = f"names {', '.join(map(repr, twice[:3]))} more than once; send one column for each metric"
            raise InvalidArgument(f"{field}.metrics", why, reason="DUPLICATE_METRIC")
        if rows == 1 and columns <= _FEW:  # a number here and there is quicker without NumPy
            complete = all(map(isfinite, values.tolist()))
        else:
            complete = bool(np.isfinite(values).all())
        readings = cells
        if not complete:
            readings -= int(np.count_nonzero(np.isnan(values)))
            if readings == 0:
                why = f"has {cells} elements and all are NaN; leave out rows and metrics without a reading"
                raise InvalidArgument(f"{field}.values", why, reason="NO_READINGS")
        return cls(metrics, index, time_unix_us, values.reshape(columns, rows), readings, complete)


@dataclass(slots=True)
class Batch:
    """The unit of sending, acknowledging and retrying."""

    batch_id: bytes
    """16 bytes: idempotency key within (tenant, publisher)."""
    batch_id_text: str
    """The batch id as the publisher wrote it."""
    sequence: int
    """The publisher's own count of batches; 0: not counted."""
    devices: list[str]
    """Device ids; empty: the authenticated device."""
    frames: list[Frame]
    """At least one."""

    @property
    def readings(self) -> int:
        """Cells that are not NaN, in all frames."""
        return sum(frame.readings for frame in self.frames)


@dataclass(slots=True)
class RawFrame:
    """A frame as it came; nothing is known of its columns but their types. Views, possibly read-only or unaligned."""

    metrics: tuple[str, ...]
    device_index: NDArray[np.uint32]
    """Row → device; empty: every row belongs to the first device."""
    time_unix_us: NDArray[np.int64]
    values: NDArray[np.float64]
    """Flat: one metric after the other."""


@dataclass(slots=True)
class RawBatch:
    """A batch as it came, not checked yet."""

    batch_id_text: str
    """Empty: to be made."""
    sequence: int
    devices: list[str]
    """Nobody changes it."""
    frames: list[RawFrame]

    def checked(self) -> Batch:
        """The batch, with a new id if it came without one. Raises InvalidArgument naming the field."""
        if not self.frames:
            raise InvalidArgument("frames", "is empty; send at least one frame", reason="NO_FRAMES")
        if len(self.frames) > MAX_FRAMES:
            raise too_many_frames(len(self.frames))
        if len(self.devices) > MAX_DEVICES:
            why = f"has {len(self.devices)} elements; send at most {MAX_DEVICES} and split the batch"
            raise InvalidArgument("devices", why, reason="TOO_MANY_DEVICES")
        text = self.batch_id_text
        batch_id, text = (parse_batch_id(text), text) if text else new_batch_id()
        devices = len(self.devices) or 1
        frames = [Frame.of(f"frames[{number}]", raw, devices) for number, raw in enumerate(self.frames)]
        return Batch(batch_id, text, self.sequence, self.devices, frames)


def too_many_frames(count: int) -> InvalidArgument:
    """The refusal of a batch of more than `MAX_FRAMES` frames."""
    why = f"has {count} elements; send at most {MAX_FRAMES}, rows of equal metrics in one frame"
    return InvalidArgument("frames", why, reason="TOO_MANY_FRAMES")


def parse_batch_id(text: str) -> bytes:
    """The 16 bytes of a UUID in 36 characters or 32 hexadecimal digits. Raises InvalidArgument otherwise."""
    digits = text
    if len(text) == 36 and text[8] == text[13] == text[18] == text[23] == "-":
        digits = text[:8] + text[9:13] + text[14:18] + text[19:23] + text[24:]
    if len(digits) == 32:
        try:
            value = bytes.fromhex(digits)
        except ValueError:
            value = b""
        if len(value) == 16:
            return value
    shown = text if len(text) <= 64 else text[:64] + "…"
    why = f"{shown!r} is not a UUID; send 36 characters or 32 hexadecimal digits, new for each batch"
    raise InvalidArgument("batch_id", why, reason="BAD_BATCH_ID")


def new_batch_id() -> tuple[bytes, str]:
    """A random batch id, as bytes and as text."""
    value = uuid.UUID(bytes=os.urandom(16), version=4)
    return value.bytes, str(value)
