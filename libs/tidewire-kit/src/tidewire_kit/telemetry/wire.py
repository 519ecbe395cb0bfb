"""`TelemetryBatch` from bytes to columns, without a Python object per reading.

The bytes are parsed with a twin of the public schema (see `twin`), whose columns NumPy views in place. Where an encoder
did what protobuf allows but none does by default (a column in pieces, a column not packed, unknown fields), the
batch is parsed again with the public schema: slower, and the same result. Called by ingestion's gRPC front end.
"""

import itertools
import os
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from tidewire.type.v1 import telemetry_pb2
from tidewire_kit.errors import InvalidArgument
from tidewire_kit.telemetry.batch import MAX_DEVICES, MAX_FRAMES, Batch, Frame
from tidewire_kit.telemetry.device_lists import DeviceLists
from tidewire_kit.telemetry.faults import locate
from tidewire_kit.telemetry.twin import has_unknown_fields, twins_of

_TWIN = twins_of(telemetry_pb2.DESCRIPTOR)["TelemetryBatch"]
_EMPTY = np.empty(0, np.uint32)
_LARGE_BYTES = 2_048
"""From this size on it pays to look whether the list of devices is one that was seen before."""
_LEARN_EVERY = 4
"""Lists that never come again cost a quarter of what learning costs; those that do are known soon enough."""
_lists = DeviceLists()
_unknown_lists = itertools.count()


def decode_batch(raw: bytes) -> Batch:
    """The batch in `raw`, with columns that are views of memory it owns.

    An empty `batch_id` is replaced by a new one. Raises InvalidArgument naming the field.
    """
    known = _with_known_devices(raw) if len(raw) >= _LARGE_BYTES else None
    text, sequence, devices, messages = known or _any(raw)
    if not messages:
        raise InvalidArgument("frames", "is empty; send at least one frame", reason="NO_FRAMES")
    if len(messages) > MAX_FRAMES:
        why = f"has {len(messages)} elements; send at most {MAX_FRAMES}, rows of equal metrics in one frame"
        raise InvalidArgument("frames", why, reason="TOO_MANY_FRAMES")
    if len(devices) > MAX_DEVICES:
        why = f"has {len(devices)} elements; send at most {MAX_DEVICES} and split the batch"
        raise InvalidArgument("devices", why, reason="TOO_MANY_DEVICES")
    batch_id, text = (parse_batch_id(text), text) if text else new_batch_id()
    public: telemetry_pb2.TelemetryBatch | None = None
    frames: list[Frame] = []
    for number, message in enumerate(messages):
        frame = _frame(number, message, len(devices) or 1)
        if frame is None:
            if public is None:
                public = _parse_public(raw)
            frame = _public_frame(number, public.frames[number], len(devices) or 1)
        frames.append(frame)
    return Batch(batch_id, text, sequence, devices, frames)


_Parts = tuple[str, int, list[str], Sequence[Any]]
"""(batch id, sequence, devices, twins of the frames)."""


def _any(raw: bytes) -> _Parts:
    """The parts of a batch in any legal encoding."""
    twin = _parse(raw)
    devices = list(twin.devices)
    if len(raw) >= _LARGE_BYTES and devices and next(_unknown_lists) % _LEARN_EVERY == 0:
        at = _head(raw)[2]
        section = _TWIN(devices=devices).SerializeToString()
        if raw.startswith(section, at):
            _lists.learn(section, devices)
    return twin.batch_id, twin.sequence, devices, twin.frames


def _with_known_devices(raw: bytes) -> _Parts | None:
    """The parts of a batch whose list of devices was seen before; None when it was not, or is not where it should be.

    Publishers name the same devices again and again, and thousands of strings cost more than all the columns. Protobuf
    messages may be cut between fields and read piece by piece, so a known list is stepped over, and what is before and
    behind it is read as usual.
    """
    text, sequence, at = _head(raw)
    devices, at = _lists.match(raw, at)
    if devices is None:
        return None
    rest = _parse(raw, at)
    if rest.batch_id or rest.sequence or rest.devices:
        return None
    return text, sequence, devices, rest.frames


def _head(raw: bytes) -> tuple[str, int, int]:
    """(batch id, sequence, position behind them) if they come first, in this order, as encoders write them."""
    text, sequence, at = "", 0, 0
    try:
        if raw[0] == 0x0A and raw[1] < 0x80:
            at = 2 + raw[1]
            text = raw[2:at].decode("ascii")
        if raw[at] == 0x10:
            shift = 0
            while True:
                at += 1
                sequence |= (raw[at] & 0x7F) << shift
                shift += 7
                if raw[at] < 0x80:
                    break
                if shift > 63:  # no number: megabytes of it would be added up to one as long
                    return "", 0, 0
            at += 1
    except (IndexError, UnicodeDecodeError):
        return "", 0, 0
    return (text, sequence, at) if sequence < 1 << 64 else ("", 0, 0)


def _parse(raw: bytes, at: int = 0) -> Any:
    try:
        return _TWIN.FromString(memoryview(raw)[at:])
    except DecodeError:
        raise _malformed(raw) from None


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


def _frame(number: int, message: Any, devices: int) -> Frame | None:
    """The frame of a twin, or None when the public schema must decide what its columns are."""
    index, times, values = message.device_index, message.time_unix_us, message.values
    if len(times) != 1 or len(values) != 1 or len(index) > 1 or has_unknown_fields(message):
        return None
    time_bytes, value_bytes = times[0], values[0]
    index_bytes = index[0] if index else b""
    if len(time_bytes) % 8 or len(value_bytes) % 8 or len(index_bytes) % 4:
        return None
    return Frame.of(
        f"frames[{number}]",
        tuple(message.metrics),
        np.frombuffer(index_bytes, "<u4") if index_bytes else _EMPTY,
        np.frombuffer(time_bytes, "<i8"),
        np.frombuffer(value_bytes, "<f8"),
        devices,
    )


def _parse_public(raw: bytes) -> telemetry_pb2.TelemetryBatch:
    try:
        return telemetry_pb2.TelemetryBatch.FromString(raw)
    except DecodeError:
        raise _malformed(raw) from None


def _public_frame(number: int, message: telemetry_pb2.TelemetryFrame, devices: int) -> Frame:
    return Frame.of(
        f"frames[{number}]",
        tuple(message.metrics),
        np.array(message.device_index, np.uint32),
        np.array(message.time_unix_us, np.int64),
        np.array(message.values, np.float64),
        devices,
    )


def _malformed(raw: bytes) -> InvalidArgument:
    field, why = locate(raw, telemetry_pb2.TelemetryBatch.DESCRIPTOR)
    why = f"{why}; send a TelemetryBatch as protobuf, whole and unchanged"
    return InvalidArgument(field, why, reason="MALFORMED_MESSAGE")
