"""The statements of the journal: its head rows and the chunks of large bodies. Used by `journal` only."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from tidewire_kit.cassandra.session import CassandraSession, Consistency, Prepared, Row
from tidewire_kit.errors import InvalidArgument, TidewireError

ID_BYTES = 16
INLINE_BYTES = 32 << 10
"""Largest body within the head: a conditional write is written several times over by each node."""
CHUNK_BYTES = 256 << 10
MAX_BODY_BYTES = 64 << 20
_WRITES_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class HeadRow:
    """A head as it is stored, without its body."""

    unit: bytes
    version: int = 0
    recent: bytes = b""
    state: bytes = b""
    chunks: int = 0
    """-1: the commit has no body. 0: the body is in the row. Else the number of its chunks."""
    applied: int = 0

    @property
    def pending(self) -> bool:
        """Whether its entry may not be applied yet."""
        return self.chunks >= 0 and self.applied < self.version

    @property
    def entry(self) -> bytes:
        """Id of the newest entry."""
        return self.recent[:ID_BYTES]

    def entries(self) -> list[bytes]:
        """Ids of the last entries, newest first."""
        return [self.recent[at : at + ID_BYTES] for at in range(0, len(self.recent), ID_BYTES)]


@dataclass(frozen=True, slots=True)
class JournalTables:
    """Reads and writes of one pair of tables."""

    session: CassandraSession
    _read: Prepared
    _read_body: Prepared
    _read_all: Prepared
    _replace: Prepared
    _mark: Prepared
    _remove: Prepared
    _put_chunk: Prepared
    _get_chunk: Prepared
    _drop_chunks: Prepared

    @classmethod
    async def open(cls, session: CassandraSession, table: str) -> "JournalTables":
        """Prepares the statements."""
        heads, chunks = table, f"{table}_chunks"
        one, key = "unit = ?", "unit = ? AND version = ? AND entry = ? AND chunk = ?"
        columns = "version = ?, recent = ?, state = ?, chunks = ?, body = ?"
        # Names of tables cannot be bound; they come from the store's code.
        texts = (
            f"SELECT version, recent, state, chunks, applied FROM {heads} WHERE {one}",  # noqa: S608
            f"SELECT version, recent, body FROM {heads} WHERE {one}",  # noqa: S608
            f"SELECT unit, version, chunks, applied FROM {heads}",  # noqa: S608
            f"UPDATE {heads} SET {columns} WHERE {one} IF version = ?",  # noqa: S608
            f"UPDATE {heads} USING TIMESTAMP ? SET applied = ? WHERE {one}",  # noqa: S608
            f"DELETE FROM {heads} WHERE {one} IF version = ?",  # noqa: S608
            f"INSERT INTO {chunks} (unit, version, entry, chunk, body) VALUES (?, ?, ?, ?, ?)",  # noqa: S608
            f"SELECT body FROM {chunks} WHERE {key}",  # noqa: S608
            f"DELETE FROM {chunks} WHERE {one} AND version <= ?",  # noqa: S608
        )
        return cls(session, *await asyncio.gather(*(session.prepare(text) for text in texts)))

    async def read(self, unit: bytes, *, serial: bool = False) -> HeadRow:
        """Returns the head of a unit; of one without any, the first one. `serial`: after settling conditional writes
        that are under way."""
        rows = await self.session.execute(
            self._read, (unit,), consistency=Consistency.LOCAL_SERIAL if serial else None
        )
        return _head(unit, rows[0]) if rows else HeadRow(unit)

    async def body(self, head: HeadRow) -> bytes | None:
        """Returns the body of the head's entry; None when the head has moved on.

        Raises TidewireError when chunks are missing though the entry is not applied: damage.
        """
        if head.chunks == 0:
            rows = await self.session.execute(self._read_body, (head.unit,))
            if not rows or rows[0].version != head.version or rows[0].recent[:ID_BYTES] != head.entry:
                return None
            return rows[0].body or b""
        pieces = []
        for chunk in range(head.chunks):
            rows = await self.session.execute(self._get_chunk, (head.unit, head.version, head.entry, chunk))
            if not rows:
                now = await self.read(head.unit)
                if now.version != head.version or not now.pending:
                    return None
                raise TidewireError(
                    f"chunk {chunk} of a commit that is not applied is missing; restore the keyspace"
                )
            pieces.append(rows[0].body)
        return b"".join(pieces)

    def chunk_count(self, body: bytes | None) -> int:
        """Returns what a head says of a body of this size. Raises InvalidArgument for one that is too large."""
        if body is None:
            return -1
        if len(body) > MAX_BODY_BYTES:
            raise InvalidArgument(
                "body", f"{len(body)} bytes are more than the {MAX_BODY_BYTES} of one commit"
            )
        return 0 if len(body) <= INLINE_BYTES else -(-len(body) // CHUNK_BYTES)

    async def write_chunks(self, head: HeadRow, body: bytes) -> None:
        """Writes the chunks of a body, durable when it returns."""
        rows = (
            (
                head.unit,
                head.version,
                head.entry,
                chunk,
                body[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES],
            )
            for chunk in range(head.chunks)
        )
        await self.session.execute_all(self._put_chunk, rows, concurrency=min(_WRITES_AT_ONCE, head.chunks))

    async def replace(self, before: HeadRow, after: HeadRow, body: bytes | None) -> bool:
        """The commit point: `after` replaces `before` if that is still the head. Raises as `CassandraSession.apply`."""
        inline = body if after.chunks == 0 else None
        outcome = await self.session.apply(
            self._replace,
            (
                after.version,
                after.recent,
                after.state,
                after.chunks,
                inline,
                after.unit,
                before.version or None,
            ),
        )
        return outcome.applied

    async def mark_applied(self, head: HeadRow) -> None:
        """Notes that the head's entry is applied, and removes chunks that nobody will read."""
        await self.session.execute(self._mark, (head.version, head.version, head.unit))
        if head.chunks > 0:
            await self.session.execute(self._drop_chunks, (head.unit, head.version))

    async def unsettled(self, limit_us: int, now_us: int) -> AsyncIterator[bytes]:
        """Yields units whose last commit is older than `limit_us` and not applied, or from the future: a clock was
        wrong, and nobody knows how old it is."""
        async for page in self.session.execute_paged(self._read_all):
            for row in page:
                pending = row.version is not None and row.chunks >= 0 and (row.applied or 0) < row.version
                if pending and not limit_us <= row.version <= now_us:
                    yield row.unit

    async def remove(self, head: HeadRow) -> None:
        """Removes a head and its chunks."""
        await self.session.execute(self._drop_chunks, (head.unit, head.version))
        await self.session.apply(self._remove, (head.unit, head.version))


def _head(unit: bytes, row: Row) -> HeadRow:
    if row.version is None:  # removed, and marked as applied by a straggler since
        return HeadRow(unit, applied=row.applied or 0)
    return HeadRow(unit, row.version, row.recent, row.state or b"", row.chunks, row.applied or 0)
