"""Exact percentiles per (device or group, bucket): values are kept until no more can come, and then ordered.

Used by Aggregate, which bounds how many are kept at once. As NumPy and SQL's PERCENTILE_CONT, between two values the
percentile lies on the line between them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tidewire_storage.domain.aggregates import Partials

_LATER = np.iinfo(np.int64).max


class Samples:
    """Values of one metric."""

    def __init__(self, percentiles: Sequence[float]) -> None:
        """`percentiles` from 0 to 100."""
        self._percentiles = np.array(percentiles) / 100
        self._runs: list[Partials] = []
        self._values: list[NDArray[np.float64]] = []
        self._settled: list[tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float64]]] = []
        self.held = 0
        """Values kept now."""
        self._oldest_us = _LATER

    def add(self, runs: Partials, values: NDArray[np.float64]) -> None:
        """`runs` tell device, bucket and count of the values, run by run; a (device, bucket) may have many runs."""
        if len(values):
            self._runs.append(runs)
            self._values.append(values)
            self.held += len(values)
            self._oldest_us = min(self._oldest_us, int(runs.bucket.min()))

    def settle(self, before_us: int | None = None) -> None:
        """Finishes the buckets that start before a time, or all: nothing may be added to them any more."""
        if not self._values or (before_us is not None and self._oldest_us >= before_us):
            return
        device = np.concatenate([part.device for part in self._runs])
        bucket = np.concatenate([part.bucket for part in self._runs])
        count = np.concatenate([part.count for part in self._runs]).astype(np.int64)
        values = np.concatenate(self._values)
        self._runs, self._values, self.held, self._oldest_us = [], [], 0, _LATER
        if before_us is not None:
            done = bucket < before_us
            if not done.all():
                of_done = np.repeat(done, count)
                self._keep(device[~done], bucket[~done], count[~done], values[~of_done])
                device, bucket, count, values = device[done], bucket[done], count[done], values[of_done]
        self._settled.append(self._ordered(device, bucket, count, values))

    def columns(self) -> list[NDArray[np.float64]]:
        """Per percentile one value a (device, bucket), by device and bucket, after everything was settled."""
        if not self._settled:
            return [np.empty(0) for _ in self._percentiles]
        device = np.concatenate([part[0] for part in self._settled])
        bucket = np.concatenate([part[1] for part in self._settled])
        found = np.concatenate([part[2] for part in self._settled], axis=1)[:, np.lexsort((bucket, device))]
        return list(found)

    def _keep(
        self,
        device: NDArray[np.int32],
        bucket: NDArray[np.int64],
        count: NDArray[np.int64],
        values: NDArray[np.float64],
    ) -> None:
        none = np.empty(0)
        self.add(Partials(device, bucket, count, none, none, none, bucket, none, bucket, none, none), values)

    def _ordered(
        self,
        device: NDArray[np.int32],
        bucket: NDArray[np.int64],
        count: NDArray[np.int64],
        values: NDArray[np.float64],
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float64]]:
        """(devices, buckets, (percentiles, n)) of what is given, whole."""
        order = np.lexsort((bucket, device))
        by_device, by_bucket = device[order], bucket[order]
        begins = np.append(True, (by_device[1:] != by_device[:-1]) | (by_bucket[1:] != by_bucket[:-1]))
        starts = np.flatnonzero(begins)
        group = np.empty(len(order), np.int32)
        group[order] = np.cumsum(begins) - 1
        values = values[np.lexsort((values, np.repeat(group, count)))]
        sizes = np.add.reduceat(count[order], starts)
        firsts = np.cumsum(sizes) - sizes
        found = np.empty((len(self._percentiles), len(starts)))
        for row, percentile in enumerate(self._percentiles):
            place = percentile * (sizes - 1)
            below = np.floor(place).astype(np.int64)
            above = np.minimum(below + 1, sizes - 1)
            low, high, part = values[firsts + below], values[firsts + above], place - below
            with np.errstate(over="ignore", invalid="ignore"):
                apart = high - low
                on_line = np.where(part < 0.5, low + apart * part, high - apart * (1 - part))
            # Where the distance is beyond a double, each end is weighed by itself; and no rounding leaves the ends.
            on_line = np.where(np.isfinite(on_line), on_line, low * (1 - part) + high * part)
            found[row] = np.clip(on_line, low, high)
        return by_device[starts], by_bucket[starts], found
