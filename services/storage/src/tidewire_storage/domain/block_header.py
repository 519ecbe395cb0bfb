"""The first bytes of every block, whatever its level: whose it is, what it covers, how many readings it holds.

The header alone says how many readings a block holds, which is what the loss ledger recounts. All numbers are
little-endian.
"""

import struct

import xxhash

from tidewire_kit.errors import TidewireError
from tidewire_kit.ids import TenantId
from tidewire_storage.domain.blocks import BlockFacts, BlockKey, TopicPartitionKey

MAGIC = b"TWBK"
FLUSHED, SEALED, COLD = 1, 2, 3
"""Format versions: of blocks as a flush writes them (`block_format`), of sealed ones (`sealed_format`), and of
those whose rows lie in an object (`cold_format`)."""

HEADER = struct.Struct("<4sHHIQ16s16sIIQQQqQQqqQ")
"""magic, version, level, directory bytes, total bytes, tenant, incarnation, partition, slice, epoch, first offset,
end offset, hour, rows, readings, least time, greatest time, checksum (version 1: of directory and columns; version 2:
of the directory, which has those of the pages)."""
HEADER_BYTES = HEADER.size + 8
"""The checksum of the header itself follows it."""


class BlockDamaged(TidewireError):
    """A block's bytes are not what was written. Restore the file; nothing is answered from it."""

    def __init__(self, why: str) -> None:
        super().__init__(f"a stored block is damaged: {why}", reason="BLOCK_DAMAGED")


def pack_header(
    key: BlockKey, facts: BlockFacts, version: int, directory_bytes: int, total_bytes: int, checksum: int
) -> bytes:
    """`HEADER_BYTES` bytes."""
    header = HEADER.pack(
        MAGIC, version, key.level, directory_bytes, total_bytes, key.tenant, key.place.incarnation,
        key.place.partition, key.slice, key.epoch, key.first_offset, key.end_offset, facts.hour_us, facts.rows,
        facts.readings, facts.min_time_us, facts.max_time_us, checksum,
    )  # fmt: skip
    return header + struct.pack("<Q", xxhash.xxh3_64_intdigest(header))


class BlockHeader:
    """The header of a block, verified. BlockDamaged when it is not one."""

    __slots__ = (
        "checksum",
        "directory_bytes",
        "hour_us",
        "key",
        "readings",
        "rows",
        "total_bytes",
        "version",
    )

    def __init__(self, data: bytes | memoryview) -> None:
        if len(data) < HEADER_BYTES:
            raise BlockDamaged(f"{len(data)} bytes where a header was written")
        head = bytes(data[: HEADER.size])
        fields = HEADER.unpack(head)
        if fields[0] != MAGIC:
            raise BlockDamaged("no block begins here")
        if struct.unpack_from("<Q", data, HEADER.size)[0] != xxhash.xxh3_64_intdigest(head):
            raise BlockDamaged("the header does not match its checksum")
        if fields[1] not in (FLUSHED, SEALED, COLD):
            raise BlockDamaged(f"format version {fields[1]} is newer than this software's {COLD}; update it")
        self.version: int = fields[1]
        self.directory_bytes: int = fields[3]
        self.total_bytes: int = fields[4]
        place = TopicPartitionKey(fields[6], fields[7])
        self.key = BlockKey(
            TenantId(fields[5]), place, fields[8], fields[9], fields[10], fields[11], fields[2]
        )
        self.hour_us: int = fields[12]
        self.rows: int = fields[13]
        self.readings: int = fields[14]
        self.checksum: int = fields[17]
