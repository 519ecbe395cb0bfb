"""`TelemetryBatch` from bytes to columns, without a Python object per reading.

In the usual layout the columns are found in the bytes (see `layout`). Otherwise the bytes are parsed with a twin of the
public schema (see `twin`), whose columns NumPy views in place. Where an encoder did what protobuf allows but none does
by default (a column in pieces, a column not packed, unknown fields), the batch is parsed again with the public schema:
slower, and the same result. Called by ingestion's gRPC front end.
"""

import itertools
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from tidewire.type.v1 import telemetry_pb2
from tidewire_kit.errors import InvalidArgument
from tidewire_kit.telemetry import layout
from tidewire_kit.telemetry.batch import MAX_FRAMES, Batch, RawBatch, RawFrame, too_many_frames
from tidewire_kit.telemetry.faults import locate
from tidewire_kit.telemetry.twin import has_unknown_fields, twins_of

_TWIN = twins_of(telemetry_pb2.DESCRIPTOR)["TelemetryBatch"]
_LEARN_EVERY = 4
"""Lists that never come again cost a quarter of what learning costs; those that do are known soon enough."""
_unknown_lists = itertools.count()


def decode_batch(raw: bytes) -> Batch:
    """The batch in `raw`, checked. Raises InvalidArgument naming the field."""
    return read_batch(raw).checked()


def read_batch(raw: bytes) -> RawBatch:
    """The batch in `raw`, with columns that are views of memory it owns.

    Raises InvalidArgument naming the field, for bytes that are no `TelemetryBatch` and for too many frames.
    """
    return layout.find(raw) or _parsed(raw)


def _parsed(raw: bytes) -> RawBatch:
    """The same in any legal encoding."""
    twin = _twin(raw)
    if len(twin.frames) > MAX_FRAMES:
        raise too_many_frames(len(twin.frames))
    devices = list(twin.devices)
    if len(raw) >= layout.LARGE_BYTES and devices and next(_unknown_lists) % _LEARN_EVERY == 0:
        section = _TWIN(devices=devices).SerializeToString()
        if raw.startswith(section, layout.head(raw)[2]):
            layout.device_lists.learn(section, devices)
    frames = [_frame(message) for message in twin.frames]
    if None in frames:
        public = _parse_public(raw)
        frames = [frame or _public_frame(public.frames[number]) for number, frame in enumerate(frames)]
    return RawBatch(twin.batch_id, twin.sequence, devices, [frame for frame in frames if frame is not None])


def _twin(raw: bytes) -> Any:
    try:
        return _TWIN.FromString(raw)
    except DecodeError:
        raise _malformed(raw) from None


def _frame(message: Any) -> RawFrame | None:
    """The frame of a twin, or None when the public schema must decide what its columns are."""
    index, times, values = message.device_index, message.time_unix_us, message.values
    if len(times) != 1 or len(values) != 1 or len(index) > 1 or has_unknown_fields(message):
        return None
    time_bytes, value_bytes = times[0], values[0]
    index_bytes = index[0] if index else b""
    if len(time_bytes) % 8 or len(value_bytes) % 8 or len(index_bytes) % 4:
        return None
    return RawFrame(
        tuple(message.metrics),
        np.frombuffer(index_bytes, "<u4") if index_bytes else layout.NO_INDEX,
        np.frombuffer(time_bytes, "<i8"),
        np.frombuffer(value_bytes, "<f8"),
    )


def _parse_public(raw: bytes) -> telemetry_pb2.TelemetryBatch:
    try:
        return telemetry_pb2.TelemetryBatch.FromString(raw)
    except DecodeError:
        raise _malformed(raw) from None


def _public_frame(message: telemetry_pb2.TelemetryFrame) -> RawFrame:
    return RawFrame(
        tuple(message.metrics),
        np.array(message.device_index, np.uint32),
        np.array(message.time_unix_us, np.int64),
        np.array(message.values, np.float64),
    )


def _malformed(raw: bytes) -> InvalidArgument:
    field, why = locate(raw, telemetry_pb2.TelemetryBatch.DESCRIPTOR)
    why = f"{why}; send a TelemetryBatch as protobuf, whole and unchanged"
    return InvalidArgument(field, why, reason="MALFORMED_MESSAGE")
