"""The embedded store of events: a SQLite database of its own, `events.db`, with the bodies inside.

WAL with synchronous=FULL, so a committed transaction survives a crash of the machine. Progress, events and counts are
one transaction. Two connections, each used by one thread at a time: listing does not wait for storing.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from tidewire_kit.errors import FailedPrecondition
from tidewire_kit.events import Event
from tidewire_kit.ids import TenantId
from tidewire_kit.owner.events import RecordRefused
from tidewire_storage.adapters.embedded.files import free_bytes
from tidewire_storage.adapters.embedded.schema import connect
from tidewire_storage.adapters.embedded.scrubbing import leave_log, rewrite, size_bytes
from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_storage.ports import (
    EventAccount,
    EventFilter,
    EventFlush,
    EventKey,
    ProgressMoved,
    StoredEvent,
    StoreFull,
)

VERSION = 1

_TABLES = """
CREATE TABLE IF NOT EXISTS events (
  tenant BLOB NOT NULL, time_us INTEGER NOT NULL, device BLOB NOT NULL, event_id TEXT NOT NULL,
  type TEXT NOT NULL, severity INTEGER NOT NULL, content_type TEXT NOT NULL,
  received_us INTEGER NOT NULL,
  body BLOB NOT NULL,
  UNIQUE (tenant, time_us, device, event_id)
);
CREATE INDEX IF NOT EXISTS events_device ON events (tenant, device, time_us, event_id);
CREATE INDEX IF NOT EXISTS events_type ON events (tenant, type, time_us, device, event_id);
CREATE TABLE IF NOT EXISTS progress (
  incarnation BLOB NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,
  PRIMARY KEY (incarnation, partition)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS account (name TEXT PRIMARY KEY, events INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tombstones (
  tenant BLOB NOT NULL,
  device BLOB NOT NULL,                      -- empty: the whole tenant
  PRIMARY KEY (tenant, device)
) WITHOUT ROWID;
-- Has a row from a deletion until what it may have left in pages is overwritten.
CREATE TABLE IF NOT EXISTS unscrubbed (since INTEGER PRIMARY KEY);
"""
_INSERT = "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_COUNTS = ("accepted", "stored", "duplicate", "dead_lettered", "dropped", "removed")
_REFUSED = (sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.IntegrityError, OverflowError, ValueError)
"""What SQLite and its driver raise for values that they cannot keep. A disk in trouble raises others."""
_REMOVE_ROWS = 500
"""Events removed by one transaction: whoever stores waits no longer than for that."""
_ONE_DEVICE = 1
_MOST_REWRITTEN_BYTES = 512 << 20
"""Of larger databases what was deleted is overwritten where it lay, and no more: nothing could be stored for long."""


class EmbeddedEventStore:
    """EventStore in a directory, which several processes may share. `await open()` first; on one loop."""

    def __init__(
        self, directory: Path, *, min_free_bytes: int = 0, free: Callable[[Path], int] = free_bytes
    ) -> None:
        """Stores nothing while fewer than `min_free_bytes` are free."""
        self._path = directory / "events.db"
        self._min_free_bytes = min_free_bytes
        self._free = free
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._writing = Lock()
        self._reading = Lock()

    async def open(self) -> None:
        """See EventStore."""
        await asyncio.to_thread(self._open)

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = connect(self._path)
        with self._transaction() as writer:
            (found,) = writer.execute("PRAGMA user_version").fetchone()
            if found > VERSION:
                raise FailedPrecondition(
                    f"{self._path} has format {found}, newer than {VERSION}; run the version that wrote it, "
                    "or a newer one",
                    reason="FORMAT_NEWER",
                    subject=str(self._path),
                )
            for statement in _TABLES.split(";"):
                if statement.strip():
                    writer.execute(statement)
            writer.execute(f"PRAGMA user_version={VERSION}")
        self._reader = connect(self._path)

    async def close(self) -> None:
        """See EventStore."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with self._writing, self._reading:
            for connection in (self._reader, self._writer):
                if connection is not None:
                    connection.close()
            self._reader = self._writer = None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._writing:
            assert self._writer is not None
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    async def progress(self, places: Collection[TopicPartitionKey]) -> Mapping[TopicPartitionKey, int | None]:
        """See EventStore."""

        def load() -> dict[TopicPartitionKey, int | None]:
            with self._reading:
                assert self._reader is not None
                return {place: _offset(self._reader, place) for place in places}

        return await asyncio.to_thread(load)

    async def commit(self, flush: EventFlush) -> EventAccount:
        """See EventStore."""
        return await asyncio.to_thread(self._commit, flush)

    def _commit(self, flush: EventFlush) -> EventAccount:
        if self._free(self._path.parent) < self._min_free_bytes:
            raise StoreFull(
                f"{self._path.parent}: less than {self._min_free_bytes} bytes are free; make room"
            )
        account = EventAccount(accepted=flush.dead_lettered, dead_lettered=flush.dead_lettered)
        try:
            with self._transaction() as writer:
                found = _offset(writer, flush.place)
                if found != flush.expected_offset:
                    raise ProgressMoved(flush.place, flush.expected_offset, found)
                buried = set(writer.execute("SELECT tenant, device FROM tombstones"))
                for offset, record in flush.records:
                    account.accepted += len(record.events)
                    gone = (record.tenant, b"") in buried
                    for event in record.events:
                        if gone or (record.tenant, event.device_uid) in buried:
                            account.dropped += 1
                            continue
                        row = (
                            record.tenant, event.time_us, event.device_uid, event.event_id, event.type,
                            event.severity, event.content_type, record.received_us, event.body,
                        )  # fmt: skip
                        try:
                            kept = writer.execute(_INSERT, row).rowcount
                        except _REFUSED as error:
                            raise RecordRefused(offset, f"{type(error).__name__}: {error}") from error
                        if kept:
                            account.stored += 1
                        else:
                            account.duplicate += 1
                _count(writer, account)
                writer.execute(
                    "INSERT OR REPLACE INTO progress VALUES (?, ?, ?)",
                    (flush.place.incarnation, flush.place.partition, flush.next_offset),
                )
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise StoreFull(f"{self._path}: {error}; make room on the disk") from error
            raise
        return account

    async def page(
        self, tenant: TenantId, wanted: EventFilter, after: EventKey | None, limit: int, most_bytes: int
    ) -> list[StoredEvent]:
        """See EventStore."""
        return await asyncio.to_thread(self._page, tenant, wanted, after, limit, most_bytes)

    def _page(
        self, tenant: TenantId, wanted: EventFilter, after: EventKey | None, limit: int, most_bytes: int
    ) -> list[StoredEvent]:
        where, values = (
            ["tenant = ?", "time_us >= ?", "time_us < ?"],
            [tenant, wanted.start_us, wanted.end_us],
        )
        if wanted.devices is not None:
            marks = ", ".join("?" * len(wanted.devices))
            # Of several devices the index by time is read: theirs would each have to be merged.
            column = "device" if len(wanted.devices) == _ONE_DEVICE else "+device"
            where.append(f"{column} IN ({marks})")
            values += sorted(wanted.devices)
        if wanted.type:
            where.append("type = ?")
            values.append(wanted.type)
        if wanted.min_severity:
            where.append("severity >= ?")
            values.append(wanted.min_severity)
        if after is not None:
            where.append("time_us <= ? AND (time_us, device, event_id) < (?, ?, ?)")
            values += [after.time_us, after.time_us, after.device_uid, after.event_id]
        found: list[StoredEvent] = []
        size = 0
        with self._reading:
            assert self._reader is not None
            cursor = self._reader.execute(
                "SELECT device, time_us, event_id, type, severity, content_type, body, received_us FROM events "  # noqa: S608
                f"WHERE {' AND '.join(where)} ORDER BY time_us DESC, device DESC, event_id DESC LIMIT ?",
                [*values, limit],
            )
            for *fields, received_us in cursor:
                found.append(StoredEvent(Event(*fields), received_us))
                size += len(found[-1].event.body)
                if size >= most_bytes:
                    break
            cursor.close()
        return found

    async def account(self) -> EventAccount:
        """See EventStore. What is there is counted in the same moment."""

        def load() -> EventAccount:
            with self._reading:
                assert self._reader is not None
                self._reader.execute("BEGIN")
                try:
                    counts = dict(self._reader.execute("SELECT name, events FROM account"))
                    (present,) = self._reader.execute("SELECT count(*) FROM events").fetchone()
                finally:
                    self._reader.execute("COMMIT")
            return EventAccount(**counts, present=present)

        return await asyncio.to_thread(load)

    async def expire(self, tenant: TenantId, before_us: int) -> int:
        """See EventStore."""
        return await asyncio.to_thread(self._remove, "tenant = ? AND time_us < ?", (tenant, before_us))

    async def bury(self, tenants: Collection[TenantId], devices: Collection[tuple[TenantId, bytes]]) -> int:
        """See EventStore."""
        return await asyncio.to_thread(self._bury, [*((tenant, b"") for tenant in tenants), *devices])

    def _bury(self, tombstones: list[tuple[TenantId, bytes]]) -> int:
        with self._transaction() as writer:
            new = writer.executemany("INSERT OR IGNORE INTO tombstones VALUES (?, ?)", tombstones).rowcount
            if new:
                writer.execute("INSERT OR IGNORE INTO unscrubbed VALUES (1)")
        removed = 0
        for tenant, device in tombstones:
            if device:
                removed += self._remove("tenant = ? AND device = ?", (tenant, device))
            else:
                removed += self._remove("tenant = ?", (tenant,))
        with self._writing:
            assert self._writer is not None
            (due,) = self._writer.execute("SELECT count(*) FROM unscrubbed").fetchone()
            if removed or due:
                if size_bytes(self._writer) <= _MOST_REWRITTEN_BYTES:
                    rewrite(self._writer, _TABLES, ("events",))
                self._writer.execute("DELETE FROM unscrubbed")
                leave_log(self._writer)
        return removed

    def _remove(self, where: str, values: tuple[object, ...]) -> int:
        removed = 0
        while True:
            with self._transaction() as writer:
                some = writer.execute(
                    f"DELETE FROM events WHERE rowid IN (SELECT rowid FROM events WHERE {where} LIMIT ?)",  # noqa: S608
                    (*values, _REMOVE_ROWS),
                ).rowcount
                _count(writer, EventAccount(removed=some))
            removed += some
            if some < _REMOVE_ROWS:
                return removed


def _offset(connection: sqlite3.Connection, place: TopicPartitionKey) -> int | None:
    row = connection.execute(
        "SELECT next_offset FROM progress WHERE incarnation = ? AND partition = ?",
        (place.incarnation, place.partition),
    ).fetchone()
    return None if row is None else row[0]


def _count(connection: sqlite3.Connection, account: EventAccount) -> None:
    rows = [(name, getattr(account, name)) for name in _COUNTS]
    connection.executemany(
        "INSERT INTO account VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET events = events + excluded.events",
        [row for row in rows if row[1]],
    )
