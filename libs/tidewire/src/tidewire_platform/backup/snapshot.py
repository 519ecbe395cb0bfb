"""A consistent picture of a data directory while the platform runs over it. Called by `saving`.

The order makes it consistent: first everything that the log holds is stored; then copies are taken of the catalog, of
the events and of the registry, in this order, so that no reading is of a device that the registry's copy does not know
yet. Of the log nothing is taken but where it has to go on; its registry topic is published again from the registry.
"""

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tidewire_kit import topics
from tidewire_kit.datadir import DataDir, write_private
from tidewire_kit.errors import FailedPrecondition
from tidewire_kit.log.embedded.going_on import TopicEnd, durable_ends
from tidewire_platform.backup.manifest import SavedTopic
from tidewire_platform.lock import lock_holder
from tidewire_storage.adapters.embedded.copying import (
    CATALOG,
    EVENTS,
    copy_database,
    named_files,
    stored_offsets,
    sweeps_put_off,
)

_POLL_SECONDS = 0.2
_ROOM_BYTES = 64 << 20
STORED_IN: Mapping[str, str] = {topics.TELEMETRY: CATALOG, topics.EVENTS: EVENTS}
"""Stream topic → the database below storage/ that says how far it is stored."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a backup consists of."""

    databases: Mapping[str, Path]
    """Path below the data directory → the copy to read."""
    block_files: Mapping[str, int]
    """Path below the data directory → how much of the file belongs to it."""
    topics: Mapping[str, SavedTopic]


def wait_stored(data_dir: DataDir, wait_seconds: float, say: Callable[[str], None]) -> int:
    """Waits until what the log holds now is stored. Returns the records that are not, when they will not be in time."""
    ends = durable_ends(data_dir.log)
    deadline = time.monotonic() + wait_seconds
    said = False
    while True:
        missing = unstored(data_dir.storage, ends)
        if not missing or time.monotonic() > deadline or lock_holder(data_dir.run / "up.lock") is None:
            return missing
        if not said:
            say(f"Waiting until storage has stored the log's last {missing:,} records.")
            said = True
        time.sleep(_POLL_SECONDS)


def unstored(storage: Path, ends: Mapping[str, TopicEnd]) -> int:
    """Records before the ends that storage has not stored."""
    missing = 0
    for topic, database in STORED_IN.items():
        end = ends.get(topic)
        if end is not None:
            stored = stored_offsets(storage / database)
            missing += sum(
                max(0, offset - stored.get((end.incarnation, number), 0))
                for number, offset in enumerate(end.offsets)
            )
    return missing


@contextmanager
def snapshot(data_dir: DataDir) -> Iterator[Snapshot]:
    """Takes the picture; what it names stays as it is meanwhile. FailedPrecondition: NO_DATA, DISK_FULL."""
    sources = {
        f"storage/{CATALOG}": data_dir.storage / CATALOG,
        f"storage/{EVENTS}": data_dir.storage / EVENTS,
        "registry/registry.db": data_dir.registry / "registry.db",
    }
    sources = {path: source for path, source in sources.items() if source.exists()}
    if f"storage/{CATALOG}" not in sources or "registry/registry.db" not in sources:
        raise FailedPrecondition(
            f"{data_dir.root} holds no platform's data; name its directory by --data-dir or TIDEWIRE_DATA_DIR",
            reason="NO_DATA",
            subject=str(data_dir.root),
        )
    staging = data_dir.run / "backup"
    shutil.rmtree(staging, ignore_errors=True)  # of a backup that was killed
    staging.mkdir()
    try:
        _check_room(staging, sum(_database_bytes(source) for source in sources.values()))
        ends = durable_ends(data_dir.log)
        with sweeps_put_off(data_dir.storage):
            copies = {}
            for path, source in sources.items():
                copies[path] = staging / source.name
                copy_database(source, copies[path])
            yield Snapshot(
                databases=copies,
                block_files={
                    f"storage/{path}": length
                    for path, length in named_files(data_dir.storage, copies[f"storage/{CATALOG}"]).items()
                },
                topics={
                    topic: _saved(ends[topic], staging / database)
                    for topic, database in STORED_IN.items()
                    if topic in ends
                },
            )
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def source_id(storage: Path) -> str:
    """Identity of the data directory; made at the first backup, and not restored with the rest."""
    path = storage / "backup.id"
    with suppress(FileNotFoundError):
        return path.read_text().strip()
    write_private(path, f"{secrets.token_hex(16)}\n".encode())
    return path.read_text().strip()


def _saved(end: TopicEnd, database: Path) -> SavedTopic:
    stored = stored_offsets(database)
    offsets = tuple(stored.get((end.incarnation, number), 0) for number in range(len(end.offsets)))
    return SavedTopic(end.incarnation.hex(), offsets)


def _database_bytes(path: Path) -> int:
    size = path.stat().st_size
    with suppress(FileNotFoundError):
        size += path.with_name(f"{path.name}-wal").stat().st_size
    return size


def _check_room(directory: Path, needed: int) -> None:
    facts = os.statvfs(directory)
    free = facts.f_bavail * facts.f_frsize
    if free < needed + _ROOM_BYTES:
        raise FailedPrecondition(
            f"copies of the databases take {needed >> 20} MiB in {directory} while a backup runs, "
            f"{free >> 20} MiB are free; make room",
            reason="DISK_FULL",
            subject=str(directory),
        )
