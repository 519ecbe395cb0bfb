"""Gathers the admitted rows of many batches into one record per partition: group, concatenate, split, encode.

Pure and synchronous; the producer calls it once per commit. The cost is per call, table and partition, not per batch
or row: splitting each small batch by itself would cost ten times more than all the rest.

Order: rows of one device and metric keep the order in which they are given. Blocks of equal metric sets share a
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


def gather(blocks: Sequence[Admitted], partitions: int) -> list[Outgoing]:
    """The records that hold `blocks`: at least one per partition that any row belongs to, ascending by partition."""
    parts: list[list[Part]] = [[] for _ in range(partitions)]
    for group in _groups(blocks):
        for part in split(group, partitions):
            parts[part.partition].append(part)
    outgoing: list[Outgoing] = []
    for partition, tables in enumerate(parts):
        if tables:
            outgoing += pack(partition, tables)
    return outgoing


# Grouping


class _Group:
    __slots__ = ("blocks", "marks", "metrics")

    def __init__(self, block: Admitted) -> None:
        self.metrics = block.metrics
        self.blocks = [block]
        self.marks: NDArray[np.bool_] | None = None
        """Slots in `blocks`, once somebody asked."""

    def add(self, block: Admitted) -> None:
        self.blocks.append(block)
        if self.marks is not None:
            self.marks[block.slots] = True

    def shares_devices(self, block: Admitted) -> bool:
        if self.marks is None or len(self.marks) < len(block.devices.partition):
            self.marks = np.zeros(len(block.devices.partition), np.bool_)
            for mine in self.blocks:
                self.marks[mine.slots] = True
        return bool(self.marks[block.slots].any())


def _groups(blocks: Sequence[Admitted]) -> Iterable[list[Admitted]]:
    """Blocks by (tenant, metric set); a new group where joining one would put a reading before an older one."""
    if len(blocks) == 1:
        return (list(blocks),)
    by_tenant: dict[DeviceTable, list[_Group]] = {}  # a table belongs to one tenant
    for block in blocks:
        groups = by_tenant.setdefault(block.devices, [])
        for group in reversed(groups):
            if group.metrics is block.metrics:
                group.add(block)
                break
            if not group.metrics.members.isdisjoint(block.metrics.members) and group.shares_devices(block):
                groups.append(_Group(block))
                break
        else:
            groups.append(_Group(block))
    return [group.blocks for groups in by_tenant.values() for group in groups]
