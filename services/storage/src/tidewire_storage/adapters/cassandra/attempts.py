"""Bytes of blocks: written under an attempt before a commit names them, read as the catalog names them, and removed
when no commit came to name them.

A writer notes in its slot which blocks it is about to write. It writes a slot anew only when the attempt in it is
decided; when it cannot know, it takes another slot. `remove_orphans` looks at slots that are an hour old, and removes
what they name and the catalog does not.
"""

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tidewire_kit.errors import Unavailable
from tidewire_kit.ids import new_uid
from tidewire_storage.adapters.cassandra import rows
from tidewire_storage.adapters.cassandra.heads import Heads, attempt_us, now_us
from tidewire_storage.adapters.cassandra.tables import (
    BYTES_KEY,
    EPOCH_BLOCK_KEY,
    PLACE,
    Tables,
    delete,
    gather_all,
    insert,
    select,
)
from tidewire_storage.domain.blocks import Block, StoredBlock, TopicPartitionKey
from tidewire_storage.ports import RangesOf

ORPHAN_SECONDS = 3600.0
_COMMIT_SECONDS = 600.0
"""An attempt older than this is not committed any more: well before anybody removes it as an orphan."""
_CONCURRENCY = 8
"""Chunks of a place on their way at once."""
_PAGE_CHUNKS = 8
_PAGE_SEALED_CHUNKS = 64

_WRITE_SLOT = insert("storage_attempts", (*PLACE, "writer", "attempt", "blocks"))
_SLOTS = select("storage_attempts", ("writer", "attempt", "blocks", "WRITETIME(attempt) AS written"), PLACE)
_DROP_SLOT = delete("storage_attempts", (*PLACE, "writer"))
_WRITE_CHUNK = insert("storage_blocks", (*BYTES_KEY, "chunk", "data"), "USING TTL ?")
_READ_CHUNKS = select("storage_blocks", ("chunk", "data"), BYTES_KEY)
_READ_SOME = select("storage_blocks", ("chunk", "data"), BYTES_KEY, "AND chunk >= ? AND chunk <= ?")
NAMED = select("storage_epoch_blocks", ("attempt",), EPOCH_BLOCK_KEY)


class Attempts:
    """Slots and bytes, as commits use them. On one loop."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._writers: dict[TopicPartitionKey, bytes] = {}

    @asynccontextmanager
    async def slot(self, place: TopicPartitionKey) -> AsyncIterator[bytes]:
        """The writer to name in `write`. When the block fails, the slot is left for `remove_orphans`."""
        writer = self._writers.setdefault(place, new_uid())
        try:
            yield writer
        except BaseException:
            self._writers[place] = new_uid()
            raise

    async def write(
        self, place: TopicPartitionKey, writer: bytes, attempt: bytes, blocks: Sequence[tuple[Block, int]]
    ) -> None:
        """Writes the bytes of blocks, each with its TTL in seconds (0: none). Durable when it returns."""
        names = json.dumps([_name(block) for block, _ in blocks]).encode()
        await self._tables.rows(
            _WRITE_SLOT, place.incarnation, place.partition, writer, attempt, names
        )  # fmt: skip
        prepared = await self._tables.session.prepare(_WRITE_CHUNK)
        chunks = (row for block, ttl in blocks for row in rows.chunks_of(block, attempt, ttl))
        await self._tables.session.execute_all(prepared, chunks, concurrency=_CONCURRENCY)

    async def read(self, block: StoredBlock) -> bytes | None:
        """The bytes that a block had when it was found; None: they are gone."""
        token = rows.token_of(block)
        key = rows.bytes_key(block.key, token.attempt)
        found = await self._tables.rows(_READ_CHUNKS, *key, page_rows=_PAGE_CHUNKS)
        if len(found) != token.chunks:
            return None
        data: bytes = found[0].data if len(found) == 1 else b"".join(row.data for row in found)
        return data

    async def read_ranges(self, asked: RangesOf) -> list[bytes] | None:
        """Parts of the bytes that a block had when it was found; None: they are gone."""
        token = rows.token_of(asked.block)
        key = rows.bytes_key(asked.block.key, token.attempt)
        size = rows.chunk_bytes(asked.block.key)
        chunks: dict[int, bytes] = {}
        for first, last in _runs((at // size, (at + length - 1) // size) for at, length in asked.ranges):
            for row in await self._tables.rows(_READ_SOME, *key, first, last, page_rows=_PAGE_SEALED_CHUNKS):
                chunks[row.chunk] = row.data
        found = []
        for at, length in asked.ranges:
            numbers = range(at // size, (at + length - 1) // size + 1)
            if any(number not in chunks for number in numbers):
                return None
            data = b"".join(chunks[number] for number in numbers)
            found.append(data[at % size : at % size + length])
        return found


def _runs(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans of chunks, both ends included, as few as possible."""
    runs: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if runs and first <= runs[-1][1] + 1:
            runs[-1] = runs[-1][0], max(last, runs[-1][1])
        else:
            runs.append((first, last))
    return runs


def check_age(attempt: bytes) -> None:
    """Raises Unavailable when an attempt has become too old to be committed: the process stood still."""
    if now_us() - attempt_us(attempt) > _COMMIT_SECONDS * 1e6:
        raise Unavailable("cassandra", "this process stood still for too long; it begins again")


async def remove_orphans(
    tables: Tables, heads: Heads, place: TopicPartitionKey, older_than_seconds: float = ORPHAN_SECONDS
) -> int:
    """Removes the bytes that attempts of a place have left and no commit names. Returns the number of blocks.

    The head is fenced first: a writer that wakes up after that begins anew, as its attempt is too old.
    """
    oldest_us = now_us() - int(older_than_seconds * 1e6)
    slots = await tables.rows(_SLOTS, place.incarnation, place.partition)
    old = [slot for slot in slots if attempt_us(slot.attempt) < oldest_us]
    if not old:
        return 0
    await heads.fence(place)
    removed = 0
    for slot in old:
        names = [_named(place, item) for item in json.loads(slot.blocks)]
        found = await gather_all(tables.row(NAMED, *key) for key, _ in names)
        unnamed = [
            bytes_key
            for (_, bytes_key), row in zip(names, found, strict=True)
            if row is None or row.attempt != slot.attempt
        ]
        # Also of blocks that were named once and removed since; deleting again costs little.
        await tables.carry_out([("drop_bytes", (*key, slot.attempt)) for key in unnamed], now_us())
        # A writer that lives may have written the slot anew.
        await tables.rows(_DROP_SLOT, slot.written, place.incarnation, place.partition, slot.writer)
        removed += len(unnamed)
    return removed


def _name(block: Block) -> list[Any]:
    key = block.key
    return [key.tenant.hex(), key.slice, key.epoch, key.first_offset, key.end_offset]


def _named(place: TopicPartitionKey, item: Iterable[Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Primary key in storage_epoch_blocks, and key of the bytes without the attempt."""
    text, number, epoch, first, end = item
    tenant = bytes.fromhex(text)
    return (
        (place.incarnation, place.partition, epoch, first, tenant, number),
        (tenant, place.incarnation, place.partition, number, epoch, first, end),
    )
