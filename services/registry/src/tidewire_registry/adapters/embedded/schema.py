"""Tables of the embedded store and their version.

Every key but those of `tenants` and `meta` starts with the tenant's uid. Ids compare as bytes (SQLite's BINARY), which
for UTF-8 is the order of code points. Times are unix µs. `unpublished` is the flag `published = false` of an object
as a table of its own: it is small, so setting and clearing the flag costs next to nothing in a large fleet.
"""

import sqlite3

from tidewire_kit.errors import FailedPrecondition

VERSION = 1

_STATEMENTS = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    """CREATE TABLE tenants (
        uid BLOB PRIMARY KEY, id TEXT NOT NULL UNIQUE, display_name TEXT NOT NULL, state INTEGER NOT NULL,
        quotas TEXT NOT NULL, raw_retention_us INTEGER, rollup_retention_us INTEGER, labels TEXT NOT NULL,
        created_us INTEGER NOT NULL, updated_us INTEGER NOT NULL, revision INTEGER NOT NULL,
        devices INTEGER NOT NULL DEFAULT 0, credentials INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID""",
    """CREATE TABLE devices (
        tenant BLOB NOT NULL, id TEXT NOT NULL, uid BLOB NOT NULL, display_name TEXT NOT NULL, type TEXT NOT NULL,
        labels TEXT NOT NULL, parent TEXT NOT NULL, latitude REAL, longitude REAL, state INTEGER NOT NULL,
        created_us INTEGER NOT NULL, updated_us INTEGER NOT NULL, revision INTEGER NOT NULL, ancestors BLOB NOT NULL
    )""",
    "CREATE UNIQUE INDEX devices_id ON devices (tenant, id)",
    "CREATE INDEX devices_type ON devices (tenant, type, id)",
    "CREATE INDEX devices_state ON devices (tenant, state, id)",
    "CREATE INDEX devices_parent ON devices (tenant, parent, id) WHERE parent != ''",
    "CREATE INDEX devices_place ON devices (tenant, latitude, longitude, id) WHERE latitude IS NOT NULL",
    """CREATE TABLE labels (
        tenant BLOB NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, id TEXT NOT NULL,
        PRIMARY KEY (tenant, key, value, id)
    ) WITHOUT ROWID""",
    """CREATE TABLE ancestry (
        tenant BLOB NOT NULL, ancestor BLOB NOT NULL, id TEXT NOT NULL, PRIMARY KEY (tenant, ancestor, id)
    ) WITHOUT ROWID""",
    """CREATE TABLE credentials (
        tenant BLOB NOT NULL, device_uid BLOB NOT NULL, uid BLOB NOT NULL, device_id TEXT NOT NULL,
        public_key_pem TEXT NOT NULL, algorithm INTEGER NOT NULL, expires_us INTEGER, created_us INTEGER NOT NULL,
        revision INTEGER NOT NULL, PRIMARY KEY (tenant, device_uid, uid)
    ) WITHOUT ROWID""",
    "CREATE UNIQUE INDEX credentials_uid ON credentials (tenant, uid)",
    """CREATE TABLE tombstones (
        tenant BLOB NOT NULL, uid BLOB NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL, device_uid BLOB,
        revision INTEGER NOT NULL, deleted_us INTEGER NOT NULL, PRIMARY KEY (tenant, uid)
    ) WITHOUT ROWID""",
    """CREATE TABLE unpublished (
        tenant BLOB NOT NULL, uid BLOB NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL, revision INTEGER NOT NULL,
        PRIMARY KEY (tenant, uid)
    ) WITHOUT ROWID""",
    """CREATE TABLE replays (
        tenant BLOB NOT NULL, request_id TEXT NOT NULL, fingerprint BLOB NOT NULL, object_ids TEXT NOT NULL,
        object_uids BLOB NOT NULL, made_us INTEGER NOT NULL, PRIMARY KEY (tenant, request_id)
    ) WITHOUT ROWID""",
    "CREATE INDEX replays_made ON replays (made_us)",
    "CREATE TABLE purges (tenant BLOB PRIMARY KEY) WITHOUT ROWID",
    f"PRAGMA user_version = {VERSION}",
)


def ensure_schema(connection: sqlite3.Connection, path: str) -> None:
    """Creates the tables in a new database. FailedPrecondition when a newer Tidewire has written it."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        why = f"{path} has format {version}, this program knows up to {VERSION}; run the newer one that wrote it"
        raise FailedPrecondition(why, reason="FORMAT_NEWER", subject=path)
    if version == 0:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _STATEMENTS:
            connection.execute(statement)
        connection.execute("COMMIT")
