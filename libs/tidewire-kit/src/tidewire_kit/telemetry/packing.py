"""Packs the tables of one partition into records: one as a rule, several when they would be too large for the log."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.log.port import Buffer, Outgoing
from tidewire_kit.telemetry.record import Table, decode_record, encode_metrics, encode_table, varint

RECORD_BYTES = 900_000
"""Largest record: below the limit of the log and of a Kafka broker, with room for what is not rows."""
_SEGMENT_OVERHEAD_BYTES = 64
_OVERHEAD_BYTES = 64


@dataclass(slots=True)
class Part:
    """A table of one partition, encoded."""

    partition: int
    pieces: list[Buffer]
    """The message `TelemetryTable`."""
    size: int
    """Bytes of `pieces`."""
    readings: int
    received_us: int
    """The earliest of its segments."""


def pack(partition: int, parts: Sequence[Part]) -> list[Outgoing]:
    """The records that hold `parts`, in order, in as few records as is simple."""
    if sum(part.size for part in parts) + _OVERHEAD_BYTES <= RECORD_BYTES:
        return [_record(partition, parts)]
    records: list[Outgoing] = []
    held: list[Part] = []
    room = RECORD_BYTES - _OVERHEAD_BYTES
    for whole in parts:
        for part in _cut(whole):
            if held and part.size > room:
                records.append(_record(partition, held))
                held, room = [], RECORD_BYTES - _OVERHEAD_BYTES
            held.append(part)
            room -= part.size
    records.append(_record(partition, held))
    return records


def _record(partition: int, parts: Sequence[Part]) -> Outgoing:
    pieces: list[Buffer] = []
    for part in parts:
        pieces += (b"\x0a", varint(part.size), *part.pieces)
    readings = sum(part.readings for part in parts)
    received_us = min(part.received_us for part in parts)
    pieces += (b"\x10", varint(readings), b"\x19", received_us.to_bytes(8, "little", signed=True))
    # One copy of the bytes costs the log less than taking them from dozens of places.
    return Outgoing(partition, b"", (b"".join(pieces),))


def _cut(part: Part) -> list[Part]:
    """Cuts a table that fills more than half a record, at segments; each piece has the devices that it needs."""
    if part.size <= RECORD_BYTES // 2:
        return [part]
    (table,) = decode_record(b"".join((b"\x0a", varint(part.size), *part.pieces))).tables
    field = encode_metrics(table.metrics)
    row_bytes = 8 * len(table.metrics) + 12 + 16  # as if each row were of another device
    ends = table.segment_rows.cumsum(dtype=np.int64)
    cut: list[Part] = []
    segment, row = 0, 0
    while segment < table.segments:
        weights = (ends[segment:] - row) * row_bytes
        weights += np.arange(1, len(weights) + 1) * _SEGMENT_OVERHEAD_BYTES
        last = segment + max(1, int(np.searchsorted(weights, RECORD_BYTES // 2, side="right")))
        row_end = int(ends[last - 1])
        cut.append(_part(part.partition, _slice(table, segment, last, row, row_end), field))
        segment, row = last, row_end
    return cut


def _slice(table: Table, first: int, last: int, row: int, row_end: int) -> Table:
    present, index = np.unique(table.device_index[row:row_end], return_inverse=True)
    part = slice(first, last)
    return Table(
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


def _part(partition: int, table: Table, field: bytes) -> Part:
    pieces = encode_table(table, field)
    readings = int(table.segment_readings.sum(dtype=np.uint64))
    received_us = int(table.segment_received_us.min())
    return Part(partition, pieces, sum(map(len, pieces)), readings, received_us)
