"""Backs up a data directory to a place: what is new goes there, then a manifest that names everything.

Block files only grow or appear, so of a file that the previous backup of the same directory has, only what has been
appended is read. Pieces that the place has are not sent again, wherever they come from.
"""

import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tidewire_kit.datadir import FORMAT_VERSION, DataDir
from tidewire_kit.errors import FailedPrecondition, InvalidArgument
from tidewire_platform.backup.manifest import (
    OBJECTS,
    Manifest,
    Piece,
    SavedFile,
    backup_names,
    encode,
    manifest_key,
    name_of,
    read,
)
from tidewire_platform.backup.places import DirectoryPlace, Place
from tidewire_platform.backup.progress import Progress
from tidewire_platform.backup.snapshot import Snapshot, snapshot, source_id, wait_stored
from tidewire_storage.adapters.embedded.copying import only_backup

_BLOCK_PIECE_BYTES = 16 << 20
_DATABASE_PIECE_BYTES = 1 << 20
"""Small, since between two backups few pages of a database change."""
_THREADS = 4
_LOOKED_AT = 50
"""Backups looked through for the previous one of the same source."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What a backup did."""

    manifest: Manifest
    sent_bytes: int
    sent_objects: int


@dataclass(frozen=True, slots=True)
class _Range:
    file: Path
    position: int
    length: int


def save(
    data_dir: DataDir,
    place: Place,
    progress: Progress,
    *,
    wait_seconds: float,
    allow_unstored: bool = False,
    full: bool = False,
) -> Saved:
    """Makes a backup. `full`: sends everything anew, also what the place has.

    FailedPrecondition: BACKUP_RUNNING, LOG_NOT_STORED, NO_DATA, DISK_FULL, SOURCE_DAMAGED, BACKUP_PLACE_FULL;
    Unavailable when the place cannot be reached. Then the place has no new backup.
    """
    if isinstance(place, DirectoryPlace):
        if place.root.is_relative_to(data_dir.root):
            raise InvalidArgument(
                "DEST", f"{place.root} is in the data directory itself; name another", reason="BACKUP_PLACE"
            )
        place.remove_stale()
    with only_backup(data_dir.storage):
        known = place.sizes(OBJECTS)  # first: a place that cannot be reached is found out at once
        begun_us = time.time_ns() // 1000
        unstored = wait_stored(data_dir, wait_seconds, progress.say)
        if unstored and not allow_unstored:
            raise FailedPrecondition(
                f"{unstored:,} records of the log are not stored yet and would be missing; start the platform, wait "
                "until storage has caught up (`tidewire doctor`), or leave them out by --allow-unstored",
                reason="LOG_NOT_STORED",
                subject=str(data_dir.log),
            )
        source = source_id(data_dir.storage)
        previous = _previous(place, source)
        with snapshot(data_dir) as taken:
            sender = _Sender(place, progress, {} if full else known)
            files = sender.send(data_dir.root, taken, None if full else previous)
        manifest = Manifest(
            backup=name_of(begun_us, secrets.token_hex(2)),
            time_us=begun_us,
            source=source,
            previous=previous.backup if previous else "",
            data_format=FORMAT_VERSION,
            unstored_records=unstored,
            topics=taken.topics,
            files=files,
        )
        place.put(manifest_key(manifest.backup), encode(manifest))
        return Saved(manifest, sender.sent_bytes, sender.sent_objects)


def _previous(place: Place, source: str) -> Manifest | None:
    for name in reversed(backup_names(place)[-_LOOKED_AT:]):
        with suppress(FailedPrecondition):  # one that is damaged is not built upon
            manifest = read(place, name)
            if manifest.source == source:
                return manifest
    return None


class _Sender:
    """Sends pieces by a few threads."""

    def __init__(self, place: Place, progress: Progress, known: dict[str, int]) -> None:
        self._place = place
        self._progress = progress
        self._known = known
        self.sent_bytes = 0
        self.sent_objects = 0

    def send(self, root: Path, taken: Snapshot, previous: Manifest | None) -> tuple[SavedFile, ...]:
        before = {file.path: file.pieces for file in previous.files} if previous else {}
        kept: dict[str, list[Piece]] = {}
        ranges: dict[str, list[_Range]] = {}
        for path, length in taken.block_files.items():
            kept[path] = list(self._kept(before.get(path, ()), length))
            done = sum(piece.length for piece in kept[path])
            ranges[path] = list(_ranges(root / path, done, length, _BLOCK_PIECE_BYTES))
        for path, copy in taken.databases.items():
            kept[path] = []
            ranges[path] = list(_ranges(copy, 0, copy.stat().st_size, _DATABASE_PIECE_BYTES))
        self._progress.expect(sum(one.length for some in ranges.values() for one in some))
        executor = ThreadPoolExecutor(_THREADS, "backup")
        try:
            futures = {
                path: [executor.submit(self._piece, one) for one in some] for path, some in ranges.items()
            }
            return tuple(
                SavedFile(path, (*kept[path], *(future.result() for future in some)))
                for path, some in futures.items()
            )
        finally:
            executor.shutdown(cancel_futures=True)

    def _kept(self, pieces: tuple[Piece, ...], length: int) -> Iterator[Piece]:
        """The leading pieces of the previous backup that the place still has and that are within `length`."""
        end = 0
        for piece in pieces:
            end += piece.length
            if end > length or self._known.get(piece.key) != piece.length:
                return
            yield piece

    def _piece(self, one: _Range) -> Piece:
        try:
            with one.file.open("rb", buffering=0) as file:
                data = _read(file.fileno(), one)
        except FileNotFoundError:
            raise _source_damaged(one.file, "is missing") from None
        piece = Piece(hashlib.sha256(data).hexdigest(), len(data))
        if self._known.get(piece.key) != piece.length:
            self._place.put(piece.key, data)
            self._known[piece.key] = piece.length
            self.sent_bytes += piece.length
            self.sent_objects += 1
        self._progress.add(one.length)
        return piece


def _ranges(file: Path, begin: int, end: int, step: int) -> Iterator[_Range]:
    for position in range(begin, end, step):
        yield _Range(file, position, min(step, end - position))


def _read(descriptor: int, one: _Range) -> bytes:
    parts, at, end = [], one.position, one.position + one.length
    while at < end:
        part = os.pread(descriptor, end - at, at)
        if not part:
            raise _source_damaged(one.file, f"ends at byte {at}, the catalog names {end}")
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def _source_damaged(file: Path, what: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"{file} {what}: it was damaged before this backup; see `tidewire ledger show`, and restore an earlier backup",
        reason="SOURCE_DAMAGED",
        subject=str(file),
    )
