"""The record of the topic `tidewire.telemetry.v1` as NumPy columns, and its bytes.

The producer encodes, every owner of a partition decodes. Both sides are columns: a record of 100,000 readings costs
some tens of Python operations, not 100,000. The bytes are exactly those of the public message `TelemetryRecord`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from tidewire.events.v1 import telemetry_record_pb2
from tidewire_kit.ids import TenantId
from tidewire_kit.log.port import Buffer
from tidewire_kit.telemetry.twin import has_unknown_fields, twins_of

_TWIN = twins_of(telemetry_record_pb2.DESCRIPTOR)["TelemetryRecord"]
_SMALL_BYTES = 1_024
"""Columns up to this size are copied into the header before them: fewer buffers cost less than a small copy."""


class RecordError(ValueError):
    """Bytes that are not a well-formed `TelemetryRecord`. The message says what is wrong, for the dead letter."""


@dataclass(slots=True)
class Table:
    """Rows of one tenant and one metric set, gathered from many batches, in the order in which they were admitted.

    A segment is what came from one frame of one batch (of a large frame, a run of its rows); segments cover the rows in
    order, without gap.
    A table belongs to one partition, so all its devices do.
    """

    tenant: TenantId
    metrics: tuple[str, ...]
    device_uids: NDArray[np.uint8]
    """(devices, 16)."""
    device_index: NDArray[np.uint32]
    """(rows,): row → `device_uids`."""
    time_unix_us: NDArray[np.int64]
    """(rows,): event time in microseconds since 1970-01-01T00:00:00Z."""
    values: NDArray[np.float64]
    """(metrics, rows), C-contiguous after decoding; NaN: no reading in that cell."""
    segment_publisher_uids: NDArray[np.uint8]
    """(segments, 16)."""
    segment_batch_ids: NDArray[np.uint8]
    """(segments, 16)."""
    segment_digests: NDArray[np.uint64]
    """(segments,): the same for the same batch, frame and admitted rows, whatever else was gathered with them."""
    segment_sequences: NDArray[np.uint64]
    """(segments,): the publisher's own count of batches; 0: not counted."""
    segment_rows: NDArray[np.uint32]
    """(segments,): their sum is the number of rows."""
    segment_readings: NDArray[np.uint32]
    """(segments,): cells that are not NaN."""
    segment_received_us: NDArray[np.int64]
    """(segments,): when the batch was received, in microseconds since 1970-01-01T00:00:00Z."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.time_unix_us)

    @property
    def segments(self) -> int:
        """Number of segments."""
        return len(self.segment_digests)


@dataclass(slots=True)
class Record:
    """What one ingestion process gathered for one partition while its previous commit was in flight."""

    tables: list[Table]
    readings: int
    """Cells that are not NaN, in all tables; the count the loss ledger works on."""
    received_us: int
    """When the first of the gathered requests was received, in microseconds since 1970-01-01T00:00:00Z."""


# Encoding


def varint(value: int) -> bytes:
    """`value` (not negative) as a protobuf varint."""
    if value < 0x80:
        return value.to_bytes(1)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_metrics(metrics: Sequence[str]) -> bytes:
    """The field `metrics` of a table; worth keeping, since the same metric set is written with every record."""
    parts: list[bytes] = []
    for metric in metrics:
        name = metric.encode()
        parts += (b"\x12", varint(len(name)), name)
    return b"".join(parts)


def encode_record(tables: Sequence[Table], readings: int, received_us: int) -> list[Buffer]:
    """The bytes of a record as pieces whose concatenation is the message; every piece is made of plain bytes.

    Large columns are views of the tables' arrays, which must not change until the pieces are written. Columns need the
    dtypes that `Table` names.
    """
    pieces: list[Buffer] = []
    for table in tables:
        body = encode_table(table, encode_metrics(table.metrics))
        pieces.append(b"\x0a" + varint(sum(map(len, body))))
        pieces += body
    tail = b"\x10" + varint(readings) + b"\x19" + received_us.to_bytes(8, "little", signed=True)
    pieces.append(tail)
    return pieces


def encode_table(table: Table, metrics_field: bytes) -> list[Buffer]:
    """The bytes of one table, as pieces as in `encode_record`. `metrics_field` is `encode_metrics(table.metrics)`."""
    small: list[bytes] = [b"\x0a\x10", table.tenant, metrics_field]
    body: list[Buffer] = []
    columns: tuple[tuple[bytes, NDArray[Any]], ...] = (
        (b"\x1a", table.device_uids),
        (b"\x22", table.device_index),
        (b"\x2a", table.time_unix_us),
        (b"\x32", table.values),
        (b"\x3a", table.segment_publisher_uids),
        (b"\x42", table.segment_batch_ids),
        (b"\x4a", table.segment_digests),
        (b"\x52", table.segment_sequences),
        (b"\x5a", table.segment_rows),
        (b"\x62", table.segment_readings),
        (b"\x6a", table.segment_received_us),
    )
    for tag, column in columns:
        length = column.nbytes
        if length == 0:
            continue
        small += (tag, varint(length))
        if length <= _SMALL_BYTES:
            small.append(column.tobytes())
            continue
        body.append(b"".join(small))
        small = []
        if column.flags.c_contiguous:
            body.append(column.data.cast("B"))
        else:  # values taken from a wider array: contiguous metric by metric
            body += [np.ascontiguousarray(row).data.cast("B") for row in column]
    body.append(b"".join(small))
    return body


# Decoding


def decode_record(value: Buffer) -> Record:
    """The record in `value`. Raises RecordError when it is malformed.

    The columns are read-only views of memory that the record owns; `value` may go.
    """
    raw = value if isinstance(value, bytes) else bytes(value)
    try:
        twin = _TWIN.FromString(raw)
    except DecodeError:
        raise RecordError("not a TelemetryRecord: truncated or malformed protobuf") from None
    public: telemetry_record_pb2.TelemetryRecord | None = None
    tables: list[Table] = []
    for number, message in enumerate(twin.tables):
        columns = _columns(message)
        if columns is None:
            if public is None:
                public = _parse_public(raw)
            columns = _public_columns(public.tables[number])
        try:
            tables.append(_table(message, columns))
        except RecordError as error:
            raise RecordError(f"tables[{number}]: {error}") from None
    return Record(tables, twin.readings, twin.received_time_unix_us)


_Columns = list[NDArray[Any]]
_FIELDS: tuple[tuple[str, np.dtype[Any]], ...] = (
    ("device_index", np.dtype("<u4")),
    ("time_unix_us", np.dtype("<i8")),
    ("values", np.dtype("<f8")),
    ("segment_digests", np.dtype("<u8")),
    ("segment_sequences", np.dtype("<u8")),
    ("segment_row_counts", np.dtype("<u4")),
    ("segment_readings", np.dtype("<u4")),
    ("segment_received_time_unix_us", np.dtype("<i8")),
)


def _columns(message: Any) -> _Columns | None:
    """The packed columns as views, or None when a column is not one whole piece and the public schema must decide."""
    if has_unknown_fields(message):
        return None
    columns: _Columns = []
    for name, dtype in _FIELDS:
        elements = getattr(message, name)
        if len(elements) != 1:
            return None
        piece = elements[0]
        if len(piece) % dtype.itemsize:
            return None
        columns.append(np.frombuffer(piece, dtype))
    return columns


def _parse_public(raw: bytes) -> telemetry_record_pb2.TelemetryRecord:
    try:
        return telemetry_record_pb2.TelemetryRecord.FromString(raw)
    except DecodeError:
        raise RecordError("not a TelemetryRecord: a packed column is malformed") from None


def _public_columns(message: telemetry_record_pb2.TelemetryTable) -> _Columns:
    return [np.array(getattr(message, name), dtype) for name, dtype in _FIELDS]


def _table(message: Any, columns: _Columns) -> Table:
    device_index, time_unix_us, values, digests, sequences, row_counts, readings, received = columns
    metrics = tuple(message.metrics)
    rows = len(time_unix_us)
    segments = len(digests)
    device_uids = _uids("device_uids", message.device_uids)
    publishers = _uids("segment_publisher_uids", message.segment_publisher_uids)
    batch_ids = _uids("segment_batch_ids", message.segment_batch_ids)
    if len(message.tenant_uid) != 16:
        raise RecordError(f"tenant_uid has {len(message.tenant_uid)} bytes, not 16")
    if len(device_index) != rows or len(values) != rows * len(metrics):
        raise RecordError(
            f"{rows} times, {len(device_index)} device indexes and {len(values)} values of {len(metrics)} metrics"
        )
    lengths = {len(publishers), len(batch_ids), len(sequences), len(row_counts), len(readings), len(received)}
    if lengths != {segments}:
        raise RecordError(f"segment columns of different length: {sorted(lengths | {segments})}")
    covered = int(row_counts.sum(dtype=np.uint64))
    if covered != rows:
        raise RecordError(f"segments cover {covered} of {rows} rows")
    if rows and int(device_index.max()) >= len(device_uids):
        raise RecordError(f"device_index {device_index.max()} of {len(device_uids)} devices")
    return Table(
        TenantId(message.tenant_uid),
        metrics,
        device_uids,
        cast("NDArray[np.uint32]", device_index),
        time_unix_us,
        values.reshape(len(metrics), rows),
        publishers,
        batch_ids,
        digests,
        sequences,
        row_counts,
        readings,
        received,
    )


def _uids(name: str, value: bytes) -> NDArray[np.uint8]:
    if len(value) % 16:
        raise RecordError(f"{name} has {len(value)} bytes, not a multiple of 16")
    return np.frombuffer(value, np.uint8).reshape(-1, 16)
