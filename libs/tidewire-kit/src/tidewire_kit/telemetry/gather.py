"""Gathers the admitted frames of many batches into one record per partition: group, concatenate, split, encode.

Pure and synchronous; the producer calls it once per commit. The cost is per call, table and partition, not per batch
or row: splitting each small batch by itself would cost ten times more than all the rest.

Order: frames of one device and metric keep the order in which they are given. Frames of equal metric sets share a
table, unless a table in between holds one of the devices with one of the metrics.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.directory.table import DeviceTable
from tidewire_kit.ids import TenantId
from tidewire_kit.log.port import Outgoing
from tidewire_kit.telemetry import digest
from tidewire_kit.telemetry.metric_set import MetricSet
from tidewire_kit.telemetry.packing import SEGMENT_OVERHEAD_BYTES, pack
from tidewire_kit.telemetry.record import Table

SEGMENT_BYTES = 256_000
"""A frame's rows in one partition become segments of at most this size. Counted from the frame's first admitted row in
that partition, so that a retry is cut in the same places."""


@dataclass(slots=True)
class Source:
    """The batch that frames came from."""

    publisher_uid: bytes
    """16 bytes."""
    batch_id: bytes
    """16 bytes."""
    sequence: int
    received_us: int


@dataclass(slots=True)
class Admitted:
    """The admitted rows of one frame of one batch; at least one row. Nobody changes the arrays afterwards."""

    tenant: TenantId
    devices: DeviceTable
    source: Source
    frame: int
    """Number of the frame in its batch."""
    metrics: MetricSet
    slots: NDArray[np.intp]
    """(rows,): row → slot in `devices`."""
    time_unix_us: NDArray[np.int64]
    """(rows,)."""
    values: NDArray[np.float64]
    """(metrics, rows), C-contiguous."""
    complete: bool
    """No cell is NaN."""

    @property
    def bytes(self) -> int:
        """About what the rows take in a record."""
        return len(self.slots) * (8 * len(self.values) + 12) + SEGMENT_OVERHEAD_BYTES


def gather(frames: Sequence[Admitted], partitions: int) -> list[Outgoing]:
    """The records that hold `frames`: at least one per partition that any row belongs to, ascending by partition."""
    parts: list[list[Table]] = [[] for _ in range(partitions)]
    fields: list[list[bytes]] = [[] for _ in range(partitions)]
    for group in _groups(frames):
        field = group[0].metrics.field
        for partition, table in _split(group, partitions):
            parts[partition].append(table)
            fields[partition].append(field)
    outgoing: list[Outgoing] = []
    for partition, tables in enumerate(parts):
        if tables:
            outgoing += pack(partition, tables, fields[partition])
    return outgoing


# Grouping


class _Group:
    __slots__ = ("frames", "marks", "metrics")

    def __init__(self, frame: Admitted) -> None:
        self.metrics = frame.metrics
        self.frames = [frame]
        self.marks: NDArray[np.bool_] | None = None
        """Slots in `frames`, once somebody asked."""

    def add(self, frame: Admitted) -> None:
        self.frames.append(frame)
        if self.marks is not None:
            self.marks[frame.slots] = True

    def shares_devices(self, frame: Admitted) -> bool:
        if self.marks is None or len(self.marks) < len(frame.devices.partition):
            self.marks = np.zeros(len(frame.devices.partition), np.bool_)
            for mine in self.frames:
                self.marks[mine.slots] = True
        return bool(self.marks[frame.slots].any())


def _groups(frames: Sequence[Admitted]) -> Iterable[list[Admitted]]:
    """Frames by (tenant, metric set); a new group where joining one would put a reading before an older one."""
    if len(frames) == 1:
        return (list(frames),)
    by_tenant: dict[DeviceTable, list[_Group]] = {}  # a table belongs to one tenant
    for frame in frames:
        groups = by_tenant.setdefault(frame.devices, [])
        for group in reversed(groups):
            if group.metrics is frame.metrics:
                group.add(frame)
                break
            if not group.metrics.members.isdisjoint(frame.metrics.members) and group.shares_devices(frame):
                groups.append(_Group(frame))
                break
        else:
            groups.append(_Group(frame))
    return [group.frames for groups in by_tenant.values() for group in groups]


# Splitting


def _split(frames: list[Admitted], partitions: int) -> Iterable[tuple[int, Table]]:
    """One table per partition for frames of one tenant and metric set. All arrays of a table are its own or slices."""
    first = frames[0]
    devices = first.devices
    if len(frames) == 1:
        slots, times, values = first.slots, first.time_unix_us, first.values
        owner = None
    else:
        slots = np.concatenate([frame.slots for frame in frames])
        times = np.concatenate([frame.time_unix_us for frame in frames])
        values = np.concatenate([frame.values for frame in frames], axis=1)
        owner = np.repeat(np.arange(len(frames)), [len(frame.slots) for frame in frames])
    rows = len(slots)

    present, place = _present(slots, devices)
    present_hashes = digest.hash_devices(devices.uids[present])
    hashes = digest.hash_rows(present_hashes[place], times, values)

    row_partition = devices.partition[slots]
    order = np.argsort(row_partition, kind="stable")
    row_partition = row_partition[order]
    hashes = hashes[order]
    times = times[order]

    # Devices, by partition as well.
    device_partition = devices.partition[present]
    device_order = np.argsort(device_partition, kind="stable")
    device_uids = devices.uids[present[device_order]]
    device_counts = np.bincount(device_partition, minlength=partitions)
    device_ends = device_counts.cumsum()
    index_of = np.empty(len(present), np.uint32)
    index_of[device_order] = np.arange(len(present))
    device_index = index_of[place[order]]
    row_counts = np.bincount(row_partition, minlength=partitions)
    row_ends = row_counts.cumsum()
    device_index -= (device_ends - device_counts).astype(np.uint32)[row_partition]

    # Segments: runs of one partition and frame, cut where they are too long.
    if owner is None:
        starts = (row_ends - row_counts)[row_counts > 0]
        segment_frame = np.zeros(len(starts), np.intp)
    else:
        owner = owner[order]
        changes = (owner[1:] != owner[:-1]) | (row_partition[1:] != row_partition[:-1])
        starts = np.concatenate(([0], np.flatnonzero(changes) + 1))
        segment_frame = owner[starts]
    longest = max(1, SEGMENT_BYTES // (8 * len(values) + 12))
    starts, segment_frame, chunks = _cut(starts, segment_frame, rows, longest)
    lengths = np.diff(starts, append=rows).astype(np.uint32)

    seeds = np.array([digest.segment_seed(frame.metrics.seed, frame.frame) for frame in frames], np.uint64)
    digests = digest.finish(np.add.reduceat(hashes, starts), seeds[segment_frame], chunks)
    if all(frame.complete for frame in frames):
        readings = lengths * np.uint32(len(values))
    else:
        present_cells = np.count_nonzero(~np.isnan(values), axis=0)[order]
        readings = np.add.reduceat(present_cells, starts).astype(np.uint32)
    sources = [frame.source for frame in frames]
    publishers = _joined([source.publisher_uid for source in sources])[segment_frame]
    batch_ids = _joined([source.batch_id for source in sources])[segment_frame]
    sequences = np.array([source.sequence for source in sources], np.uint64)[segment_frame]
    received = np.array([source.received_us for source in sources], np.int64)[segment_frame]

    segment_ends = np.bincount(row_partition[starts], minlength=partitions).cumsum()
    row, device, segment = 0, 0, 0
    tables: list[tuple[int, Table]] = []
    bounds = zip(row_ends.tolist(), device_ends.tolist(), segment_ends.tolist(), strict=True)
    for partition, (row_end, device_end, segment_end) in enumerate(bounds):
        if row_end == row:
            continue
        table = Table(
            first.tenant,
            first.metrics.names,
            device_uids[device:device_end],
            device_index[row:row_end],
            times[row:row_end],
            values.take(order[row:row_end], axis=1),
            publishers[segment:segment_end],
            batch_ids[segment:segment_end],
            digests[segment:segment_end],
            sequences[segment:segment_end],
            lengths[segment:segment_end],
            readings[segment:segment_end],
            received[segment:segment_end],
        )
        tables.append((partition, table))
        row, device, segment = row_end, device_end, segment_end
    return tables


def _present(slots: NDArray[np.intp], devices: DeviceTable) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(distinct slots ascending, row → place among them); by marking, unless the table is far larger than `slots`."""
    if len(slots) * 16 < len(devices.partition):
        present, place = np.unique(slots, return_inverse=True)
        return present, place
    marks = np.zeros(len(devices.partition), np.bool_)
    marks[slots] = True
    present = np.flatnonzero(marks)
    places = np.empty(len(marks), np.intp)
    places[present] = np.arange(len(present))
    return present, places[slots]


def _cut(
    starts: NDArray[np.intp], frames: NDArray[np.intp], rows: int, longest: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint64] | None]:
    """Cuts segments of more than `longest` rows. Returns (starts, frames, number of each within its run or None)."""
    lengths = np.diff(starts, append=rows)
    if int(lengths.max()) <= longest:
        return starts, frames, None
    pieces = -(-lengths // longest)
    total = int(pieces.sum())
    chunks = np.arange(total) - np.repeat(pieces.cumsum() - pieces, pieces)
    return np.repeat(starts, pieces) + chunks * longest, np.repeat(frames, pieces), chunks.astype(np.uint64)


def _joined(uids: list[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(uids), np.uint8).reshape(-1, 16)
