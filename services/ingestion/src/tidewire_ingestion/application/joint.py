"""Decides on many batches of one tenant together, when there is nothing wrong with any of them.

A NumPy call costs the same for one row and for a thousand, and a check by columns does not care whose rows they are. So
the batches of a commit are laid behind one another, one table per metric set, and checked as if they were one. What
is found out here is only "nothing is wrong" or "look at this one": whatever is to be explained, refused in part, or
noted for the first time is left to `admission`, which stays the truth about a single batch. Called by `publish`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewire_ingestion.application.admission import device_codes
from tidewire_ingestion.application.submission import Submission
from tidewire_ingestion.application.tenants import TenantState
from tidewire_ingestion.domain import MAX_AHEAD_US, MAX_METRICS, MIN_TIME_US
from tidewire_kit.errors import InvalidArgument
from tidewire_kit.telemetry.admitted import Admitted, Origin, Source
from tidewire_kit.telemetry.batch import (
    MAX_DEVICES,
    MAX_FRAMES,
    RawBatch,
    RawFrame,
    new_batch_id,
    parse_batch_id,
)
from tidewire_kit.telemetry.metric_set import MetricSet


@dataclass(slots=True)
class Candidate:
    """A batch in which nothing is wrong as far as can be seen without looking at its columns."""

    submission: Submission
    raw: RawBatch
    batch_id_text: str
    source: Source
    metrics: list[MetricSet]
    """Of each frame."""
    slots: NDArray[np.intp]
    """(devices,)."""
    readings: int = 0
    """Cells that are not NaN; known once checked."""
    suspect: bool = False


def candidate(state: TenantState, submission: Submission, raw: RawBatch, generation: int) -> Candidate | None:
    """The batch as a candidate; None when it must be looked at by itself. `generation` is the directory's."""
    table, names, caller = state.view.devices, raw.devices, submission.caller
    if names:
        slots = state.device_slots.find(names, generation)
        if slots is None or len(names) > MAX_DEVICES:
            return None
        if caller.kind == "device" and device_codes(state, caller, slots) is not None:
            return None
    else:
        own = table.slot_by_uid.get(caller.device_uid) if caller.device_uid is not None else None
        if own is None:
            return None
        slots = np.array([own], np.intp)
    if not 0 < len(raw.frames) <= MAX_FRAMES:
        return None
    metric_sets: list[MetricSet] = []
    for frame in raw.frames:
        metrics = state.metric_set(frame.metrics) if 0 < len(frame.metrics) <= MAX_METRICS else None
        rows, index = len(frame.time_unix_us), len(frame.device_index)
        if (
            not isinstance(metrics, MetricSet)
            or len(metrics.members) != len(metrics.names)
            or not rows
            or len(frame.values) != rows * len(metrics.names)
            or (index and index != rows)
        ):
            return None
        metric_sets.append(metrics)
    text = raw.batch_id_text
    try:
        batch_id, text = (parse_batch_id(text), text) if text else new_batch_id()
    except InvalidArgument:
        return None
    source = Source(caller.publisher_uid, batch_id, raw.sequence, submission.received_us)
    return Candidate(submission, raw, text, source, metric_sets, slots)


class Run:
    """Consecutive batches that are decided on together. Tables of a run may lie in any order behind one another."""

    def __init__(self, state: TenantState) -> None:
        self.state = state
        self._tables: dict[MetricSet, _Table] = {}
        self.candidates: list[Candidate] = []

    def takes(self, batch: Candidate) -> bool:
        """Adds the batch, unless readings of one metric would come to lie in two tables: these could change places."""
        tables = self._tables
        first, *others = batch.metrics
        if others or first not in tables:
            sets = dict.fromkeys([*tables, *batch.metrics])
            if len(sets) > 1 and len(frozenset().union(*(each.members for each in sets))) < sum(
                len(each.members) for each in sets
            ):
                return False
        for number, metrics in enumerate(batch.metrics):
            table = tables.get(metrics)
            if table is None:
                table = tables[metrics] = _Table(metrics)
            table.owners.append(batch)
            table.numbers.append(number)
            table.frames.append(batch.raw.frames[number])
        batch.readings = 0
        self.candidates.append(batch)
        return True

    def is_clean(self) -> bool:
        """Whether nothing is wrong with any row, and no device sends a metric for the first time.

        Otherwise marks the batches with such rows as suspects.
        """
        latest_us = min(batch.source.received_us for batch in self.candidates) + MAX_AHEAD_US
        for table in self._tables.values():
            table.check(self.state, latest_us)
        return not any(batch.suspect for batch in self.candidates)

    def take_quota(self, now: float) -> bool:
        """Takes what the whole run needs of the tenant's quotas; False, and takes nothing, when that is too much."""
        state = self.state
        batches = len(self.candidates)
        readings = sum(batch.readings for batch in self.candidates)
        if state.device_readings.limited:
            return False
        if not (state.batches.has(batches, now) and state.readings.has(readings, now)):
            return False
        state.batches.take(batches, now)
        state.readings.take(readings, now)
        return True

    def admitted(self) -> list[Admitted]:
        """All rows of the run."""
        view = self.state.view
        return [
            Admitted(
                view.uid,
                view.devices,
                table.metrics,
                [
                    Origin(owner.source, number, rows)
                    for owner, number, rows in zip(table.owners, table.numbers, table.rows, strict=True)
                ],
                table.slots,
                table.times,
                table.values,
                table.complete,
            )
            for table in self._tables.values()
        ]


class _Table:
    """The frames of one metric set in a run, behind one another."""

    __slots__ = ("complete", "frames", "metrics", "numbers", "owners", "rows", "slots", "times", "values")

    slots: NDArray[np.intp]
    times: NDArray[np.int64]
    values: NDArray[np.float64]
    complete: bool

    def __init__(self, metrics: MetricSet) -> None:
        self.metrics = metrics
        self.owners: list[Candidate] = []
        self.numbers: list[int] = []
        """Of each frame, in its batch."""
        self.frames: list[RawFrame] = []
        self.rows: list[int] = []

    def check(self, state: TenantState, latest_us: int) -> None:
        """Lays the columns behind one another, counts readings and marks suspects."""
        frames, columns = self.frames, len(self.metrics.names)
        self.rows = [len(frame.time_unix_us) for frame in frames]
        self.times = np.concatenate([frame.time_unix_us for frame in frames])
        self.values = np.concatenate([frame.values.reshape(columns, -1) for frame in frames], axis=1)
        if not self._find_slots():
            return
        times, devices = self.times, state.view.devices
        if int(times.min()) < MIN_TIME_US or int(times.max()) > latest_us:
            self._suspect((times < MIN_TIME_US) | (times > latest_us))
        admitted = devices.admitted[self.slots]
        if not admitted.all():
            self._suspect(~admitted)
        unknown = state.device_metrics.unknown(self.slots, self.metrics, len(devices.partition))
        if unknown is not None:
            self._suspect(unknown)
        self._count()

    def _find_slots(self) -> bool:
        """False when a frame names a device that is not in its batch's list."""
        frames, rows = self.frames, self.rows
        devices = np.concatenate([owner.slots for owner in self.owners])
        counts = np.array([len(owner.slots) for owner in self.owners])
        firsts = counts.cumsum() - counts
        if not any(len(frame.device_index) for frame in frames):
            self.slots = devices[firsts] if len(rows) == sum(rows) else np.repeat(devices[firsts], rows)
            return True
        index = np.concatenate(
            [frame.device_index if len(frame.device_index) else np.zeros(n, np.uint32)
             for frame, n in zip(frames, rows, strict=True)],
            dtype=np.intp,
            casting="safe",
        )  # fmt: skip
        outside = index >= np.repeat(counts, rows)
        if outside.any():
            self._suspect(outside)
            return False
        index += np.repeat(firsts, rows)
        self.slots = devices[index]
        return True

    def _count(self) -> None:
        columns = len(self.metrics.names)
        finite = np.isfinite(self.values)
        self.complete = bool(finite.all())
        readings = [n * columns for n in self.rows]
        if not self.complete:
            infinite = np.isinf(self.values).any(axis=0)
            if infinite.any():
                self._suspect(infinite)
            starts = np.array([0, *self.rows[:-1]]).cumsum()
            readings = np.add.reduceat(np.count_nonzero(finite, axis=0), starts).tolist()
        for owner, count in zip(self.owners, readings, strict=True):
            owner.readings += count
            if not count:
                owner.suspect = True  # a frame of nothing

    def _suspect(self, rows: NDArray[np.bool_]) -> None:
        """Marks the owners of these rows."""
        ends = np.array(self.rows).cumsum()
        for frame in np.unique(np.searchsorted(ends, rows.nonzero()[0], side="right")).tolist():
            self.owners[frame].suspect = True
