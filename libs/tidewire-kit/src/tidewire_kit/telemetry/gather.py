"""Gathers the admitted frames of many batches into one record per partition: group, concatenate, split, encode.

Pure and synchronous; the producer calls it once per commit. The cost is per call, table and partition, not per batch
or row: splitting each small batch by itself would cost ten times more than all the rest.

Order: frames of one device and metric keep the order in which they are given. Frames of equal metric sets share a
table, unless a table in between holds one of the devices with one of the metrics.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.directory.table import DeviceTable
from tidewire_kit.log.port import Outgoing
from tidewire_kit.telemetry.admitted import Admitted
from tidewire_kit.telemetry.packing import Part, pack
from tidewire_kit.telemetry.split import split


def gather(frames: Sequence[Admitted], partitions: int) -> list[Outgoing]:
    """The records that hold `frames`: at least one per partition that any row belongs to, ascending by partition."""
    parts: list[list[Part]] = [[] for _ in range(partitions)]
    for group in _groups(frames):
        for part in split(group, partitions):
            parts[part.partition].append(part)
    outgoing: list[Outgoing] = []
    for partition, tables in enumerate(parts):
        if tables:
            outgoing += pack(partition, tables)
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
