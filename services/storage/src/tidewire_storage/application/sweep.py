"""Going through a tenant's blocks in order of time, decoding only what a question needs.

Shared by ReadSeries and Aggregate. Rows come out as soon as no block still to be read can hold anything earlier, so
that memory holds the overlap of blocks, not the whole answer.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.ids import TenantId
from tidewire_storage.domain.block_format import TableReader, read_block
from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_storage.domain.collapse import Collapsed, Part, collapse, split
from tidewire_storage.domain.rows import ROW_BITS
from tidewire_storage.ports import BlockReader

MIN_US = -(1 << 62)
MAX_US = 1 << 62

_PAGE_BLOCKS = 1_024
"""Blocks looked up at once: a long history has more than fit in memory."""
_BLOCKS_AT_ONCE = 64
_FIRST_BLOCKS = 4
"""The first answer should not wait for many blocks."""


class Wanted:
    """The devices of a question, by number."""

    def __init__(self, device_uids: Sequence[bytes]) -> None:
        words = np.frombuffer(b"".join(device_uids), "<u8").reshape(-1, 2)
        self._order = np.lexsort((words[:, 0], words[:, 1]))
        self._words = words[self._order]

    def numbers(self, uids: NDArray[np.uint8]) -> NDArray[np.int32]:
        """(n, 16) → (n,): each device's number in the question; -1: not asked for."""
        words = uids.view("<u8")
        place = np.searchsorted(self._words[:, 1], words[:, 1])
        out = np.full(len(words), -1, np.int32)
        while True:  # several devices with the same second word: next to never more than one round
            valid = place < len(self._words)
            found = np.zeros(len(words), np.bool_)
            found[valid] = (self._words[place[valid]] == words[valid]).all(axis=1)
            out[found] = self._order[place[found]]
            again = valid & ~found
            again[valid] &= self._words[place[valid], 1] == words[valid, 1]
            if not again.any():
                return out
            place = np.where(again, place + 1, len(self._words))


async def sweep(
    store: BlockReader,
    tenant: TenantId,
    place: TopicPartitionKey,
    wanted: Wanted,
    metrics: tuple[str, ...] | None,
    start_us: int,
    end_us: int,
) -> AsyncIterator[Collapsed]:
    """Yields rows with times in [start_us, end_us): all of one item are later than all of the items before.

    Within an item rows are by device and time. `metrics` None: those that are there, in order of name; the columns of
    two items may then differ.
    """
    waiting: list[Part] = []
    step = _FIRST_BLOCKS
    ahead = await store.find(tenant, place, start_us, end_us, limit=_PAGE_BLOCKS)
    more = len(ahead) == _PAGE_BLOCKS
    while ahead:
        some, ahead = ahead[:step], ahead[step:]
        step = _BLOCKS_AT_ONCE
        if more and not ahead:
            ahead = await store.find(tenant, place, start_us, end_us, after=some[-1], limit=_PAGE_BLOCKS)
            more = len(ahead) == _PAGE_BLOCKS
        data = await store.read(some)
        horizon = ahead[0].facts.min_time_us if ahead else MAX_US
        rows, waiting = await asyncio.to_thread(
            _work, data, wanted, metrics, start_us, end_us, waiting, horizon
        )
        if len(rows):
            yield rows


def _work(
    data: Sequence[bytes | None],
    wanted: Wanted,
    metrics: tuple[str, ...] | None,
    start_us: int,
    end_us: int,
    waiting: list[Part],
    horizon: int,
) -> tuple[Collapsed, list[Part]]:
    parts = list(waiting)
    for raw in data:
        if raw is not None:
            header, readers = read_block(raw)
            for reader in readers:
                part = _part(reader, header.key.first_offset, wanted, metrics, start_us, end_us)
                if part is not None:
                    parts.append(part)
    final, rest = split(parts, horizon)
    columns = metrics
    if columns is None:
        columns = tuple(sorted({name for part in final for name in part.columns}))
    return collapse(final, columns), rest


def _part(
    reader: TableReader,
    first_offset: int,
    wanted: Wanted,
    metrics: tuple[str, ...] | None,
    start_us: int,
    end_us: int,
) -> Part | None:
    names = reader.metrics if metrics is None else [name for name in reader.metrics if name in metrics]
    if not names:
        return None
    numbers = wanted.numbers(reader.device_uids)
    if not (numbers >= 0).any():
        return None
    device = np.repeat(numbers, reader.row_counts)
    time = reader.time()
    rows = (device >= 0) & (time >= start_us) & (time < end_us)
    picked = np.flatnonzero(rows)
    if not picked.size:
        return None
    arrival = reader.arrival()
    order = np.full(len(picked), first_offset << ROW_BITS) if arrival is None else arrival[picked]
    columns = {name: reader.column(name)[picked] for name in names}
    return Part(device[picked], time[picked], order, columns)
