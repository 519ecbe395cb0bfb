"""What a report says of a device or group in a period, worked out from what is known of each device and day.

Called by the use case `application.report`. Everything is columns: no work by device.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from tidewire_storage.domain.aggregates import Partials, merge_partials


@dataclass(slots=True)
class Tallies:
    """Of one metric, per (subject, period), by these; a subject is a device, or a group of devices."""

    partials: Partials
    """Its `device` is the subject, its `bucket` the start of the period."""
    days: NDArray[np.int64]
    """(n,): bit by bit the days of the month that have readings."""
    devices: NDArray[np.int64]
    """(n,): devices with readings."""
    device_days: NDArray[np.int64]
    """(n,): days with readings, summed over the devices."""

    def __len__(self) -> int:
        """Number of (subject, period)s."""
        return len(self.partials)

    @property
    def active_days(self) -> NDArray[np.int64]:
        """(n,): days that have readings."""
        return np.bitwise_count(self.days).astype(np.int64)

    def before(self, start_us: int) -> tuple["Tallies", "Tallies"]:
        """Those of periods that begin before, and the others."""
        early = self.partials.bucket < start_us
        return self.at(early), self.at(~early)

    def renumbered(self, number_of: NDArray[np.int32]) -> "Tallies":
        """The same with other numbers of the subjects; `number_of` (subjects,), each once."""
        return replace(self, partials=replace(self.partials, device=number_of[self.partials.device]))

    def of_groups(self, group_of: NDArray[np.int32]) -> "Tallies":
        """The same of groups. `group_of` (subjects,): the group of each subject. Each device must be complete."""
        return merge_tallies([self.renumbered(group_of)])

    def at(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> "Tallies":
        """Some rows: where `rows` is true, or in the order of its numbers."""
        return Tallies(
            rows_of(self.partials, rows), self.days[rows], self.devices[rows], self.device_days[rows]
        )


def continue_tallies(before: Tallies, later: Tallies) -> Tallies:
    """Merges tallies of devices; those of later days continue the same devices' periods."""
    both = merge_tallies([before, later])
    both.devices = np.ones(len(both), np.int64)
    return both


def merge_tallies(parts: Sequence[Tallies]) -> Tallies:
    """Merges tallies of one metric and of devices that differ."""
    partials = merge_partials([part.partials for part in parts])
    if not len(partials):
        return parts[0]
    device = np.concatenate([part.partials.device for part in parts])
    bucket = np.concatenate([part.partials.bucket for part in parts])
    order = np.lexsort((bucket, device))
    device, bucket = device[order], bucket[order]
    starts = np.flatnonzero(np.append(True, (device[1:] != device[:-1]) | (bucket[1:] != bucket[:-1])))
    days = np.concatenate([part.days for part in parts])[order]
    devices = np.concatenate([part.devices for part in parts])[order]
    device_days = np.concatenate([part.device_days for part in parts])[order]
    return Tallies(
        partials,
        np.bitwise_or.reduceat(days, starts),
        np.add.reduceat(devices, starts),
        np.add.reduceat(device_days, starts),
    )


def joined(parts: Sequence[Tallies]) -> Tallies:
    """Tallies, perhaps of several metrics, one after another; of none, no rows."""
    if not parts:
        nothing, none = np.empty(0, np.int64), np.empty(0)
        device = np.empty(0, np.int32)
        partials = Partials(device, nothing, nothing, none, none, none, nothing, none, nothing, none, none)
        return Tallies(partials, nothing, nothing, nothing)
    return Tallies(
        _concatenated([part.partials for part in parts]),
        np.concatenate([part.days for part in parts]),
        np.concatenate([part.devices for part in parts]),
        np.concatenate([part.device_days for part in parts]),
    )


def _concatenated(parts: Sequence[Partials]) -> Partials:
    return Partials(
        *(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Partials))
    )


def rows_of(partials: Partials, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Partials:
    """The partial results where `rows` is true, or in the order of its numbers."""
    return Partials(
        partials.device[rows],
        partials.bucket[rows],
        partials.count[rows],
        partials.total[rows],
        partials.least[rows],
        partials.greatest[rows],
        partials.first_us[rows],
        partials.first[rows],
        partials.last_us[rows],
        partials.last[rows],
        partials.squares[rows],
    )
