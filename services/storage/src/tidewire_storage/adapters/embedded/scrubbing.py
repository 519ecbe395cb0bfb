"""What was deleted leaves the pages of a database, too.

`secure_delete` overwrites rows where they lie when they are deleted. When SQLite evens out the pages of a table it
moves rows, and what it leaves behind where they lay is overwritten by nobody. So after a deletion the tables that hold
what people sent are written anew, one row after the other; the pages of the old ones are overwritten as they become
free. Called by the deletion of tenants and devices, of readings and of events.
"""

import re
import sqlite3
from collections.abc import Collection

from tidewire_storage.adapters.embedded.writing import transaction


def rewrite(connection: sqlite3.Connection, schema: str, tables: Collection[str]) -> None:
    """Writes tables anew, in one transaction; `schema` has the statements that make them and their indexes."""
    with transaction(connection):
        for table in tables:
            indexes = re.findall(rf"INDEX IF NOT EXISTS (\w+) ON {table} ", schema)
            connection.execute(f"ALTER TABLE {table} RENAME TO {table}_old")
            for index in indexes:
                connection.execute(f"DROP INDEX {index}")
            for statement in schema.split(";"):
                if re.search(rf"(TABLE IF NOT EXISTS|\bON) {table} ", statement):
                    connection.execute(statement)
            connection.execute(f"INSERT INTO {table} SELECT * FROM {table}_old")  # noqa: S608
            connection.execute(f"DROP TABLE {table}_old")


def leave_log(connection: sqlite3.Connection) -> None:
    """Has the write-ahead log give up its pages, where deleted bytes lie as well."""
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def size_bytes(connection: sqlite3.Connection) -> int:
    """Of the database, without its write-ahead log."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    return int(pages) * int(page_bytes)
