"""The cold tier's two halves: a Parquet object with the rows, and a block without rows that says where they are.

    object  one day of one tenant's devices of a partition: columns device_uid (32 hex digits), device (its name when
            it was written), time (TIMESTAMP, µs, UTC), and a DOUBLE a metric, null where there is no reading; sorted by
            device_uid and time; a row group holds whole devices unless one has very many rows
    block   `block_header`; then the object's name, size and footer, and a directory as sealed blocks have, in which a
            row group is a page

The block is what the store keeps: it has the facts, the key and the ledger's readings. A query finds the row groups in
it and reads these, and nothing else of the object. The footer has statistics of devices and times alone, no values.
"""

import struct
import uuid
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import xxhash
import zstandard
from numpy.typing import NDArray

from tidewire_storage.domain.block_header import COLD, HEADER_BYTES, BlockDamaged, BlockHeader, pack_header
from tidewire_storage.domain.blocks import Block, BlockFacts, BlockKey
from tidewire_storage.domain.collapse import Collapsed
from tidewire_storage.domain.columns import TableReader
from tidewire_storage.domain.rows import SortedTable, not_among
from tidewire_storage.domain.sealed_format import Arrays, Directory, SealedTable, pack_directory, page_bounds

GROUP_ROWS = 20_000
"""A row group is closed when it has as many."""
MOST_GROUP_ROWS = 65_536

_OBJECT = struct.Struct("<HIQq")
"""Bytes of the name, of the footer as compressed, and of the object; when it was written, in µs."""
_MAGIC = b"PAR1"
_OWN_COLUMNS = frozenset({"device_uid", "device", "time", "tenant", "day"})


def object_name(tenant: bytes, day: int, partition: int, nonce: bytes) -> str:
    """The name of an object; `day` since 1970. No two are alike, whatever they hold."""
    date = np.datetime64(day, "D")
    return f"tenant={tenant.hex()}/day={date}/p{partition:05d}-{nonce.hex()}.parquet"


def partition_of_object(name: str) -> int | None:
    """The partition in an object's name; None: it is not one of ours."""
    _, _, last = name.rpartition("/p")
    number = last.partition("-")[0]
    return int(number) if number.isdigit() and name.endswith(".parquet") else None


def encode(
    key: BlockKey,
    hour_us: int,
    name: str,
    written_us: int,
    rows: Collapsed,
    uids: NDArray[np.uint8],
    names: Sequence[str],
) -> tuple[bytes, Block]:
    """The object, and the block that stands for it.

    `uids` (n, 16) and `names` are those of the devices that `rows` number; the uids rise. At least one row.
    """
    held = [place for place, column in enumerate(rows.values) if not np.isnan(column).all()]
    metrics = tuple(rows.metrics[place] for place in held)
    values = [rows.values[place] for place in held]
    counts = np.bincount(rows.device, minlength=len(uids)).astype(np.uint32)
    there = counts > 0
    table = SortedTable(metrics, uids[there], counts[there], rows.time, values)
    bounds = page_bounds(table.row_counts, GROUP_ROWS, MOST_GROUP_ROWS)
    data, footer, spans = _write(table, [name for name, own in zip(names, there, strict=True) if own], bounds)
    groups = list(pairwise(bounds))
    lengths = [length for _, size in spans for length in (size, *(0 for _ in metrics))]
    packed = zstandard.compress(footer)
    head = b"".join(
        [
            _OBJECT.pack(len(name.encode()), len(packed), len(data), written_us),
            name.encode(),
            packed,
            *pack_directory(
                table,
                bounds,
                lengths,
                [0] * len(lengths),
                [xxhash.xxh3_64_intdigest(memoryview(data)[at : at + size]) for at, size in spans],
                [int(rows.time[first:end].min()) for first, end in groups],
                [int(rows.time[first:end].max()) for first, end in groups],
            ),
        ]
    )
    facts = BlockFacts(
        hour_us, table.rows, table.readings(), int(rows.time.min()), int(rows.time.max()), (metrics,)
    )
    total = HEADER_BYTES + len(head)
    header = pack_header(key, facts, COLD, len(head), total, xxhash.xxh3_64_intdigest(head))
    return data, Block(key, facts, header + head, total)


def column_name(metric: str) -> str:
    """The column of a metric: its name, unless that is one of the other columns'."""
    return f"metric.{metric}" if metric.lower() in _OWN_COLUMNS else metric


def _write(
    table: SortedTable, names: Sequence[str], bounds: Sequence[int]
) -> tuple[bytes, bytes, list[tuple[int, int]]]:
    """The object's bytes, its footer, and (position, bytes) of its row groups."""
    import pyarrow as pa  # not needed, and not small, where there is no cold tier
    from pyarrow import parquet

    devices = np.repeat(np.arange(len(names), dtype=np.int32), table.row_counts)
    hexes = [str(uuid.UUID(bytes=uid.tobytes()).hex) for uid in table.device_uids]
    fields = [("device_uid", pa.string()), ("device", pa.string()), ("time", pa.timestamp("us", "UTC"))]
    fields += [(column_name(metric), pa.float64()) for metric in table.metrics]
    schema = pa.schema(
        [pa.field(name, kind, nullable=place > 2) for place, (name, kind) in enumerate(fields)]
    )
    columns: list[Any] = [
        pa.array(hexes, pa.string()).take(pa.array(devices)),
        pa.array(names, pa.string()).take(pa.array(devices)),
        pa.array(table.time_unix_us, pa.timestamp("us", "UTC")),
        *(pa.array(column, mask=np.isnan(column)) for column in table.values),
    ]
    whole = pa.Table.from_arrays(columns, schema=schema)
    sink = pa.BufferOutputStream()
    order = [("device_uid", "ascending"), ("time", "ascending")]
    with parquet.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        use_dictionary=["device_uid", "device"],
        write_statistics=["device_uid", "device", "time"],
        sorting_columns=parquet.SortingColumn.from_ordering(schema, order),
        store_schema=False,
    ) as writer:
        for first, end in pairwise(bounds):
            writer.write_table(whole.slice(first, end - first), row_group_size=end - first)
    data = sink.getvalue().to_pybytes()
    footer_bytes = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - footer_bytes : -8]
    metadata = parquet.read_metadata(pa.BufferReader(data))
    spans = []
    at = len(_MAGIC)
    for group in range(metadata.num_row_groups):
        size = sum(
            metadata.row_group(group).column(number).total_compressed_size for number in range(len(fields))
        )
        spans.append((at, size))
        at += size
    if at + footer_bytes + 8 != len(data) or len(spans) != len(bounds) - 1:
        raise BlockDamaged("the Parquet writer put something between row groups")
    return data, footer, spans


class ColdTable(SealedTable):
    """The table of an object: its row groups are pages, and positions are those in the object."""

    __slots__ = ("_footer", "_metadata", "_object_bytes")

    def __init__(self, arrays: Arrays, footer: bytes, object_bytes: int) -> None:
        super().__init__(*arrays.table(), arrays)
        self.place(len(_MAGIC))
        self._footer = footer
        self._object_bytes = object_bytes
        self._metadata: Any = None

    def page(self, page: int, data: bytes | memoryview) -> TableReader:
        """See SealedTable."""
        self.verify(page, data)
        device_uids, row_counts = self.devices_of(page)
        return _RowGroup(self, device_uids, row_counts, page, bytes(data))

    def column_of(self, page: int, data: bytes, name: str) -> Any:
        """A column of a row group as an Arrow array. Raises BlockDamaged."""
        import pyarrow as pa
        from pyarrow import parquet

        try:
            if self._metadata is None:
                raw = zstandard.decompress(self._footer)
                small = _MAGIC + raw + len(raw).to_bytes(4, "little") + _MAGIC
                self._metadata = parquet.read_metadata(pa.BufferReader(small))
            source = pa.PythonFile(_Sparse(self.span(page)[0], data, self._object_bytes), mode="r")
            file = parquet.ParquetFile(source, metadata=self._metadata, pre_buffer=False)
            return file.read_row_group(page, columns=[name], use_threads=False).column(0)
        except (pa.ArrowException, OSError, zstandard.ZstdError) as error:
            raise BlockDamaged(f"an object of the cold tier cannot be read: {error}") from error


class _RowGroup(TableReader):
    """A row group; its columns are decoded when asked for."""

    __slots__ = ("_data", "_page", "_table")

    def __init__(
        self,
        table: ColdTable,
        device_uids: NDArray[np.uint8],
        row_counts: NDArray[np.uint32],
        page: int,
        data: bytes,
    ) -> None:
        super().__init__(table.metrics, device_uids, row_counts, (), ())
        self._table = table
        self._page = page
        self._data = data

    def time(self) -> NDArray[np.int64]:
        """See TableReader."""
        found = self._table.column_of(self._page, self._data, "time")
        times: NDArray[np.int64] = found.cast("int64").to_numpy()
        return times

    def column(self, metric: str) -> NDArray[np.float64]:
        """See TableReader."""
        found = self._table.column_of(self._page, self._data, column_name(metric))
        values: NDArray[np.float64] = found.to_numpy()  # null becomes NaN
        return values


class _Sparse:
    """A file of which only one part is at hand: what Arrow reads of a row group is in it."""

    closed = False

    def __init__(self, at: int, data: bytes, size: int) -> None:
        self._first = at
        self._data = data
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def size(self) -> int:
        return self._size

    def read(self, count: int = -1) -> bytes:
        first = self._at - self._first
        if first < 0 or count < 0 or first + count > len(self._data):
            raise OSError("a read outside of the row group")
        self._at += count
        return self._data[first : first + count]

    def flush(self) -> None:
        """Nothing is written."""

    def close(self) -> None:
        """Nothing is open."""


class ColdDirectory(Directory):
    """What the store keeps of an object. Raises BlockDamaged."""

    __slots__ = ("name", "object_bytes", "written_us")

    def __init__(self, data: bytes | memoryview) -> None:
        self.header = BlockHeader(data)
        head = bytes(data[HEADER_BYTES : HEADER_BYTES + self.header.directory_bytes])
        if self.header.version != COLD or xxhash.xxh3_64_intdigest(head) != self.header.checksum:
            raise BlockDamaged("what is known of an object does not match its checksum")
        name_bytes, footer_bytes, self.object_bytes, self.written_us = _OBJECT.unpack_from(head)
        arrays = Arrays(head)
        arrays.at = _OBJECT.size
        self.name = arrays.take_bytes(name_bytes).decode()
        footer = arrays.take_bytes(footer_bytes)
        self.tables: list[SealedTable] = [ColdTable(arrays, footer, self.object_bytes)]

    def holds(self, devices: Collection[bytes]) -> bool:
        """Whether the object has rows of any of these."""
        return any(not not_among(table.device_uids, devices).all() for table in self.tables)


def open_directory(data: bytes | memoryview) -> Directory:
    """The directory of a sealed block, or of one whose rows lie in an object. Raises BlockDamaged."""
    return ColdDirectory(data) if BlockHeader(data).version == COLD else Directory(data)
