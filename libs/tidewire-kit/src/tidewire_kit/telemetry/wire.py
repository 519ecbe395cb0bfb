"""`TelemetryBatch` from bytes to columns, without a Python object per reading.

The bytes are parsed with a twin of the public schema (see `twin`), whose columns NumPy views in place. Where an encoder
did what protobuf allows but none does by default (a column in pieces, a column not packed, unknown fields), the
batch is parsed again with the public schema: slower, and the same result. Called by ingestion's gRPC front end.
"""

import os
import uuid
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from tidewire.type.v1 import telemetry_pb2
from tidewire_kit.errors import InvalidArgument
from tidewire_kit.telemetry.batch import MAX_DEVICES, MAX_FRAMES, Batch, Frame
from tidewire_kit.telemetry.faults import locate
from tidewire_kit.telemetry.twin import has_unknown_fields, twins_of

_TWIN = twins_of(telemetry_pb2.DESCRIPTOR)["TelemetryBatch"]
_EMPTY = np.empty(0, np.uint32)


def decode_batch(raw: bytes) -> Batch:
    """The batch in `raw`, with columns that are views of memory it owns.

    An empty `batch_id` is replaced by a new one. Raises InvalidArgument naming the field.
    """
    try:
        twin = _TWIN.FromString(raw)
    except DecodeError:
        raise _malformed(raw) from None
    devices = list(twin.devices)
    messages = twin.frames
    if not messages:
        raise InvalidArgument("frames", "is empty; send at least one frame", reason="NO_FRAMES")
    if len(messages) > MAX_FRAMES:
        why = f"has {len(messages)} elements; send at most {MAX_FRAMES}, rows of equal metrics in one frame"
        raise InvalidArgument("frames", why, reason="TOO_MANY_FRAMES")
    if len(devices) > MAX_DEVICES:
        why = f"has {len(devices)} elements; send at most {MAX_DEVICES} and split the batch"
        raise InvalidArgument("devices", why, reason="TOO_MANY_DEVICES")
    text = twin.batch_id
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
    return Batch(batch_id, text, twin.sequence, devices, frames)


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
