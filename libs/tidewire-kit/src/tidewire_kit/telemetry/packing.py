"""Packs the tables of one partition into records: one as a rule, several when they would be too large for the log."""

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.log.port import Outgoing
from tidewire_kit.telemetry.record import Table, encode_record

RECORD_BYTES = 900_000
"""Largest record: below the limit of the log and of a Kafka broker, with room for what is not rows."""
SEGMENT_OVERHEAD_BYTES = 64
"""What a segment takes besides its rows."""


def pack(partition: int, tables: Sequence[Table], fields: Sequence[bytes]) -> list[Outgoing]:
    """The records that hold `tables`, in order, in as few records as is simple. `fields`: their encoded metrics."""
    sizes = [_size(table, field) for table, field in zip(tables, fields, strict=True)]
    if sum(sizes) <= RECORD_BYTES:
        return [_outgoing(partition, tables, fields)]
    records: list[Outgoing] = []
    held: list[Table] = []
    held_fields: list[bytes] = []
    room = RECORD_BYTES
    for whole, field in zip(tables, fields, strict=True):
        for table in _pieces(whole, field):
            size = _size(table, field)
            if held and size > room:
                records.append(_outgoing(partition, held, held_fields))
                held, held_fields, room = [], [], RECORD_BYTES
            held.append(table)
            held_fields.append(field)
            room -= size
    records.append(_outgoing(partition, held, held_fields))
    return records


def _outgoing(partition: int, tables: Sequence[Table], fields: Sequence[bytes]) -> Outgoing:
    readings = sum(int(table.segment_readings.sum(dtype=np.uint64)) for table in tables)
    received = min(int(table.segment_received_us.min()) for table in tables)
    return Outgoing(partition, b"", encode_record(tables, readings, received, metrics_fields=fields))


def _size(table: Table, field: bytes) -> int:
    """Upper bound of a table's bytes in a record."""
    rows, segments = table.rows, table.segments
    return (
        rows * (8 * len(table.metrics) + 12)
        + segments * SEGMENT_OVERHEAD_BYTES
        + table.device_uids.nbytes
        + len(field)
        + 128
    )


def _pieces(table: Table, field: bytes) -> list[Table]:
    """Cuts a table that fills more than half a record, at segments, each piece with the devices it has."""
    if _size(table, field) <= RECORD_BYTES // 2:
        return [table]
    row_bytes = 8 * len(table.metrics) + 12 + 16  # as if each row were of another device
    ends = table.segment_rows.cumsum(dtype=np.int64)
    pieces: list[Table] = []
    segment, row = 0, 0
    while segment < table.segments:
        weights = (ends[segment:] - row) * row_bytes
        weights += np.arange(1, len(weights) + 1) * SEGMENT_OVERHEAD_BYTES
        last = segment + max(1, int(np.searchsorted(weights, RECORD_BYTES // 2, side="right")))
        row_end = int(ends[last - 1])
        present, index = np.unique(table.device_index[row:row_end], return_inverse=True)
        part = slice(segment, last)
        pieces.append(
            Table(
                table.tenant,
                table.metrics,
                table.device_uids[present],
                cast("NDArray[np.uint32]", index.astype(np.uint32)),
                table.time_unix_us[row:row_end],
                table.values[:, row:row_end],
                table.segment_publisher_uids[part],
                table.segment_batch_ids[part],
                table.segment_digests[part],
                table.segment_sequences[part],
                table.segment_rows[part],
                table.segment_readings[part],
                table.segment_received_us[part],
            )
        )
        segment, row = last, row_end
    return pieces
