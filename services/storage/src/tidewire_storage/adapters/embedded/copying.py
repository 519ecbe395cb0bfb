"""A consistent copy of the store for a backup, taken by another process while this one writes.

Bytes are in a block file before a row of the catalog names them, and what a row names never changes. So a copy of the
catalog, and each file up to the length that the copy names, belong together, whenever the files are read; provided that
no sweep removes, cuts or rewrites files in between. A sweep therefore takes `sweep.lock` shared, and is put off while
a backup holds it. Called by `upkeep.sweep` and by the command `tidewire storage backup`.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tidewire_kit.errors import FailedPrecondition
from tidewire_storage.adapters.embedded.files import path_of
from tidewire_storage.adapters.embedded.schema import connect

CATALOG = "catalog.db"
EVENTS = "events.db"
_BLOCKS = "blocks"


@contextmanager
def only_backup(directory: Path) -> Iterator[None]:
    """Held by the one backup that may run over the store in `directory`. FailedPrecondition when another runs."""
    with _locked(directory / "backup.lock", fcntl.LOCK_EX | fcntl.LOCK_NB) as got:
        if not got:
            raise FailedPrecondition(
                f"another backup of {directory.parent} is running; wait until it has ended",
                reason="BACKUP_RUNNING",
                subject=str(directory.parent),
            )
        yield


@contextmanager
def sweeps_put_off(directory: Path) -> Iterator[None]:
    """Meanwhile no process removes or rewrites block files. Waits for sweeps under way."""
    with _locked(directory / "sweep.lock", fcntl.LOCK_EX):
        yield


@contextmanager
def may_sweep(directory: Path) -> Iterator[bool]:
    """Whether a sweep may go on, and then no backup begins meanwhile."""
    with _locked(directory / "sweep.lock", fcntl.LOCK_SH | fcntl.LOCK_NB) as got:
        yield got


@contextmanager
def _locked(path: Path, how: int) -> Iterator[bool]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        try:
            fcntl.flock(descriptor, how)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def copy_database(source: Path, target: Path) -> None:
    """Copies an SQLite database as it is at one moment; its writers go on meanwhile. Raises sqlite3.Error."""
    with closing(sqlite3.connect(source, timeout=30.0)) as live, closing(sqlite3.connect(target)) as copy:
        live.backup(copy)


def named_files(directory: Path, catalog: Path) -> dict[str, int]:
    """Path below `directory` → length, of the block files that a copy of the catalog names."""
    with closing(connect(catalog)) as connection:
        rows = connection.execute(
            "SELECT file_id, max(position + length) FROM blocks GROUP BY file_id ORDER BY file_id"
        ).fetchall()
    blocks = directory / _BLOCKS
    return {str(path_of(blocks, file_id).relative_to(directory)): end for file_id, end in rows}


def stored_offsets(database: Path) -> dict[tuple[bytes, int], int]:
    """(incarnation, partition) → next offset, as a catalog or a database of events has it."""
    if not database.exists():
        return {}
    with closing(connect(database)) as connection:
        rows = connection.execute("SELECT incarnation, partition, next_offset FROM progress").fetchall()
    return {(incarnation, partition): offset for incarnation, partition, offset in rows}
