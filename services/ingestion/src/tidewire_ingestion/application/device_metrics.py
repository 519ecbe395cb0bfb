"""Counts the distinct metrics of each device, so that none grows without bound.

Devices that have sent the same metrics share one set, and a device's state is the number of its set. So the usual
question, whether all these devices have sent these metrics before, is two array look-ups for a batch of any size.
The count begins anew when the process starts, and for a tenant that has more than `_MAX_SETS` different sets.
"""

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.telemetry.metric_set import MetricSet

_MAX_SETS = 4_096


class DeviceMetrics:
    """The metrics that the devices of one tenant have sent, by slot in the directory's table."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._sets: list[frozenset[str]] = [frozenset()]
        self._numbers: dict[frozenset[str], int] = {self._sets[0]: 0}
        self._state: NDArray[np.int32] = np.zeros(64, np.int32)
        self._covers: dict[MetricSet, NDArray[np.bool_]] = {}
        """Metric set → whether each of `_sets` contains it."""

    def add(
        self, slots: NDArray[np.intp], metrics: MetricSet, capacity: int, limit: int
    ) -> NDArray[np.bool_] | None:
        """Notes that the devices of `slots`, (rows,), send `metrics`; `capacity` is above every slot.

        Returns the mask of rows whose device would then have more than `limit` metrics (it is not noted), None if none.
        """
        unknown = self.unknown(slots, metrics, capacity)
        return None if unknown is None else self._add_unknown(slots, metrics, unknown, limit)

    def unknown(self, slots: NDArray[np.intp], metrics: MetricSet, capacity: int) -> NDArray[np.bool_] | None:
        """The mask of rows whose device has not sent all of `metrics` yet; None if there is none. Notes nothing."""
        if len(self._state) < capacity:
            self._state = np.concatenate([self._state, np.zeros(capacity - len(self._state), np.int32)])
        covers = self._covers.get(metrics)
        if covers is None or len(covers) < len(self._sets):
            covers = self._cover(metrics)
        if len(slots) == 1 and covers[self._state[slots[0]]]:
            return None
        known = covers[self._state[slots]]
        return None if known.all() else ~known

    def _cover(self, metrics: MetricSet) -> NDArray[np.bool_]:
        if len(self._covers) >= _MAX_SETS:
            self._covers.clear()
        known = self._covers.get(metrics)
        start = 0 if known is None else len(known)
        rest = np.array([metrics.members <= seen for seen in self._sets[start:]], np.bool_)
        covers = rest if known is None else np.concatenate([known, rest])
        self._covers[metrics] = covers
        return covers

    def _add_unknown(
        self, slots: NDArray[np.intp], metrics: MetricSet, unknown: NDArray[np.bool_], limit: int
    ) -> NDArray[np.bool_] | None:
        refused: NDArray[np.bool_] | None = None
        states = self._state[slots]
        for number in set(states[unknown].tolist()):
            union = self._sets[number] | metrics.members
            rows = states == number
            if len(union) > limit:
                refused = rows if refused is None else refused | rows
            else:
                self._state[slots[rows]] = self._number(union)
        if len(self._sets) > _MAX_SETS:
            self._reset()
        return refused

    def _number(self, union: frozenset[str]) -> int:
        number = self._numbers.get(union)
        if number is None:
            number = self._numbers[union] = len(self._sets)
            self._sets.append(union)
        return number
