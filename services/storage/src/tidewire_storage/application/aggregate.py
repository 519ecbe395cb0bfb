"""Aggregate: count, min, max, avg, sum, first, last and standard deviation, in buckets, by going through the blocks."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.errors import InvalidArgument
from tidewire_kit.ids import TenantId
from tidewire_storage.application.buckets import Buckets
from tidewire_storage.application.names import Names
from tidewire_storage.application.sweep import MAX_US, MIN_US
from tidewire_storage.domain.aggregates import Function, Partials, merge_partials
from tidewire_storage.domain.blocks import TopicPartitionKey

_ANSWER_BYTES = 3_500_000
"""Of 4 MiB that a message may have."""
_SERIES_BYTES = 160
_MERGE_EVERY = 64


@dataclass(frozen=True, slots=True)
class AggregatedSeries:
    """Buckets of one metric of one device, or of all (device_id "")."""

    device_id: str
    metric: str
    bucket_start_us: NDArray[np.int64]
    columns: list[NDArray[np.float64]]
    """Per function asked for, in the order asked."""


class Aggregate:
    """The use case."""

    def __init__(self, buckets: Buckets, names: Names, incarnation: bytes) -> None:
        self._buckets = buckets
        self._names = names
        self._incarnation = incarnation

    async def run(
        self,
        tenant: TenantId,
        device_ids: Sequence[str],
        metrics: Sequence[str],
        functions: Sequence[Function],
        start_us: int | None,
        end_us: int | None,
        bucket_us: int | None,
        *,
        across_devices: bool,
    ) -> list[AggregatedSeries]:
        """Series by device and metric; without readings a series is left out.

        NotFound for an unknown device; InvalidArgument when the answer would not fit in a message.
        """
        device_ids = sorted(set(device_ids))
        names = tuple(dict.fromkeys(metrics))
        by_partition: dict[int, list[tuple[int, bytes]]] = {}
        for number, device_id in enumerate(device_ids):
            uid, partition = self._names.device(tenant, device_id)
            by_partition.setdefault(partition, []).append((number, uid))
        start = MIN_US if start_us is None else start_us
        end = MAX_US if end_us is None else end_us
        tally = _Tally(names, len(functions), start_us, bucket_us, across_devices=across_devices)
        for partition, devices in by_partition.items():
            place = TopicPartitionKey(self._incarnation, partition)
            numbers = np.array([number for number, _ in devices], np.int32)
            uids = [uid for _, uid in devices]
            found = await self._buckets.of(
                tenant, place, uids, names, start, end, bucket_us, 0 if start_us is None else start_us
            )
            tally.add(found.parts, numbers)
        return await asyncio.to_thread(tally.series, device_ids, functions)


class _Tally:
    """Partial results while blocks are gone through."""

    def __init__(
        self,
        metrics: tuple[str, ...],
        functions: int,
        start_us: int | None,
        bucket_us: int | None,
        *,
        across_devices: bool,
    ) -> None:
        self._metrics = metrics
        self._functions = functions
        self._start_us = start_us
        self._bucket_us = bucket_us
        self._across = across_devices
        self._parts: list[list[Partials]] = [[] for _ in metrics]

    def add(self, found: Mapping[str, Partials], numbers: NDArray[np.int32]) -> None:
        """Adds partial results; `numbers` are their devices' numbers among all that were asked for."""
        for metric, parts in zip(self._metrics, self._parts, strict=True):
            part = found[metric]
            part.device = numbers[part.device]
            if len(part):
                parts.append(part)
            if len(parts) >= _MERGE_EVERY:
                parts[:] = [merge_partials(parts, across_devices=self._across)]
        self._check_size()

    def series(self, device_ids: Sequence[str], functions: Sequence[Function]) -> list[AggregatedSeries]:
        """The answer, by device and metric."""
        found: list[tuple[int, int, AggregatedSeries]] = []
        for metric, parts in enumerate(self._parts):
            if not parts:
                continue
            merged = merge_partials(parts, across_devices=self._across)
            parts[:] = [merged]
            begins = np.flatnonzero(np.append(True, merged.device[1:] != merged.device[:-1]))
            columns = [merged.column(function) for function in functions]
            starts = merged.bucket
            if self._bucket_us is None and self._start_us is None:
                starts = merged.first_us
            for first, last in zip(begins, np.append(begins[1:], len(merged)), strict=True):
                device = int(merged.device[first])
                series = AggregatedSeries(
                    "" if self._across else device_ids[device],
                    self._metrics[metric],
                    starts[first:last],
                    [column[first:last] for column in columns],
                )
                found.append((device, metric, series))
        self._check_size()
        return [series for _, _, series in sorted(found, key=lambda item: item[:2])]

    def _check_size(self) -> None:
        least = sum(max((len(part) for part in parts), default=0) for parts in self._parts)
        size = least * 8 * (1 + self._functions) + _SERIES_BYTES * len(self._parts)
        if size > _ANSWER_BYTES:
            why = "the answer would exceed 4 MiB; ask for a wider bucket, fewer devices or metrics, or less time"
            raise InvalidArgument("bucket_duration", why, reason="ANSWER_TOO_LARGE")
