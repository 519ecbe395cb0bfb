"""The catalog's tables, and how a connection to it is opened.

SQLite in WAL mode with synchronous=FULL: a committed transaction survives a crash of the machine. Everything that a
flush changes is one transaction here, and that is what makes its effect happen once.
"""

import sqlite3
from pathlib import Path

from tidewire_kit.errors import FailedPrecondition

VERSION = 3

TABLES = """
CREATE TABLE IF NOT EXISTS files (
  file_id INTEGER PRIMARY KEY AUTOINCREMENT, -- the file's name is its id
  clean_seq INTEGER NOT NULL                 -- nothing buried up to this tombstone is in the file
);
CREATE TABLE IF NOT EXISTS metric_sets (
  set_id INTEGER PRIMARY KEY,
  names TEXT NOT NULL UNIQUE                 -- joined by spaces
);
CREATE TABLE IF NOT EXISTS blocks (
  block_id INTEGER PRIMARY KEY,
  tenant BLOB NOT NULL,
  incarnation BLOB NOT NULL,
  partition INTEGER NOT NULL,
  slice INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  first_offset INTEGER NOT NULL,
  end_offset INTEGER NOT NULL,
  hour_us INTEGER NOT NULL,
  file_id INTEGER NOT NULL,
  position INTEGER NOT NULL,
  length INTEGER NOT NULL,
  rows INTEGER NOT NULL,
  readings INTEGER NOT NULL,
  min_time_us INTEGER NOT NULL,
  max_time_us INTEGER NOT NULL,
  sets TEXT NOT NULL,                        -- set ids joined by spaces
  level INTEGER NOT NULL DEFAULT 0,          -- 0: flushed, 1: sealed epoch, 2: day, from 3 on rollups
  head_bytes INTEGER NOT NULL DEFAULT 0      -- of a sealed block: header and directory
);
CREATE UNIQUE INDEX IF NOT EXISTS blocks_key ON blocks (incarnation, partition, epoch, first_offset, tenant, slice);
CREATE INDEX IF NOT EXISTS blocks_end ON blocks (tenant, partition, max_time_us, min_time_us);
CREATE INDEX IF NOT EXISTS blocks_start ON blocks (tenant, partition, min_time_us, max_time_us);
CREATE INDEX IF NOT EXISTS blocks_file ON blocks (file_id);
CREATE TABLE IF NOT EXISTS progress (
  incarnation BLOB NOT NULL, partition INTEGER NOT NULL,
  next_offset INTEGER NOT NULL,
  series_offset INTEGER NOT NULL,
  PRIMARY KEY (incarnation, partition)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS epochs (
  incarnation BLOB NOT NULL, partition INTEGER NOT NULL, epoch INTEGER NOT NULL,
  first_offset INTEGER NOT NULL,
  covered_offset INTEGER NOT NULL,
  end_offset INTEGER,                        -- the cut, NULL while open
  hour_us INTEGER NOT NULL,
  gathered_bytes INTEGER NOT NULL,
  blocks INTEGER NOT NULL,
  readings INTEGER NOT NULL,
  seal_id INTEGER,                           -- rises with every seal or merge, NULL before it is sealed
  merge_id INTEGER,                          -- the same, NULL before it is merged
  PRIMARY KEY (incarnation, partition, epoch)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS epochs_flushed ON epochs (incarnation, partition, epoch) WHERE seal_id IS NULL;
CREATE INDEX IF NOT EXISTS epochs_sealed ON epochs (incarnation, partition, seal_id) WHERE seal_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS epochs_merged ON epochs (incarnation, partition, merge_id) WHERE merge_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS epochs_unmerged ON epochs (incarnation, partition, epoch)
  WHERE seal_id IS NOT NULL AND merge_id IS NULL;
CREATE TABLE IF NOT EXISTS dedup (
  incarnation BLOB NOT NULL, partition INTEGER NOT NULL, end_offset INTEGER NOT NULL,
  newest_us INTEGER NOT NULL,
  segments INTEGER NOT NULL,
  entries BLOB NOT NULL,
  PRIMARY KEY (incarnation, partition, end_offset)
);
CREATE TABLE IF NOT EXISTS ledger (
  tenant BLOB NOT NULL, hour_us INTEGER NOT NULL,
  accepted INTEGER NOT NULL, stored INTEGER NOT NULL, duplicate INTEGER NOT NULL,
  dead_lettered INTEGER NOT NULL, purged INTEGER NOT NULL,
  bytes INTEGER NOT NULL,                    -- of the blocks that are there
  PRIMARY KEY (tenant, hour_us)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS series (
  tenant BLOB NOT NULL, device BLOB NOT NULL, set_id INTEGER NOT NULL,
  state BLOB NOT NULL,
  PRIMARY KEY (tenant, device, set_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tombstones (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant BLOB NOT NULL,
  device BLOB NOT NULL,                      -- empty: the whole tenant
  UNIQUE (tenant, device)
);
CREATE TABLE IF NOT EXISTS scrubbed (
  seq INTEGER NOT NULL                       -- what was deleted up to this tombstone has left the tables' pages
);
CREATE TABLE IF NOT EXISTS cut_requests (request_id INTEGER PRIMARY KEY AUTOINCREMENT);
CREATE TABLE IF NOT EXISTS cuts_noted (
  incarnation BLOB NOT NULL, partition INTEGER NOT NULL,
  request_id INTEGER NOT NULL,
  cut INTEGER NOT NULL,
  PRIMARY KEY (incarnation, partition)
) WITHOUT ROWID;
"""

_STEPS = {
    # From each older version to the next.
    1: (
        "ALTER TABLE blocks ADD COLUMN level INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE blocks ADD COLUMN head_bytes INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE epochs ADD COLUMN seal_id INTEGER",
    ),
    2: ("ALTER TABLE epochs ADD COLUMN merge_id INTEGER",),
}


def connect(path: Path) -> sqlite3.Connection:
    """Opens the catalog for one thread at a time; transactions are begun by hand."""
    connection = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA cache_size=-8192")
        connection.execute("PRAGMA secure_delete=ON")  # what is deleted is overwritten, not only unlinked
        connection.execute("PRAGMA journal_size_limit=67108864")
    except BaseException:
        connection.close()
        raise
    return connection


def create(connection: sqlite3.Connection, path: Path) -> None:
    """Makes the tables that are missing, and brings older ones up to date.

    FailedPrecondition when the catalog is of a newer version."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found > VERSION:
            raise FailedPrecondition(
                f"{path} has format {found}, newer than {VERSION}; run the version that wrote it, or a newer one",
                reason="FORMAT_NEWER",
                subject=str(path),
            )
        for version in range(found or VERSION, VERSION):
            for statement in _STEPS[version]:
                connection.execute(statement)
        for statement in TABLES.split(";"):
            if statement.strip():
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={VERSION}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
