"""The bytes of a block as a flush writes it, and reading a block of any level.

    header     `block_header`; checksum of the rest
    directory  per table: counts, metric names, codec and length of each column
    columns    per table: device uids, row counts, time, arrival (or nothing), then one per metric

All numbers little-endian. A column lies alone, so that a query decodes only those it needs. Written once by ingest.
"""

import struct
from collections.abc import Collection, Sequence

import numpy as np
import xxhash

from tidewire_storage.domain import cold_format, columns, sealed_format, tuning
from tidewire_storage.domain.block_header import (
    COLD,
    FLUSHED,
    HEADER_BYTES,
    BlockDamaged,
    BlockHeader,
    pack_header,
)
from tidewire_storage.domain.blocks import Block, BlockKey, facts_of, holds_rollups, rollup_facts_of
from tidewire_storage.domain.columns import Packed, TableReader
from tidewire_storage.domain.rows import SortedTable, not_among

_TABLE = struct.Struct("<III")
_COLUMN = struct.Struct("<BI")


def encode_block(key: BlockKey, hour_us: int, tables: Sequence[SortedTable]) -> Block:
    """Compresses the tables (at least one row in all) and puts a block together, in the format of the key's level."""
    facts = (rollup_facts_of if holds_rollups(key.level) else facts_of)(hour_us, tables)
    if key.level:
        return sealed_format.encode(key, facts, tables)
    directory: list[bytes] = []
    packed: list[bytes | memoryview] = []
    for table in tables:
        names = [name.encode() for name in table.metrics]
        directory.append(_TABLE.pack(len(names), table.rows, len(table.device_uids)))
        directory += [bytes([len(name)]) + name for name in names]
        encoded: list[Packed] = [
            (columns.RAW, np.ascontiguousarray(table.device_uids).tobytes()),
            (columns.RAW, table.row_counts.astype("<u4").tobytes()),
            columns.pack_times(table.time_unix_us),
            (columns.NONE, b"") if table.arrival is None else columns.pack_values(table.arrival),
        ]
        encoded += [
            tuning.pack_values((key.tenant, key.level, name), column)
            for name, column in zip(table.metrics, table.values, strict=True)
        ]
        for codec, data in encoded:
            directory.append(_COLUMN.pack(codec, len(data)))
            packed.append(data)
    head = b"".join(directory)
    body = b"".join([head, *packed])
    checksum = xxhash.xxh3_64_intdigest(body)
    header = pack_header(key, facts, FLUSHED, len(head), HEADER_BYTES + len(body), checksum)
    return Block(key, facts, header + body)


def verified(data: bytes | memoryview) -> BlockHeader:
    """The header of a whole block. Raises BlockDamaged unless all of it is as it was written."""
    header = BlockHeader(data)
    if len(data) != header.total_bytes:
        raise BlockDamaged(f"{len(data)} bytes where {header.total_bytes} were written")
    if header.version == COLD:
        cold_format.ColdDirectory(data)
    elif header.version != FLUSHED:
        sealed_format.Directory(data).verify(data)
    elif xxhash.xxh3_64_intdigest(data[HEADER_BYTES:]) != header.checksum:
        raise BlockDamaged("the contents do not match their checksum")
    return header


def read_block(data: bytes | memoryview) -> tuple[BlockHeader, list[TableReader]]:
    """Verifies a whole block of any level and opens its tables; one of the cold tier has none here.

    Raises BlockDamaged.
    """
    header = verified(data)
    if header.version == COLD:
        return header, []
    if header.version != FLUSHED:
        return header, sealed_format.Directory(data).readers(data)
    view = memoryview(data)
    at = HEADER_BYTES
    column_at = HEADER_BYTES + header.directory_bytes
    tables = []
    while at < HEADER_BYTES + header.directory_bytes:
        metric_count, _, devices = _TABLE.unpack_from(view, at)
        at += _TABLE.size
        metrics = []
        for _ in range(metric_count):
            length = view[at]
            metrics.append(bytes(view[at + 1 : at + 1 + length]).decode())
            at += 1 + length
        found: list[Packed] = []
        for _ in range(4 + metric_count):
            codec, length = _COLUMN.unpack_from(view, at)
            at += _COLUMN.size
            found.append((codec, view[column_at : column_at + length]))
            column_at += length
        uids, counts, times, arrival, *values = found
        tables.append(
            TableReader(
                tuple(metrics),
                np.frombuffer(uids[1], np.uint8).reshape(devices, 16),
                np.frombuffer(counts[1], "<u4"),
                [times],
                [[column] for column in values],
                None if arrival[0] == columns.NONE else arrival,
            )
        )
    return header, tables


def without_devices(data: bytes | memoryview, devices: Collection[bytes]) -> tuple[bool, Block | None]:
    """Whether a block holds any of the devices, and if so the block without them (None: nothing is left).

    Raises BlockDamaged.
    """
    header, readers = read_block(data)
    keeps = [not_among(reader.device_uids, devices) for reader in readers]
    if all(keep.all() for keep in keeps):
        return False, None
    tables = [
        reader.table().keep_devices(keep) for reader, keep in zip(readers, keeps, strict=True) if keep.any()
    ]
    return True, encode_block(header.key, header.hour_us, tables) if tables else None
