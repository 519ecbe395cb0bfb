"""Blocks as rows: keys and columns of what the tables say of a block, and the way back."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tidewire_kit.cassandra import Row
from tidewire_kit.ids import TenantId
from tidewire_storage.adapters.cassandra.tables import Mutation
from tidewire_storage.domain.blocks import (
    Block,
    BlockFacts,
    BlockKey,
    StoredBlock,
    TopicPartitionKey,
    holds_rollups,
)

CHUNK_BYTES = 512 << 10
"""Rows above this are work for the server's heap; flushed blocks rarely are."""
SEALED_CHUNK_BYTES = 64 << 10
"""Of sealed blocks, of which a query wants a few pages."""

DAY_US = 86_400_000_000
LEVEL_US = (DAY_US, 32 * DAY_US, 1024 * DAY_US)
"""Blocks of level n span less than LEVEL_US[n]; those of the last level span anything."""
LEVELS = len(LEVEL_US) + 1


@dataclass(frozen=True, slots=True)
class Token:
    """Which bytes a block had when it was found."""

    attempt: bytes
    length: int
    chunks: int
    expires_us: int | None


def level_of(min_time_us: int, max_time_us: int) -> int:
    """Level of a block in the catalog."""
    span = max_time_us - min_time_us
    return next((level for level, width in enumerate(LEVEL_US) if span < width), len(LEVEL_US))


ALL = -1


def wanted(block_level: int | None, rollup: int | None) -> bool:
    """Whether a block is among those of readings (`rollup` None), of rollups of a level, or of ALL."""
    level = block_level or 0
    return not holds_rollups(level) if rollup is None else rollup in (ALL, level)


def day_of(hour_us: int) -> int:
    """Day of log time, since 1970."""
    return hour_us // DAY_US


def stored(block: Block, attempt: bytes, expires_us: int | None) -> StoredBlock:
    """A block as it will be found."""
    chunks = -(-len(block.data) // chunk_bytes(block.key))
    token = Token(attempt, len(block.data), chunks, expires_us)
    return StoredBlock(block.key, block.facts, token, block.head_bytes)


def chunk_bytes(key: BlockKey) -> int:
    """Length of a block's chunks but the last."""
    return SEALED_CHUNK_BYTES if key.level else CHUNK_BYTES


def token_of(block: StoredBlock) -> Token:
    """The token of a block of ours."""
    assert isinstance(block.token, Token)
    return block.token


def catalog_key(block: StoredBlock) -> tuple[Any, ...]:
    """Primary key in storage_catalog."""
    key, facts = block.key, block.facts
    return (
        key.tenant, key.place.incarnation, key.place.partition, day_of(facts.hour_us),
        level_of(facts.min_time_us, facts.max_time_us), facts.min_time_us, facts.max_time_us, key.epoch,
        key.first_offset, key.slice,
    )  # fmt: skip


def epoch_block_key(block: StoredBlock) -> tuple[Any, ...]:
    """Primary key in storage_epoch_blocks."""
    key = block.key
    return (
        key.place.incarnation, key.place.partition, key.epoch, key.first_offset, key.tenant, key.slice,
    )  # fmt: skip


def bytes_key(key: BlockKey, attempt: bytes) -> tuple[Any, ...]:
    """Key of a block's chunks in storage_blocks."""
    return (
        key.tenant, key.place.incarnation, key.place.partition, key.slice, key.epoch, key.first_offset,
        key.end_offset, attempt,
    )  # fmt: skip


def put(block: StoredBlock) -> list[Mutation]:
    """What names a block."""
    token, facts = token_of(block), block.facts
    columns = (
        block.key.end_offset, facts.hour_us, facts.rows, facts.readings, token.length, token.chunks,
        token.attempt, token.expires_us, "|".join(" ".join(metrics) for metrics in facts.metric_sets),
        block.key.level or None, block.head_bytes or None,
    )  # fmt: skip
    return [
        ("catalog", (*catalog_key(block), *columns)),
        ("epoch_block", (*epoch_block_key(block), facts.min_time_us, facts.max_time_us, *columns)),
    ]


def block_of(row: Row, tenant: bytes, place: TopicPartitionKey, epoch: int) -> StoredBlock:
    """The block that a row of either table names."""
    sets = tuple(tuple(names.split(" ")) if names else () for names in row.metric_sets.split("|"))
    return StoredBlock(
        BlockKey(
            TenantId(tenant), place, row.slice, epoch, row.first_offset, row.end_offset, row.block_level or 0
        ),
        BlockFacts(row.hour_us, row.row_count, row.readings, row.min_time_us, row.max_time_us, sets),
        Token(row.attempt, row.length, row.chunks, row.expires_us),
        row.head_bytes or 0,
    )


def chunks_of(block: Block, attempt: bytes, ttl_seconds: int) -> Iterable[tuple[Any, ...]]:
    """Rows of storage_blocks for a block."""
    key = bytes_key(block.key, attempt)
    size = chunk_bytes(block.key)
    for chunk, first in enumerate(range(0, len(block.data), size)):
        yield (*key, chunk, block.data[first : first + size], ttl_seconds)
