"""Finds the columns of a `TelemetryBatch` in its bytes, when they lie as encoders put them.

Nearly every batch has its fields in the order of their numbers, each column in one piece, and devices and metrics that
were seen before. Then a few steps over the bytes find everything, and columns are views of the message itself. What
lies in any other way, or is not well formed, is left to a parser; see `wire`, which is the only user.
"""

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.telemetry.batch import MAX_FRAMES, RawBatch, RawFrame
from tidewire_kit.telemetry.device_lists import DeviceLists

LARGE_BYTES = 512
"""From this size on it pays to look whether the list of devices is one that was seen before."""
NO_INDEX: NDArray[np.uint32] = np.empty(0, np.uint32)
_FEW_DEVICES = 8
"""So many names are read one by one."""
_MOST_METRIC_LISTS = 4_096
_REMEMBERED_BYTES = 2_048
"""Longer lists of metrics are not remembered."""
_MOST_METRICS_BYTES = 80_000
"""More than the longest list that is admitted takes."""

device_lists = DeviceLists()
_metric_lists: dict[bytes, tuple[str, ...]] = {}


def find(raw: bytes) -> RawBatch | None:
    """The batch in `raw`; None when its layout is another one, or broken. Columns may be unaligned views of `raw`."""
    try:
        text, sequence, at = head(raw)
        devices, at = _devices(raw, at)
        frames: list[RawFrame] = []
        while devices is not None and at < len(raw):
            if raw[at] != 0x22 or len(frames) == MAX_FRAMES:
                return None
            length, at = _varint(raw, at + 1)
            frame = _frame(raw, at, at + length)
            if frame is None:
                return None
            frames.append(frame)
            at += length
    except (IndexError, ValueError):  # cut off, or text that is not UTF-8
        return None
    return None if devices is None else RawBatch(text, sequence, devices, frames)


def head(raw: bytes) -> tuple[str, int, int]:
    """(batch id, sequence, position behind them) if they come first, in this order, as encoders write them."""
    text, sequence, at = "", 0, 0
    try:
        if raw[0] == 0x0A and raw[1] < 0x80:
            at = 2 + raw[1]
            text = raw[2:at].decode("ascii")
        if raw[at] == 0x10:
            sequence, at = _varint(raw, at + 1)
    except (IndexError, ValueError):
        return "", 0, 0
    return text, sequence, at


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """(number, position behind it). Raises IndexError, ValueError (more than 64 bits)."""
    value = raw[at]
    at += 1
    if value < 0x80:
        return value, at
    value &= 0x7F
    shift = 7
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:  # no number: megabytes of it would be added up to one as long
            raise ValueError("varint")
    if value >> 64:
        raise ValueError("varint")
    return value, at


def _devices(raw: bytes, at: int) -> tuple[list[str] | None, int]:
    """(devices, position behind them); None when they are many and not known."""
    if len(raw) >= LARGE_BYTES:
        known, behind = device_lists.match(raw, at)
        if known is not None:
            return known, behind
    names: list[str] = []
    while raw[at] == 0x1A:
        length = raw[at + 1]
        if length >= 0x80 or len(names) == _FEW_DEVICES:
            return None, at
        names.append(raw[at + 2 : at + 2 + length].decode())
        at += 2 + length
    return names, at


def _frame(raw: bytes, at: int, end: int) -> RawFrame | None:
    if end > len(raw):
        return None
    start = at
    while raw[at] == 0x0A:
        if raw[at + 1] >= 0x80 or at - start > _MOST_METRICS_BYTES:
            return None
        at += 2 + raw[at + 1]
    section = raw[start:at]
    metrics = _metric_lists.get(section)
    if metrics is None:
        metrics = _read_metrics(section)
    index = NO_INDEX
    if raw[at] == 0x12:
        length, at = _varint(raw, at + 1)
        if length % 4 or not 0 < length <= end - at:
            return None
        index = np.frombuffer(raw, "<u4", length >> 2, at)
        at += length
    if raw[at] != 0x1A:
        return None
    length, at = _varint(raw, at + 1)
    if length % 8 or not 0 < length <= end - at:
        return None
    times = np.frombuffer(raw, "<i8", length >> 3, at)
    at += length
    if raw[at] != 0x22:
        return None
    length, at = _varint(raw, at + 1)
    if length % 8 or not length or at + length != end:
        return None
    return RawFrame(metrics, index, times, np.frombuffer(raw, "<f8", length >> 3, at))


def _read_metrics(section: bytes) -> tuple[str, ...]:
    names: list[str] = []
    at = 0
    while at < len(section):
        behind = at + 2 + section[at + 1]
        names.append(section[at + 2 : behind].decode())
        at = behind
    metrics = tuple(names)
    if len(section) <= _REMEMBERED_BYTES:
        if len(_metric_lists) >= _MOST_METRIC_LISTS:
            _metric_lists.clear()
        _metric_lists[section] = metrics
    return metrics
