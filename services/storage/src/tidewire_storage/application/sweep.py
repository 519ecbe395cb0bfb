"""Going through a tenant's blocks in order of time, decoding only what a question needs.

Shared by ReadSeries and Aggregate. Rows come out as soon as no block still to be read can hold anything earlier, so
that memory holds the overlap of blocks, not the whole answer.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.ids import TenantId
from tidewire_storage.application.directories import Directories
from tidewire_storage.domain.block_format import read_block
from tidewire_storage.domain.blocks import StoredBlock, TopicPartitionKey
from tidewire_storage.domain.collapse import Collapsed, Part, collapse, split
from tidewire_storage.domain.columns import TableReader
from tidewire_storage.domain.sealed_format import Directory, SealedTable
from tidewire_storage.ports import BlockReader, RangesOf

MIN_US = -(1 << 62)
MAX_US = 1 << 62

_PAGE_BLOCKS = 1_024
"""Blocks looked up at once: a long history has more than fit in memory."""
_BLOCKS_AT_ONCE = 64
_CELLS_AT_ONCE = 4_000_000
"""32 MB, some three times in memory."""
_FEW_DEVICES = 16
"""Of so few the pages of many blocks are few."""
_FIRST_BLOCKS = 4
"""The first answer should not wait for many blocks."""
_INLINE_CELLS = 20_000
"""So few are decoded in about the time that a thread takes to begin."""

Found = tuple[int, list[StoredBlock]]
"""The number of seals, and the blocks that were found at it."""


class Wanted:
    """The devices of a question, by number."""

    def __init__(self, device_uids: Sequence[bytes]) -> None:
        words = np.frombuffer(b"".join(device_uids), "<u8").reshape(-1, 2)
        self._order = np.lexsort((words[:, 0], words[:, 1]))
        self._words = words[self._order]

    def __len__(self) -> int:
        """Number of devices."""
        return len(self._order)

    def numbers(self, uids: NDArray[np.uint8]) -> NDArray[np.int32]:
        """(n, 16) → (n,): each device's number in the question; -1: not asked for."""
        words = uids.view("<u8")
        if len(self) == 1:
            (one,) = self._words
            return np.where((words[:, 0] == one[0]) & (words[:, 1] == one[1]), np.int32(0), np.int32(-1))
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
    directories: Directories,
    tenant: TenantId,
    place: TopicPartitionKey,
    wanted: Wanted,
    metrics: tuple[str, ...] | None,
    start_us: int,
    end_us: int,
    rollup: int | None = None,
    found: Found | None = None,
) -> AsyncIterator[Collapsed]:
    """Yields rows with times in [start_us, end_us): all of one item are later than all of the items before.

    Within an item rows are by device and time. `metrics` None: those that are there, in order of name; the columns of
    two items may then differ. `rollup`: rows of rollups of this level instead of readings; `found`: all blocks of it,
    by one who has looked already.
    Where sealing replaces blocks meanwhile, it goes on with what has taken their place.
    """
    question = Question(wanted, metrics, end_us)
    waiting: list[Part] = []
    missed: set[object] = set()
    step = _FIRST_BLOCKS
    if found is None:
        seals, ahead = await _find(store, tenant, place, start_us, end_us, rollup)
        more = len(ahead) == _PAGE_BLOCKS
    else:
        (seals, ahead), more = found, False
    while ahead:
        first = prefix(ahead[:step], question)
        some, ahead = ahead[:first], ahead[first:]
        step = _BLOCKS_AT_ONCE
        opened: list[Opened] = []
        again = False
        if more and not ahead:
            ahead = await store.find(
                tenant, place, start_us, end_us, after=some[-1], limit=_PAGE_BLOCKS, rollup=rollup
            )
            more = len(ahead) == _PAGE_BLOCKS
            again = await store.seals(place) != seals  # then this page may not belong to those before
        if not again:
            opened, gone = await open_blocks(store, directories, some, question, start_us)
            again = not gone <= missed
            missed |= gone
        if again:  # what is before `start_us` is out already
            seals, ahead = await _find(store, tenant, place, start_us, end_us, rollup)
            more = len(ahead) == _PAGE_BLOCKS
            waiting = []
            continue
        horizon = ahead[0].facts.min_time_us if ahead else MAX_US
        if not waiting and question.cells(opened) <= _INLINE_CELLS:
            rows, waiting = _work(opened, question, start_us, waiting, horizon)
        else:
            rows, waiting = await asyncio.to_thread(_work, opened, question, start_us, waiting, horizon)
        if len(rows):
            yield rows
        start_us = max(start_us, min(horizon, end_us))


def prefix(blocks: Sequence[StoredBlock], question: "Question") -> int:
    """How many of the first blocks may be decoded at once: at least one."""
    if len(question.wanted) <= _FEW_DEVICES:
        return len(blocks)
    cells, metrics = 0, question.metrics
    for number, block in enumerate(blocks):
        columns = max(map(len, block.facts.metric_sets)) if metrics is None else len(metrics)
        cells += block.facts.rows * (1 + columns)
        if cells > _CELLS_AT_ONCE and number:
            return number
    return len(blocks)


async def rows_in(
    store: BlockReader,
    directories: Directories,
    blocks: Sequence[StoredBlock],
    wanted: Wanted,
    start_us: int,
    end_us: int,
) -> AsyncIterator[NDArray[np.int64]]:
    """Yields the times in [start_us, end_us) of the wanted devices' rows in blocks; of blocks that are gone nothing."""
    question = Question(wanted, None, end_us)
    for first in range(0, len(blocks), _BLOCKS_AT_ONCE):
        opened, _ = await open_blocks(
            store, directories, blocks[first : first + _BLOCKS_AT_ONCE], question, start_us
        )
        for _, reader in opened:
            numbers = wanted.numbers(reader.device_uids)
            if (numbers >= 0).any():
                time = reader.time()
                rows = np.repeat(numbers >= 0, reader.row_counts) & (time >= start_us) & (time < end_us)
                yield time[rows]


async def _find(
    store: BlockReader,
    tenant: TenantId,
    place: TopicPartitionKey,
    start_us: int,
    end_us: int,
    rollup: int | None,
) -> Found:
    """The first page of blocks, with the seals that it knows of."""
    look = await store.look(tenant, place, start_us, end_us, (rollup,), _PAGE_BLOCKS)
    return look.seals, look.found[0]


@dataclass(frozen=True, slots=True)
class Question:
    """What matters of blocks."""

    wanted: Wanted
    metrics: tuple[str, ...] | None
    end_us: int

    def cells(self, opened: Sequence["Opened"]) -> int:
        """How many are decoded, at most."""
        wanted = self.metrics
        return sum(
            reader.rows * (1 + len(reader.metrics if wanted is None else wanted)) for _, reader in opened
        )


Opened = tuple[int, TableReader]
"""Arrival of its block, and a table of it."""


async def open_blocks(
    store: BlockReader,
    directories: Directories,
    blocks: Sequence[StoredBlock],
    question: Question,
    start_us: int,
) -> tuple[list[Opened], set[object]]:
    """Tables of the blocks, of sealed ones the pages that matter; and the identities of blocks that are gone.

    `Question.metrics` None: all. What ends before `start_us` does not matter. Raises BlockDamaged, Unavailable.
    """
    whole = [block for block in blocks if not block.head_bytes]
    sealed = [block for block in blocks if block.head_bytes]
    opened: list[Opened] = []
    gone: set[object] = set()
    for block, raw in zip(whole, await store.read(whole) if whole else (), strict=True):
        if raw is None:
            gone.add(block.identity)
        else:
            opened += [(block.key.arrival, reader) for reader in read_block(raw)[1]]
    pages: list[tuple[StoredBlock, list[tuple[SealedTable, int]]]] = []
    for block, directory in zip(sealed, await directories.of(sealed), strict=True):
        if directory is None:
            gone.add(block.identity)
        else:
            pages.append((block, list(_pages(directory, question, start_us))))
    asked = [RangesOf(block, [table.span(page) for table, page in found]) for block, found in pages]
    for (block, found), data in zip(pages, await directories.pages(asked) if asked else (), strict=True):
        if data is None:
            gone.add(block.identity)
            continue
        for (table, page), raw in zip(found, data, strict=True):
            opened.append((block.key.arrival, table.page(page, raw)))
    return opened, gone


def _pages(directory: Directory, question: Question, start_us: int) -> Iterator[tuple[SealedTable, int]]:
    for table in directory.tables:
        if question.metrics is None or not set(question.metrics).isdisjoint(table.metrics):
            devices = question.wanted.numbers(table.device_uids) >= 0
            for page in table.wanted_pages(devices, start_us, question.end_us):
                yield table, page


def _work(
    opened: Sequence[Opened],
    question: Question,
    start_us: int,
    waiting: list[Part],
    horizon: int,
) -> tuple[Collapsed, list[Part]]:
    parts = list(waiting)
    for block_arrival, reader in opened:
        part = _part(reader, block_arrival, question.wanted, question.metrics, start_us, question.end_us)
        if part is not None:
            parts.append(part)
    final, rest = split(parts, horizon)
    columns = question.metrics
    if columns is None:
        columns = tuple(sorted({name for part in final for name in part.columns}))
    return collapse(final, columns), rest


def _part(
    reader: TableReader,
    block_arrival: int,
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
    arrival = reader.arrival()
    if rows.all():
        order = np.full(len(time), block_arrival) if arrival is None else arrival
        return Part(device, time, order, {name: reader.column(name) for name in names})
    picked = np.flatnonzero(rows)
    if not picked.size:
        return None
    order = np.full(len(picked), block_arrival) if arrival is None else arrival[picked]
    columns = {name: reader.column(name)[picked] for name in names}
    return Part(device[picked], time[picked], order, columns)
