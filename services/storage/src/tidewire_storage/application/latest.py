"""GetLatest and ListSeries: what is known of each (device, metric) without opening a block, by device and metric."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.ids import TenantId
from tidewire_storage.application import page_token
from tidewire_storage.application.names import Names, Selection
from tidewire_storage.application.sweep import Wanted
from tidewire_storage.domain.series import NEVER, SeriesStates
from tidewire_storage.ports import BlockReader

_FIRST_DEVICES = 256
_MOST_DEVICES = 4_096


@dataclass(frozen=True, slots=True)
class SeriesEntry:
    """One metric of one device."""

    device_id: str
    metric: str
    first_us: int
    last_us: int
    value: float
    """The newest reading."""


@dataclass(slots=True)
class SeriesColumns:
    """Entries as columns of one length, by device and metric."""

    device_ids: Sequence[str]
    metrics: Sequence[str]
    """Rising."""
    device: NDArray[np.int32]
    """Index in `device_ids`."""
    metric: NDArray[np.int32]
    """Index in `metrics`."""
    first_us: NDArray[np.int64]
    last_us: NDArray[np.int64]
    value: NDArray[np.float64]

    def __len__(self) -> int:
        """Entries."""
        return len(self.device)

    def where(self, chosen: NDArray[np.bool_] | slice) -> "SeriesColumns":
        """Some of the entries."""
        return SeriesColumns(
            self.device_ids,
            self.metrics,
            self.device[chosen],
            self.metric[chosen],
            self.first_us[chosen],
            self.last_us[chosen],
            self.value[chosen],
        )

    def names(self) -> Iterator[tuple[str, str]]:
        """(device id, metric) of each entry."""
        ids, metrics = self.device_ids, self.metrics
        devices, numbers = self.device.tolist(), self.metric.tolist()
        return zip([ids[number] for number in devices], [metrics[number] for number in numbers], strict=True)


@dataclass(slots=True)
class SeriesPage:
    """Columns of which each begins after the one before it."""

    parts: list[SeriesColumns] = field(default_factory=list)
    next_page_token: str = ""

    @property
    def entries(self) -> list[SeriesEntry]:
        """Entry by entry."""
        return [
            SeriesEntry(*names, *rest)
            for part in self.parts
            for names, *rest in zip(
                part.names(), part.first_us.tolist(), part.last_us.tolist(), part.value.tolist(), strict=True
            )
        ]


class SeriesDirectory:
    """The use case behind both."""

    def __init__(self, store: BlockReader, names: Names) -> None:
        self._store = store
        self._names = names

    async def page(
        self,
        tenant: TenantId,
        device_ids: Sequence[str],
        metrics: Sequence[str],
        size: int,
        token: str,
        filter_text: str = "",
    ) -> SeriesPage:
        """At most `size` entries. Neither `device_ids` nor a filter: all devices; `metrics` empty: all metrics.

        NotFound for an unknown device, InvalidArgument for a wrong filter and for a token of another question.
        """
        chosen = frozenset(metrics)
        question = (tenant, tuple(sorted(set(device_ids))), tuple(sorted(chosen)), filter_text)
        after_device, _, after_metric = page_token.read(token, question).partition(" ")
        wanted = (await self._names.select(tenant, device_ids, filter_text)).starting_at(after_device)
        page, left = SeriesPage(), size
        first, step = 0, _FIRST_DEVICES
        while first < len(wanted):
            some = wanted.slice(first, first + step)
            part = _columns(some, await self._store.series(tenant, some.uids()), chosen)
            if not first and some.ids[0] == after_device:
                seen = np.array([metric <= after_metric for metric in part.metrics], np.bool_)
                part = part.where(~((part.device == 0) & seen[part.metric])) if len(part) else part
            if len(part) > left:
                # An entry follows the last of this page, so there is a next one.
                page.parts.append(part.where(slice(0, left)))
                names = [
                    names for some in page.parts if len(some) for names in some.where(slice(-1, None)).names()
                ]
                page.next_page_token = page_token.make(question, " ".join(names[-1]))
                return page
            page.parts.append(part)
            left -= len(part)
            first, step = first + step, min(step * 4, _MOST_DEVICES)
        return page


def _columns(devices: Selection, states: Sequence[SeriesStates], chosen: frozenset[str]) -> SeriesColumns:
    """The states of all metric sets as entries by device and metric, each once: the newest reading wins."""
    metrics = sorted({metric for some in states for metric in some.metrics if not chosen or metric in chosen})
    wanted = Wanted(devices.uids())
    if len(states) == 1:
        return _of_one_set(devices.ids, states[0], metrics, wanted)
    number_of = {metric: number for number, metric in enumerate(metrics)}
    device: list[NDArray[np.int32]] = []
    metric: list[NDArray[np.int32]] = []
    rows: list[list[NDArray[Any]]] = []
    for some in states:
        numbers = wanted.numbers(np.ascontiguousarray(some.device_uids))
        for place, name in enumerate(some.metrics):
            if name in number_of:
                there = np.flatnonzero((some.last_us[place] != NEVER) & (numbers >= 0))
                device.append(numbers[there])
                metric.append(np.full(len(there), number_of[name], np.int32))
                rows.append(
                    [
                        column[place][there]
                        for column in (some.first_us, some.last_us, some.value, some.arrival)
                    ]
                )
    if not device:
        none = np.empty(0, np.int64)
        short = np.empty(0, np.int32)
        return SeriesColumns(devices.ids, metrics, short, short, none, none, np.empty(0))
    of_device, of_metric = np.concatenate(device), np.concatenate(metric)
    first_us, last_us, value, arrival = (np.concatenate(column) for column in zip(*rows, strict=True))
    order = np.lexsort((arrival, last_us, of_metric, of_device))
    of_device, of_metric = of_device[order], of_metric[order]
    begins = np.append(True, (of_device[1:] != of_device[:-1]) | (of_metric[1:] != of_metric[:-1]))[
        : len(order)
    ]
    starts = np.flatnonzero(begins)
    newest = np.append(starts[1:], len(order))[: len(starts)] - 1
    return SeriesColumns(
        devices.ids,
        metrics,
        of_device[starts],
        of_metric[starts],
        np.minimum.reduceat(first_us[order], starts) if len(starts) else first_us,
        last_us[order][newest],
        value[order][newest],
    )


def _of_one_set(
    device_ids: Sequence[str], states: SeriesStates, metrics: Sequence[str], wanted: Wanted
) -> SeriesColumns:
    """As nearly all devices have one metric set: each entry is there once, and nothing has to be compared."""
    numbers = wanted.numbers(np.ascontiguousarray(states.device_uids))
    rows = numbers.argsort()[np.count_nonzero(numbers < 0) :]
    places = [states.metrics.index(metric) for metric in metrics]
    last_us = states.last_us[places].T[rows]
    there = (last_us != NEVER).nonzero()
    return SeriesColumns(
        device_ids,
        metrics,
        numbers[rows][there[0]],
        there[1].astype(np.int32),
        states.first_us[places].T[rows][there],
        last_us[there],
        states.value[places].T[rows][there],
    )
