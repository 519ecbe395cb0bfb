"""What the log keeps in SQLite (`meta.db`): topics, consumer offsets, registered groups, and the compacted topics.

Functions over a connection, to be run by `MetaThread` (or, read-only, by retention on a connection of its own). Sizes
are small here: a record of telemetry never passes through.
"""

import os
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tidewire_kit.errors import FailedPrecondition
from tidewire_kit.log.errors import TopicMismatch
from tidewire_kit.log.port import TableItem, TopicSpec

SCHEMA_VERSION: Final = 1
TOMBSTONE_SECONDS: Final = 3600.0
"""How long the mark of a removed key is kept for those who follow. Who stands still for longer is no longer alive."""

_SCHEMA = """
CREATE TABLE topics (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, incarnation BLOB NOT NULL, partitions INTEGER NOT NULL,
  compacted INTEGER NOT NULL, retention_seconds REAL NOT NULL, created_at_us INTEGER NOT NULL);
CREATE TABLE group_topics (
  group_name TEXT NOT NULL, topic_id INTEGER NOT NULL, PRIMARY KEY (group_name, topic_id)) WITHOUT ROWID;
CREATE TABLE group_offsets (
  group_name TEXT NOT NULL, topic_id INTEGER NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,
  PRIMARY KEY (group_name, topic_id, partition)) WITHOUT ROWID;
CREATE TABLE entries (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT, topic_id INTEGER NOT NULL, key BLOB NOT NULL, value BLOB,
  put_at_seconds INTEGER NOT NULL, UNIQUE (topic_id, key));
CREATE INDEX entries_in_order ON entries (topic_id, sequence);
CREATE INDEX tombstones ON entries (put_at_seconds) WHERE value IS NULL;
"""


@dataclass(frozen=True, slots=True)
class TopicRow:
    """A topic as stored."""

    id: int
    name: str
    incarnation: bytes
    partitions: int
    compacted: bool
    retention_seconds: float


def prepare(connection: sqlite3.Connection) -> None:
    """Creates the schema in an empty database. Raises FailedPrecondition when a newer version has been here."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise FailedPrecondition(
            f"the log's metadata has format {version}, newer than the format {SCHEMA_VERSION} that this version "
            "knows; start a version of Tidewire at least as new as the one that wrote it",
            reason="FORMAT_NEWER",
            subject="log/meta.db",
        )
    if version < SCHEMA_VERSION:
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def load_topics(connection: sqlite3.Connection) -> list[TopicRow]:
    """All topics there are."""
    rows = connection.execute(
        "SELECT id, name, incarnation, partitions, compacted, retention_seconds FROM topics"
    ).fetchall()
    return [TopicRow(row[0], row[1], row[2], row[3], bool(row[4]), row[5]) for row in rows]


def ensure_topics(connection: sqlite3.Connection, specs: Sequence[TopicSpec]) -> list[TopicRow]:
    """Creates what is missing; all or nothing. Raises TopicMismatch."""
    existing = {row.name: row for row in load_topics(connection)}
    for spec in specs:
        partitions = 1 if spec.compacted else spec.partitions
        row = existing.get(spec.name)
        if row is None:
            connection.execute(
                "INSERT INTO topics (name, incarnation, partitions, compacted, retention_seconds, created_at_us)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    spec.name,
                    os.urandom(16),
                    partitions,
                    spec.compacted,
                    spec.retention_seconds,
                    time.time_ns() // 1000,
                ),
            )
        elif row.compacted != spec.compacted:
            kinds = ("a stream", "compacted")
            raise TopicMismatch(
                f"topic {spec.name} exists as {kinds[row.compacted]}, {kinds[spec.compacted]} is asked for; "
                "use another topic name",
                topic=spec.name,
            )
        elif row.partitions != partitions:
            raise TopicMismatch(
                f"topic {spec.name} has {row.partitions} partitions, {partitions} are asked for; a topic keeps its "
                f"partitions: set TIDEWIRE_PARTITIONS={row.partitions}, or use a new data directory",
                topic=spec.name,
            )
        elif row.retention_seconds != spec.retention_seconds:
            connection.execute(
                "UPDATE topics SET retention_seconds = ? WHERE id = ?", (spec.retention_seconds, row.id)
            )
    rows = load_topics(connection)
    ids = {row.name: row.id for row in rows}
    for spec in specs:
        for group in spec.held_for:
            register_group(connection, group, [ids[spec.name]])
    return rows


def register_group(connection: sqlite3.Connection, group: str, topic_ids: Iterable[int]) -> None:
    """Notes that a group reads topics; from now on retention respects it, if it is a holder."""
    connection.executemany(
        "INSERT OR IGNORE INTO group_topics VALUES (?, ?)", [(group, topic_id) for topic_id in topic_ids]
    )


def commit(connection: sqlite3.Connection, group: str, offsets: Iterable[tuple[int, int, int]]) -> None:
    """Sets (topic id, partition, next offset) of a group."""
    connection.executemany(
        "INSERT OR REPLACE INTO group_offsets VALUES (?, ?, ?, ?)", [(group, *offset) for offset in offsets]
    )


def committed(connection: sqlite3.Connection, group: str, topic_id: int) -> dict[int, int]:
    """Partition → next offset of a group."""
    rows = connection.execute(
        "SELECT partition, next_offset FROM group_offsets WHERE group_name = ? AND topic_id = ?",
        (group, topic_id),
    )
    return dict(rows.fetchall())


def holders_offsets(
    connection: sqlite3.Connection, topic_id: int, holders: Iterable[str]
) -> list[Mapping[int, int]]:
    """The committed offsets of each of `holders` that has registered for the topic."""
    rows = connection.execute(
        "SELECT group_name FROM group_topics WHERE topic_id = ?", (topic_id,)
    ).fetchall()
    registered = {row[0] for row in rows}
    return [committed(connection, group, topic_id) for group in holders if group in registered]


def put(connection: sqlite3.Connection, topic_id: int, items: Sequence[TableItem]) -> None:
    """Sets or removes keys. The automatic sequence rises with every change and orders it for followers."""
    now = int(time.time())
    connection.executemany(
        "INSERT OR REPLACE INTO entries (topic_id, key, value, put_at_seconds) VALUES (?, ?, ?, ?)",
        [(topic_id, key, value, now) for key, value in items],
    )
    connection.execute(
        "DELETE FROM entries WHERE value IS NULL AND put_at_seconds < ?", (now - int(TOMBSTONE_SECONDS),)
    )


def last_sequence(connection: sqlite3.Connection) -> int:
    """The sequence of the last change to any compacted topic, ever."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'entries'").fetchone()
    return int(row[0]) if row else 0


def entries_after(
    connection: sqlite3.Connection, topic_id: int, sequence: int, limit: int
) -> list[tuple[int, bytes, bytes | None]]:
    """(sequence, key, value) of the next changes, in order."""
    return connection.execute(
        "SELECT sequence, key, value FROM entries WHERE topic_id = ? AND sequence > ? ORDER BY sequence LIMIT ?",
        (topic_id, sequence, limit),
    ).fetchall()
