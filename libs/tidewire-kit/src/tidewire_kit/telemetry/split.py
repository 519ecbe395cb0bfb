"""Splits admitted rows of one tenant and metric set into one encoded table per partition.

All rows are sorted by partition once, all columns of all partitions are then slices of the sorted columns, and what
is written for one partition is a list of some forty slices. Everything costs per call or per partition; the only work
per row is NumPy's.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.directory.table import DeviceTable
from tidewire_kit.log.port import Buffer
from tidewire_kit.telemetry import digest
from tidewire_kit.telemetry.admitted import Admitted, Origin
from tidewire_kit.telemetry.packing import Part
from tidewire_kit.telemetry.record import varint

SEGMENT_BYTES = 256_000
"""A frame's rows in one partition become segments of at most this size. Counted from the frame's first admitted row in
that partition, so that a retry is cut in the same places."""
_MARKS = 65_536
"""Up to this many slots, distinct devices are found by marking rather than by sorting."""
_FEW_METRICS = 8
_LENGTHS = [varint(length) for length in range(16_384)]

_Index = NDArray[np.intp]


def split(blocks: Sequence[Admitted], partitions: int) -> list[Part]:
    """The tables of the partitions that have rows, ascending by partition; rows keep the order of `blocks`."""
    first = blocks[0]
    devices, origins = first.devices, first.origins
    if len(blocks) == 1:
        slots, times, values = first.slots, first.time_unix_us, first.values
    else:
        origins = [origin for block in blocks for origin in block.origins]
        slots = np.concatenate([block.slots for block in blocks])
        times = np.concatenate([block.time_unix_us for block in blocks])
        values = np.concatenate([block.values for block in blocks], axis=1)
    metrics, rows = values.shape

    partition = devices.partition[slots]
    order = partition.argsort(kind="stable")  # methods: NumPy's functions of these names cost 5 to 15 µs more
    row_counts = np.bincount(partition, minlength=partitions)
    row_ends = row_counts.cumsum()
    partition = partition[order]
    times = times[order]
    values = values.take(order, axis=1)

    present, place = _present(slots[order], devices)
    device_counts = np.bincount(devices.partition[present], minlength=partitions)
    device_ends = device_counts.cumsum()
    device_index = (place - (device_ends - device_counts)[partition]).astype(np.uint32)
    uids = devices.uids[present]

    starts, owners, chunks = _segments(origins, order, partition, row_ends, row_counts, metrics)
    lengths = np.empty(len(starts), np.uint32)
    np.subtract(starts[1:], starts[:-1], out=lengths[:-1], casting="unsafe")
    lengths[-1] = rows - starts[-1]
    sums = np.add.reduceat(digest.hash_rows(digest.hash_devices(uids)[place], times, values), starts)
    seeds = np.array([digest.segment_seed(first.metrics.seed, origin.frame) for origin in origins], np.uint64)
    digests = digest.finish(sums, seeds[owners], chunks)
    if all(block.complete for block in blocks):
        readings = lengths * np.uint32(metrics)
    else:
        cells = np.count_nonzero(~np.isnan(values), axis=0)
        readings = np.add.reduceat(cells, starts).astype(np.uint32)
    sources = [origin.source for origin in origins]
    publishers = _joined([source.publisher_uid for source in sources])[owners]
    batch_ids = _joined([source.batch_id for source in sources])[owners]
    sequences = np.array([source.sequence for source in sources], np.uint64)[owners]
    received = np.array([source.received_us for source in sources], np.int64)[owners]

    segment_counts = np.bincount(partition[starts], minlength=partitions)
    segment_ends = segment_counts.cumsum()
    filled = row_counts.nonzero()[0]
    segment_starts = (segment_ends - segment_counts)[filled]
    return _encode(
        b"\x0a\x10" + first.tenant + first.metrics.field,
        values,
        [uids, device_index, times, publishers, batch_ids, digests, sequences, lengths, readings, received],
        filled.tolist(),
        list(
            zip(
                device_ends[filled].tolist(),
                row_ends[filled].tolist(),
                segment_ends[filled].tolist(),
                strict=True,
            )
        ),
        np.add.reduceat(readings, segment_starts, dtype=np.int64).tolist(),
        np.minimum.reduceat(received, segment_starts).tolist(),
    )


def _encode(
    prefix: bytes,
    values: NDArray[np.float64],
    columns: list[NDArray[np.generic]],
    filled: list[int],
    bounds: list[tuple[int, int, int]],
    readings: list[int],
    received_us: list[int],
) -> list[Part]:
    """Slices the columns at `bounds` (ends of devices, rows, segments) into the tables of the `filled` partitions."""
    uids, index, times, publishers, batch_ids, digests, sequences, lengths, segment_readings, received = [
        column.data.cast("B") for column in columns
    ]
    metrics, rows = values.shape
    cells = values.data.cast("B")
    device, row, segment = 0, 0, 0
    parts: list[Part] = []
    for number, (device_end, row_end, segment_end) in enumerate(bounds):
        one, four = 8 * (row_end - row), 4 * (row_end - row)
        from_4, from_8, from_16 = 4 * segment, 8 * segment, 16 * segment
        to_4, to_8, to_16 = 4 * segment_end, 8 * segment_end, 16 * segment_end
        size_4, size_8, size_16 = _length(to_4 - from_4), _length(to_8 - from_8), _length(to_16 - from_16)
        if metrics <= _FEW_METRICS or len(bounds) == 1:
            stride = 8 * rows
            values_here: list[Buffer] = [
                cells[at + 8 * row : at + 8 * row_end] for at in range(0, metrics * stride, stride)
            ]
        else:
            values_here = [np.ascontiguousarray(values[:, row:row_end]).data.cast("B")]
        pieces: list[Buffer] = [
            prefix,
            b"\x1a", _length(16 * (device_end - device)), uids[16 * device : 16 * device_end],
            b"\x22", _length(four), index[4 * row : 4 * row_end],
            b"\x2a", _length(one), times[8 * row : 8 * row_end],
            b"\x32", _length(one * metrics), *values_here,
            b"\x3a", size_16, publishers[from_16:to_16],
            b"\x42", size_16, batch_ids[from_16:to_16],
            b"\x4a", size_8, digests[from_8:to_8],
            b"\x52", size_8, sequences[from_8:to_8],
            b"\x5a", size_4, lengths[from_4:to_4],
            b"\x62", size_4, segment_readings[from_4:to_4],
            b"\x6a", size_8, received[from_8:to_8],
        ]  # fmt: skip
        parts.append(
            Part(filled[number], pieces, sum(map(len, pieces)), readings[number], received_us[number])
        )
        device, row, segment = device_end, row_end, segment_end
    return parts


def _length(value: int) -> bytes:
    return _LENGTHS[value] if value < 16_384 else varint(value)


def _present(slots: _Index, devices: DeviceTable) -> tuple[_Index, _Index]:
    """(distinct slots by partition, row → place among them). `slots` is sorted by partition."""
    capacity = len(devices.partition)
    if capacity > _MARKS and len(slots) * 16 < capacity:
        found, inverse = np.unique(slots, return_inverse=True)
        by_partition = devices.partition[found].argsort(kind="stable")
        places = np.empty(len(found), np.intp)
        places[by_partition] = np.arange(len(found))
        return found[by_partition], places[inverse]
    marks = np.zeros(capacity, np.bool_)
    marks[slots] = True
    found = marks.nonzero()[0]
    found = found[devices.partition[found].argsort(kind="stable")]
    places = np.empty(capacity, np.intp)
    places[found] = np.arange(len(found))
    return found, places[slots]


def _segments(
    origins: Sequence[Origin],
    order: _Index,
    partition: NDArray[np.uint16],
    row_ends: _Index,
    row_counts: _Index,
    metrics: int,
) -> tuple[_Index, _Index, NDArray[np.uint64] | None]:
    """Runs of rows of one partition and origin, cut where they are too long.

    Returns (first row of each, its origin, its number within its run or None when all are 0).
    """
    if len(origins) == 1:
        starts = (row_ends - row_counts)[row_counts > 0]
        owners = np.zeros(len(starts), np.intp)
    else:
        owner = np.arange(len(origins)).repeat([origin.rows for origin in origins])[order]
        changes = owner[1:] != owner[:-1]
        changes |= partition[1:] != partition[:-1]
        ends = changes.nonzero()[0]
        starts = np.empty(len(ends) + 1, np.intp)
        starts[0] = 0
        np.add(ends, 1, out=starts[1:])
        owners = owner[starts]
    longest = max(1, SEGMENT_BYTES // (8 * metrics + 12))
    rows = len(order)
    if rows <= longest:
        return starts, owners, None
    lengths = np.diff(starts, append=rows)
    if int(lengths.max()) <= longest:
        return starts, owners, None
    pieces = -(-lengths // longest)
    chunks = np.arange(int(pieces.sum())) - np.repeat(pieces.cumsum() - pieces, pieces)
    return np.repeat(starts, pieces) + chunks * longest, np.repeat(owners, pieces), chunks.astype(np.uint64)


def _joined(uids: list[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(uids), np.uint8).reshape(-1, 16)
