"""ReadSeries: one device's readings by time, in parts, in pages."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.ids import TenantId
from tidewire_storage.application import page_token
from tidewire_storage.application.directories import Directories
from tidewire_storage.application.names import Names
from tidewire_storage.application.sweep import MAX_US, MIN_US, Wanted, sweep
from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_storage.domain.collapse import Collapsed
from tidewire_storage.ports import BlockReader

PART_ROWS = 10_000
_PART_CELLS = 400_000
"""Keeps a message below 4 MiB however many metrics a device has."""


@dataclass(frozen=True, slots=True)
class SeriesPart:
    """Rows later than those of the parts before, each time once."""

    metrics: tuple[str, ...]
    time_unix_us: NDArray[np.int64]
    values: list[NDArray[np.float64]]
    """Per metric (rows,); NaN: no reading."""
    next_page_token: str
    """Set in the last part when the page is full and there is more."""


class ReadSeries:
    """The use case."""

    def __init__(
        self, store: BlockReader, directories: Directories, names: Names, incarnation: bytes
    ) -> None:
        self._store = store
        self._directories = directories
        self._names = names
        self._incarnation = incarnation

    async def read(
        self,
        tenant: TenantId,
        device_id: str,
        metrics: Sequence[str],
        start_us: int | None,
        end_us: int | None,
        max_rows: int,
        token: str,
    ) -> AsyncIterator[SeriesPart]:
        """Yields parts of at most 10,000 rows; none when there is nothing. `metrics` empty: all. `max_rows` 0: all.

        NotFound for an unknown device, InvalidArgument for a token of another question.
        """
        uid, partition = self._names.device(tenant, device_id)
        question = (tenant, uid, tuple(metrics), start_us, end_us)
        position = page_token.read(token, question)
        begin = int(position) if position else (MIN_US if start_us is None else start_us)
        end = MAX_US if end_us is None else end_us
        place = TopicPartitionKey(self._incarnation, partition)
        wanted = Wanted([uid])
        left = max_rows
        held: SeriesPart | None = None
        async for rows in sweep(
            self._store,
            self._directories,
            tenant,
            place,
            wanted,
            tuple(dict.fromkeys(metrics)) or None,
            begin,
            end,
        ):
            for piece in _pieces(rows):
                if held is not None and max_rows and left == 0:
                    next_us = int(piece.time[0])
                    yield _part(
                        held.metrics, held.time_unix_us, held.values, page_token.make(question, str(next_us))
                    )
                    return
                if held is not None:
                    yield held
                if max_rows and len(piece) > left:
                    next_us = int(piece.time[left])
                    piece = piece.slice(0, left)
                    yield _part(
                        piece.metrics, piece.time, piece.values, page_token.make(question, str(next_us))
                    )
                    return
                left -= len(piece)
                held = _part(piece.metrics, piece.time, piece.values, "")
        if held is not None:
            yield held


def _part(
    metrics: tuple[str, ...], time: NDArray[np.int64], values: list[NDArray[np.float64]], token: str
) -> SeriesPart:
    return SeriesPart(metrics, time, values, token)


def _pieces(rows: Collapsed) -> list[Collapsed]:
    step = min(PART_ROWS, max(1, _PART_CELLS // max(1, len(rows.metrics))))
    return [rows.slice(first, first + step) for first in range(0, len(rows), step)]
