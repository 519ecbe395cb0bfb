"""Series states: per (device, metric) the oldest and the newest event time and the newest value.

Made from every flush, merged with what is stored, and answered by GetLatest and ListSeries. Merging is associative and
idempotent, so a state may be written late and rebuilt from blocks after a crash.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.ids import TenantId
from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_storage.domain.rows import SortedTable, unique_uids

NEVER = np.iinfo(np.int64).min
"""`last_us` of a metric without a reading; its `first_us` is the greatest int64."""
_LATER = np.iinfo(np.int64).max

STATE_WORDS = 4


@dataclass(slots=True)
class SeriesStates:
    """States of some devices of one tenant and metric set, each device once."""

    tenant: TenantId
    metrics: tuple[str, ...]
    device_uids: NDArray[np.uint8]
    """(devices, 16)."""
    first_us: NDArray[np.int64]
    """(metrics, devices): event time of the oldest reading."""
    last_us: NDArray[np.int64]
    """(metrics, devices): event time of the newest reading."""
    value: NDArray[np.float64]
    """(metrics, devices): its value."""
    arrival: NDArray[np.int64]
    """(metrics, devices): its arrival order; of two at the same time the later arrival wins."""

    def pack(self) -> list[bytes]:
        """One value of 32 bytes a metric for each device: first, last, value, arrival."""
        flat = self._words().tobytes()
        size = len(self.metrics) * STATE_WORDS * 8
        return [flat[first : first + size] for first in range(0, len(flat), size)]

    def to_bytes(self) -> bytes:
        """All devices: number of them (4 bytes), their uids, their states as in `pack`."""
        uids = np.ascontiguousarray(self.device_uids).tobytes()
        return b"".join([len(self.device_uids).to_bytes(4, "little"), uids, self._words().tobytes()])

    def where(self, devices: NDArray[np.bool_]) -> "SeriesStates":
        """The devices for which `devices` is true."""
        return SeriesStates(
            self.tenant,
            self.metrics,
            self.device_uids[devices],
            self.first_us[:, devices],
            self.last_us[:, devices],
            self.value[:, devices],
            self.arrival[:, devices],
        )

    def _words(self) -> NDArray[np.int64]:
        words = np.empty((len(self.device_uids), len(self.metrics), STATE_WORDS), "<i8")
        words[:, :, 0] = self.first_us.T
        words[:, :, 1] = self.last_us.T
        words[:, :, 2] = self.value.T.copy().view(np.int64)
        words[:, :, 3] = self.arrival.T
        return words


def unpack_states(
    tenant: TenantId, metrics: tuple[str, ...], device_uids: Sequence[bytes], packed: Sequence[bytes]
) -> SeriesStates:
    """The reverse of `SeriesStates.pack`."""
    return _unpacked(tenant, metrics, b"".join(device_uids), b"".join(packed))


def states_from_bytes(tenant: TenantId, metrics: tuple[str, ...], data: bytes) -> SeriesStates:
    """The reverse of `SeriesStates.to_bytes`."""
    states_at = 4 + 16 * int.from_bytes(data[:4], "little")
    return _unpacked(tenant, metrics, data[4:states_at], data[states_at:])


def _unpacked(tenant: TenantId, metrics: tuple[str, ...], uids: bytes, states: bytes) -> SeriesStates:
    words = np.frombuffer(states, "<i8").reshape(len(uids) // 16, len(metrics), STATE_WORDS)
    first, last, value, arrival = (np.ascontiguousarray(words[:, :, word].T) for word in range(STATE_WORDS))
    device_uids = np.frombuffer(uids, np.uint8).reshape(-1, 16)
    return SeriesStates(tenant, metrics, device_uids, first, last, value.view(np.float64), arrival)


def states_of(tenant: TenantId, table: SortedTable, block_arrival: int) -> SeriesStates:
    """The states that a sorted table alone gives; `block_arrival` is that of its block."""
    starts = table.run_starts()
    ends = starts + table.row_counts
    shape = (len(table.metrics), len(starts))
    first_us = np.full(shape, _LATER, np.int64)
    last_us = np.full(shape, NEVER, np.int64)
    value = np.full(shape, np.nan)
    arrival = np.full(shape, block_arrival, np.int64)
    for metric, column in enumerate(table.values):
        missing = np.isnan(column)
        first, last = starts, ends - 1
        some: NDArray[np.bool_] | slice = slice(None)
        if missing.any():
            number = np.arange(len(column))
            first = np.minimum.reduceat(np.where(missing, _LATER, number), starts)
            last = np.maximum.reduceat(np.where(missing, -1, number), starts)
            some = last >= 0
            first, last = first[some], last[some]
        first_us[metric, some] = table.time_unix_us[first]
        last_us[metric, some] = table.time_unix_us[last]
        value[metric, some] = column[last]
        if table.arrival is not None:
            arrival[metric, some] = table.arrival[last]
    return SeriesStates(tenant, table.metrics, table.device_uids, first_us, last_us, value, arrival)


def merge_states(parts: Sequence[SeriesStates]) -> SeriesStates:
    """States of the same tenant and metric set merged: newest event time wins, then the later arrival."""
    if len(parts) == 1:
        return parts[0]
    uids, device = unique_uids(np.concatenate([part.device_uids for part in parts]))
    first_us = np.concatenate([part.first_us for part in parts], axis=1)
    last_us = np.concatenate([part.last_us for part in parts], axis=1)
    value = np.concatenate([part.value for part in parts], axis=1)
    arrival = np.concatenate([part.arrival for part in parts], axis=1)
    by_device = np.argsort(device, kind="stable")
    starts = np.searchsorted(device[by_device], np.arange(len(uids)))
    ends = np.append(starts[1:], len(device)) - 1
    newest = np.empty((len(parts[0].metrics), len(uids)), np.intp)
    for metric in range(len(parts[0].metrics)):
        newest[metric] = np.lexsort((arrival[metric], last_us[metric], device))[ends]
    rows = np.arange(len(newest))[:, None]
    return SeriesStates(
        parts[0].tenant,
        parts[0].metrics,
        uids,
        np.minimum.reduceat(first_us[:, by_device], starts, axis=1),
        last_us[rows, newest],
        value[rows, newest],
        arrival[rows, newest],
    )


class SeriesBuffer:
    """States gathered since they were last written, by (partition, tenant, metric set)."""

    def __init__(self) -> None:
        self._parts: dict[tuple[TopicPartitionKey, TenantId, tuple[str, ...]], list[SeriesStates]] = {}

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, place: TopicPartitionKey, states: SeriesStates) -> None:
        """Adds states; merged from time to time so that the buffer stays as large as the fleet, not as the stream."""
        parts = self._parts.setdefault((place, states.tenant, states.metrics), [])
        parts.append(states)
        if len(parts) > 256:
            parts[:] = [merge_states(parts)]

    def absorb(self, other: "SeriesBuffer") -> None:
        """Adds all that another holds."""
        for (place, _, _), parts in other._parts.items():
            for states in parts:
                self.add(place, states)

    def merged_with(
        self, more: Sequence[tuple[TopicPartitionKey, SeriesStates]]
    ) -> dict[TopicPartitionKey, list[SeriesStates]]:
        """What is in it together with `more`, by partition, each device of a metric set once. Changes nothing."""
        parts = {key: list(held) for key, held in self._parts.items()}
        for place, states in more:
            parts.setdefault((place, states.tenant, states.metrics), []).append(states)
        merged: dict[TopicPartitionKey, list[SeriesStates]] = {}
        for (place, _, _), some in parts.items():
            merged.setdefault(place, []).append(merge_states(some))
        return merged

    def drop(self, tenant: TenantId) -> None:
        """Forgets a tenant."""
        for key in [key for key in self._parts if key[1] == tenant]:
            del self._parts[key]
