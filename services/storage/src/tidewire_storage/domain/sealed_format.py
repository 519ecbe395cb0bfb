"""The bytes of a sealed block: the rows of an epoch, laid out so that one device's are read without the others'.

    header     `block_header`; checksum of the directory
    directory  per table: metric names, device uids, row counts; per page its rows, bytes, times, codecs, checksum
    pages      per table, in order of rows: time, then one column per metric

A page holds several whole devices of few rows, or one device's rows, or part of a device of very many. A query reads
the directory once and then only the pages that it needs. Each (device, time) of a table is there once. Written by
sealing.
"""

import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from tidewire_storage.domain import columns, tuning
from tidewire_storage.domain.block_header import HEADER_BYTES, SEALED, BlockDamaged, BlockHeader, pack_header
from tidewire_storage.domain.blocks import ROLLUP_DAY, Block, BlockFacts, BlockKey
from tidewire_storage.domain.columns import Packed, TableReader
from tidewire_storage.domain.rows import SortedTable
from tidewire_storage.domain.tuning import Series

PAGE_ROWS = 1_000
"""A page is closed when it has as many: below it, columns take more bytes and time a row."""
DAY_PAGE_ROWS = 8_192
"""Of rollups by day, which reports read of all devices at once."""
MOST_PAGE_ROWS = 16_384
"""A device with more is split: a query for an hour should not decode a month."""

_TABLE = struct.Struct("<III")
"""Metrics, devices, pages."""


def encode(key: BlockKey, facts: BlockFacts, tables: Sequence[SortedTable]) -> Block:
    """Puts a block together; tables have no arrival column and each (device, time) once."""
    directory: list[bytes] = []
    pages: list[bytes] = []
    page_rows = DAY_PAGE_ROWS if key.level == ROLLUP_DAY else PAGE_ROWS
    for table in tables:
        series = [(key.tenant, key.level, name) for name in table.metrics]
        _encode_table(table, series, page_rows, directory, pages)
    head = b"".join(directory)
    total = HEADER_BYTES + len(head) + sum(len(page) for page in pages)
    header = pack_header(key, facts, SEALED, len(head), total, xxhash.xxh3_64_intdigest(head))
    return Block(key, facts, b"".join([header, head, *pages]), HEADER_BYTES + len(head))


def _encode_table(
    table: SortedTable, series: Sequence[Series], page_rows: int, directory: list[bytes], pages: list[bytes]
) -> None:
    bounds = page_bounds(table.row_counts, page_rows, MOST_PAGE_ROWS)
    codecs: list[int] = []
    lengths: list[int] = []
    checksums: list[int] = []
    least: list[int] = []
    greatest: list[int] = []
    for first, end in pairwise(bounds):
        times = table.time_unix_us[first:end]
        packed = [
            columns.pack_times(times),
            *(
                tuning.pack_values(name, column[first:end])
                for name, column in zip(series, table.values, strict=True)
            ),
        ]
        page = b"".join(data for _, data in packed)
        codecs += [codec for codec, _ in packed]
        lengths += [len(data) for _, data in packed]
        checksums.append(xxhash.xxh3_64_intdigest(page))
        least.append(int(times.min()))
        greatest.append(int(times.max()))
        pages.append(page)
    directory += pack_directory(table, bounds, lengths, codecs, checksums, least, greatest)


def pack_directory(
    table: SortedTable,
    bounds: Sequence[int],
    lengths: Sequence[int],
    codecs: Sequence[int],
    checksums: Sequence[int],
    least: Sequence[int],
    greatest: Sequence[int],
) -> list[bytes]:
    """What a directory says of a table: `lengths` and `codecs` per page of the time column and of each metric's."""
    names = [name.encode() for name in table.metrics]
    return [
        _TABLE.pack(len(names), len(table.device_uids), len(checksums)),
        *(bytes([len(name)]) + name for name in names),
        np.ascontiguousarray(table.device_uids).tobytes(),
        table.row_counts.astype("<u4").tobytes(),
        np.array(bounds[1:], "<u4").tobytes(),
        np.array(lengths, "<u4").tobytes(),
        np.array(codecs, "u1").tobytes(),
        np.array(checksums, "<u8").tobytes(),
        np.array(least, "<i8").tobytes(),
        np.array(greatest, "<i8").tobytes(),
    ]


def page_bounds(row_counts: NDArray[np.uint32], least_rows: int, most_rows: int) -> list[int]:
    """First rows of the pages, and the end of the last; pages of whole devices, but of one that has more than fit."""
    bounds = [0]
    end = 0
    for rows in row_counts.tolist():
        if rows >= least_rows and end > bounds[-1]:
            bounds.append(end)
        parts = -(-rows // most_rows)
        bounds += [end + rows * part // parts for part in range(1, parts)]
        end += rows
        if end - bounds[-1] >= least_rows:
            bounds.append(end)
    if end > bounds[-1]:
        bounds.append(end)
    return bounds


class SealedTable:
    """What the directory says of a table."""

    __slots__ = (
        "_at",
        "_checksums",
        "_codecs",
        "_greatest",
        "_least",
        "_lengths",
        "_page_ends",
        "_row_ends",
        "device_uids",
        "metrics",
        "row_counts",
    )

    def __init__(self, metrics: tuple[str, ...], devices: int, pages: int, arrays: "Arrays") -> None:
        self.metrics = metrics
        self.device_uids: NDArray[np.uint8] = arrays.take("u1", devices * 16).reshape(devices, 16)
        """(devices, 16)."""
        self.row_counts: NDArray[np.uint32] = arrays.take("<u4", devices)
        """(devices,)."""
        self._row_ends = np.cumsum(self.row_counts, dtype=np.int64)
        self._page_ends: NDArray[np.int64] = arrays.take("<u4", pages).astype(np.int64)
        self._lengths: NDArray[np.uint32] = arrays.take("<u4", pages * (1 + len(metrics))).reshape(pages, -1)
        self._codecs: NDArray[np.uint8] = arrays.take("u1", pages * (1 + len(metrics))).reshape(pages, -1)
        self._checksums: NDArray[np.uint64] = arrays.take("<u8", pages)
        self._least: NDArray[np.int64] = arrays.take("<i8", pages)
        self._greatest: NDArray[np.int64] = arrays.take("<i8", pages)
        self._at = np.zeros(pages + 1, np.int64)

    def place(self, at: int) -> int:
        """Says where the first page begins in the block; returns where the last ends."""
        self._at[0] = at
        np.cumsum(self._lengths.sum(axis=1, dtype=np.int64), out=self._at[1:])
        self._at[1:] += at
        return int(self._at[-1])

    @property
    def pages(self) -> int:
        """Number of pages."""
        return len(self._checksums)

    def most_buckets(self, width_us: int) -> int:
        """At most so many pairs of a device and a bucket have rows; as many, where pages lie in order of time."""
        begins = np.append(0, self._page_ends[:-1])
        first = np.searchsorted(self._row_ends, begins, "right")
        last = np.searchsorted(self._row_ends, self._page_ends, "left")
        spans = self._greatest // width_us - self._least // width_us + 1
        return int(np.minimum((last - first + 1) * spans, self._page_ends - begins).sum())

    def wanted_pages(self, devices: NDArray[np.bool_], start_us: int, end_us: int) -> list[int]:
        """Pages that may hold rows of the devices where `devices` (devices,) is true, with times in [start, end)."""
        numbers = np.flatnonzero(devices)
        if not numbers.size:
            return []
        first = np.searchsorted(self._page_ends, self._row_ends[numbers] - self.row_counts[numbers], "right")
        last = np.searchsorted(self._page_ends, self._row_ends[numbers], "left")
        steps = np.zeros(self.pages + 1, np.int64)
        np.add.at(steps, first, 1)
        np.add.at(steps, last + 1, -1)
        found = (np.cumsum(steps[:-1]) > 0) & (self._greatest >= start_us) & (self._least < end_us)
        return [int(page) for page in np.flatnonzero(found)]

    def span(self, page: int) -> tuple[int, int]:
        """(position in the block, bytes) of a page."""
        return int(self._at[page]), int(self._at[page + 1] - self._at[page])

    def page(self, page: int, data: bytes | memoryview) -> TableReader:
        """A page as a table of its own; its first and last device may go on in its neighbours. Raises BlockDamaged."""
        return self.neighbours(page, [data])

    def neighbours(self, page: int, pieces: Sequence[bytes | memoryview]) -> TableReader:
        """Some pages side by side, from `page` on, as one table, otherwise as `page` gives them."""
        for number, data in enumerate(pieces, start=page):
            self.verify(number, data)
        device_uids, row_counts = self.devices_of(page, len(pieces))
        found = [self._columns(number, data) for number, data in enumerate(pieces, start=page)]
        times, *values = zip(*found, strict=True)
        return TableReader(self.metrics, device_uids, row_counts, times, values)

    def devices_of(self, page: int, pages: int = 1) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
        """(devices, 16) of some pages side by side, and (devices,) rows of each in them."""
        begin = int(self._page_ends[page - 1]) if page else 0
        end = int(self._page_ends[page + pages - 1])
        first = int(np.searchsorted(self._row_ends, begin, "right"))
        last = int(np.searchsorted(self._row_ends, end, "left")) + 1
        ends = np.minimum(self._row_ends[first:last], end)
        starts = np.maximum(self._row_ends[first:last] - self.row_counts[first:last], begin)
        return self.device_uids[first:last], (ends - starts).astype(np.uint32)

    def reader(self, data: bytes | memoryview) -> TableReader:
        """All pages of the whole block `data`."""
        view = memoryview(data)
        found = [self._columns(page, view[self._at[page] : self._at[page + 1]]) for page in range(self.pages)]
        times, *values = zip(*found, strict=True)
        return TableReader(self.metrics, self.device_uids, self.row_counts, times, values)

    def verify(self, page: int, data: bytes | memoryview) -> None:
        """Raises BlockDamaged unless these are the bytes of the page."""
        if xxhash.xxh3_64_intdigest(data) != int(self._checksums[page]):
            raise BlockDamaged("a page does not match its checksum")

    def _columns(self, page: int, data: bytes | memoryview) -> list[Packed]:
        view = memoryview(data)
        ends = np.cumsum(self._lengths[page]).tolist()
        codecs = self._codecs[page].tolist()
        starts = [0, *ends[:-1]]
        return [(codec, view[start:end]) for codec, start, end in zip(codecs, starts, ends, strict=True)]


class Directory:
    """The tables of a sealed block, from its first bytes: at least header and directory. Raises BlockDamaged."""

    __slots__ = ("header", "tables")

    def __init__(self, data: bytes | memoryview) -> None:
        self.header = BlockHeader(data)
        if self.header.version != SEALED:
            raise BlockDamaged(f"format version {self.header.version} where a sealed block was written")
        head = bytes(data[HEADER_BYTES : HEADER_BYTES + self.header.directory_bytes])
        if xxhash.xxh3_64_intdigest(head) != self.header.checksum:
            raise BlockDamaged("the directory does not match its checksum")
        self.tables: list[SealedTable] = []
        arrays = Arrays(head)
        at = HEADER_BYTES + len(head)
        while arrays.at < len(head):
            table = SealedTable(*arrays.table(), arrays)
            at = table.place(at)
            self.tables.append(table)

    def readers(self, data: bytes | memoryview) -> list[TableReader]:
        """All tables of the whole block `data`."""
        return [table.reader(data) for table in self.tables]

    def verify(self, data: bytes | memoryview) -> None:
        """Raises BlockDamaged unless every page of the whole block `data` is as it was written."""
        view = memoryview(data)
        for table, page in self._pages():
            position, length = table.span(page)
            table.verify(page, view[position : position + length])

    def _pages(self) -> Iterator[tuple[SealedTable, int]]:
        for table in self.tables:
            for page in range(table.pages):
                yield table, page


class Arrays:
    """Takes one array after the other out of a directory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def take(self, dtype: str, count: int) -> NDArray[Any]:
        """So many numbers."""
        array: NDArray[Any] = np.frombuffer(self._data, dtype, count, self.at)
        self.at += array.nbytes
        return array

    def table(self) -> tuple[tuple[str, ...], int, int]:
        """Metrics, devices and pages of the next table."""
        metrics, devices, pages = _TABLE.unpack_from(self._data, self.at)
        self.at += _TABLE.size
        return tuple(self.name() for _ in range(metrics)), devices, pages

    def take_bytes(self, count: int) -> bytes:
        """So many bytes."""
        self.at += count
        return self._data[self.at - count : self.at]

    def name(self) -> str:
        """The next name."""
        length = self._data[self.at]
        self.at += 1 + length
        return self._data[self.at - length : self.at].decode()
