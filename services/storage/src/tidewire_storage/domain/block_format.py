"""The bytes of a block: header, directory, columns. Written once by ingest, read by every query.

    header     fixed size; key, facts, checksum of the rest, checksum of itself
    directory  per table: counts, metric names, codec and length of each column
    columns    per table: device uids, row counts, time, arrival (or nothing), then one per metric

All numbers little-endian. A column lies alone, so that a query decodes only those it needs. The header alone says how
many readings a block holds, which is what the loss ledger recounts. Versions: 1.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray
from pcodec import ChunkConfig, DeltaSpec, standalone

from tidewire_kit.errors import TidewireError
from tidewire_kit.ids import TenantId
from tidewire_storage.domain.blocks import Block, BlockFacts, BlockKey, TopicPartitionKey
from tidewire_storage.domain.rows import SortedTable

MAGIC = b"TWBK"
VERSION = 1

HEADER = struct.Struct("<4sHHIQ16s16sIIQQQqQQqqQ")
"""magic, version, reserved, directory bytes, total bytes, tenant, incarnation, partition, slice, epoch, first offset,
end offset, hour, rows, readings, least time, greatest time, checksum of directory and columns."""
HEADER_BYTES = HEADER.size + 8
"""The checksum of the header itself follows it."""

_TABLE = struct.Struct("<III")
_COLUMN = struct.Struct("<BI")
_RAW, _PCODEC, _NONE = 0, 1, 2

_SMALL_ROWS = 32
"""Below this, pcodec's own header outweighs what it saves."""

_TIME_CONFIG = ChunkConfig(compression_level=4, delta_spec=DeltaSpec.try_consecutive(1))
_VALUE_CONFIG = ChunkConfig(compression_level=4)


class BlockDamaged(TidewireError):
    """A block's bytes are not what was written. Restore the file; nothing is answered from it."""

    def __init__(self, why: str) -> None:
        super().__init__(f"a stored block is damaged: {why}", reason="BLOCK_DAMAGED")


def encode_block(key: BlockKey, hour_us: int, tables: Sequence[SortedTable]) -> Block:
    """Compresses the tables (at least one row in all) and puts a block together."""
    directory: list[bytes] = []
    columns: list[bytes] = []
    for table in tables:
        names = [name.encode() for name in table.metrics]
        directory.append(_TABLE.pack(len(names), table.rows, len(table.device_uids)))
        directory += [bytes([len(name)]) + name for name in names]
        encoded = [
            (_RAW, np.ascontiguousarray(table.device_uids).tobytes()),
            (_RAW, table.row_counts.astype("<u4").tobytes()),
            _encode(table.time_unix_us, _TIME_CONFIG),
            (_NONE, b"") if table.arrival is None else _encode(table.arrival, _VALUE_CONFIG),
        ]
        encoded += [_encode(column, _VALUE_CONFIG) for column in table.values]
        for codec, data in encoded:
            directory.append(_COLUMN.pack(codec, len(data)))
            columns.append(data)
    head = b"".join(directory)
    body = b"".join([head, *columns])
    facts = BlockFacts(
        hour_us,
        sum(table.rows for table in tables),
        sum(table.readings() for table in tables),
        min(int(table.time_unix_us.min()) for table in tables),
        max(int(table.time_unix_us.max()) for table in tables),
        tuple(table.metrics for table in tables),
    )
    header = HEADER.pack(
        MAGIC, VERSION, 0, len(head), HEADER_BYTES + len(body), key.tenant, key.place.incarnation,
        key.place.partition, key.slice, key.epoch, key.first_offset, key.end_offset, hour_us, facts.rows,
        facts.readings, facts.min_time_us, facts.max_time_us, xxhash.xxh3_64_intdigest(body),
    )  # fmt: skip
    own = struct.pack("<Q", xxhash.xxh3_64_intdigest(header))
    return Block(key, facts, b"".join([header, own, body]))


class BlockHeader:
    """The header of a block, verified. BlockDamaged when it is not one."""

    __slots__ = ("checksum", "directory_bytes", "key", "readings", "rows", "total_bytes")

    def __init__(self, data: bytes | memoryview) -> None:
        if len(data) < HEADER_BYTES:
            raise BlockDamaged(f"{len(data)} bytes where a header was written")
        head = bytes(data[: HEADER.size])
        fields = HEADER.unpack(head)
        if fields[0] != MAGIC:
            raise BlockDamaged("no block begins here")
        if struct.unpack_from("<Q", data, HEADER.size)[0] != xxhash.xxh3_64_intdigest(head):
            raise BlockDamaged("the header does not match its checksum")
        if fields[1] != VERSION:
            raise BlockDamaged(
                f"format version {fields[1]} is newer than this software's {VERSION}; update it"
            )
        self.directory_bytes: int = fields[3]
        self.total_bytes: int = fields[4]
        place = TopicPartitionKey(fields[6], fields[7])
        self.key = BlockKey(TenantId(fields[5]), place, *fields[8:12])
        self.rows: int = fields[13]
        self.readings: int = fields[14]
        self.checksum: int = fields[17]

    def verify(self, data: bytes | memoryview) -> None:
        """Raises BlockDamaged unless `data`, the whole block, is as it was written."""
        if len(data) != self.total_bytes:
            raise BlockDamaged(f"{len(data)} bytes where {self.total_bytes} were written")
        if xxhash.xxh3_64_intdigest(data[HEADER_BYTES:]) != self.checksum:
            raise BlockDamaged("the contents do not match their checksum")


class TableReader:
    """A table of a block; columns are decoded when asked for."""

    __slots__ = ("_columns", "device_uids", "metrics", "row_counts", "rows")

    def __init__(
        self, metrics: tuple[str, ...], rows: int, devices: int, columns: list[tuple[int, memoryview]]
    ) -> None:
        self.metrics = metrics
        self.rows = rows
        self._columns = columns
        self.device_uids: NDArray[np.uint8] = np.frombuffer(columns[0][1], np.uint8).reshape(devices, 16)
        self.row_counts: NDArray[np.uint32] = np.frombuffer(columns[1][1], "<u4")

    def time(self) -> NDArray[np.int64]:
        """(rows,): event times in µs."""
        return _decode(self._columns[2], np.dtype("<i8"))

    def arrival(self) -> NDArray[np.int64] | None:
        """(rows,), or None: all rows arrived with the block."""
        return None if self._columns[3][0] == _NONE else _decode(self._columns[3], np.dtype("<i8"))

    def column(self, metric: str) -> NDArray[np.float64]:
        """(rows,): the values of one of `metrics`."""
        return _decode(self._columns[4 + self.metrics.index(metric)], np.dtype("<f8"))

    def rows_of(self, device_uid: bytes) -> slice | None:
        """The rows of a device; None when it has none here."""
        wanted = np.frombuffer(device_uid, "<u8")
        words = self.device_uids.view("<u8")
        found = np.flatnonzero((words[:, 1] == wanted[1]) & (words[:, 0] == wanted[0]))
        if not found.size:
            return None
        first = int(self.row_counts[: found[0]].sum(dtype=np.int64))
        return slice(first, first + int(self.row_counts[found[0]]))

    def table(self) -> SortedTable:
        """Everything, decoded."""
        values = [self.column(metric) for metric in self.metrics]
        return SortedTable(
            self.metrics, self.device_uids, self.row_counts, self.time(), values, self.arrival()
        )


def read_block(data: bytes | memoryview) -> tuple[BlockHeader, list[TableReader]]:
    """Verifies a block and opens its tables. Raises BlockDamaged."""
    header = BlockHeader(data)
    header.verify(data)
    view = memoryview(data)
    at = HEADER_BYTES
    column_at = HEADER_BYTES + header.directory_bytes
    tables = []
    while at < HEADER_BYTES + header.directory_bytes:
        metric_count, rows, devices = _TABLE.unpack_from(view, at)
        at += _TABLE.size
        metrics = []
        for _ in range(metric_count):
            length = view[at]
            metrics.append(bytes(view[at + 1 : at + 1 + length]).decode())
            at += 1 + length
        columns = []
        for _ in range(4 + metric_count):
            codec, length = _COLUMN.unpack_from(view, at)
            at += _COLUMN.size
            columns.append((codec, view[column_at : column_at + length]))
            column_at += length
        tables.append(TableReader(tuple(metrics), rows, devices, columns))
    return header, tables


def _encode(column: NDArray[Any], config: ChunkConfig) -> tuple[int, bytes]:
    if len(column) >= _SMALL_ROWS:
        packed: bytes = standalone.simple_compress(np.ascontiguousarray(column), config)
        if len(packed) < column.nbytes:
            return _PCODEC, packed
    return _RAW, column.tobytes()


def _decode(column: tuple[int, memoryview], dtype: np.dtype[Any]) -> NDArray[Any]:
    codec, data = column
    if codec == _RAW:
        return np.frombuffer(data, dtype)
    if codec != _PCODEC:
        raise BlockDamaged(f"codec {codec} is not known")
    return np.asarray(standalone.simple_decompress(bytes(data)))
