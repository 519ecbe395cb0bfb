"""Restores a backup into a data directory: fetched and checked beside what is there, then put in its place.

Until the very last step the directory is as it was, so a restore that fails or is killed has changed nothing. In that
step a file RESTORING says that it is under way, and no service opens the directory while it is there.
"""

import asyncio
import fcntl
import hashlib
import os
import re
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tidewire_kit import topics
from tidewire_kit.datadir import FORMAT_VERSION, RESTORING, ROOMS, open_data_dir
from tidewire_kit.errors import FailedPrecondition
from tidewire_kit.log.embedded.going_on import TopicEnd, begin_log
from tidewire_platform.backup.manifest import Manifest, Piece, backup_names, damaged, read
from tidewire_platform.backup.places import Place
from tidewire_platform.backup.progress import Progress
from tidewire_platform.lock import ExclusiveLock
from tidewire_storage.adapters.embedded import EmbeddedEventStore, EmbeddedStore

_FILES = re.compile(r"storage/(blocks/[0-9]{10}\.blk|catalog\.db|events\.db)|registry/registry\.db")
_REPLACED = ("log", "registry", "storage")
_OURS = frozenset({*ROOMS, "VERSION", RESTORING, ".restoring", ".replaced", "lost+found"})
_THREADS = 4
_ROOM_BYTES = 64 << 20
_NAMED = 5
_END_US = 1 << 62


@dataclass(frozen=True, slots=True)
class Restored:
    """What is there now."""

    manifest: Manifest
    tenants: int
    devices: int
    readings: int
    events: int
    difference_readings: int
    difference_events: int


def restore(place: Place, backup: str, root: Path, progress: Progress, *, replace: bool = False) -> Restored:
    """Restores a backup ("": the newest) into the directory `root`. `replace`: instead of what it holds.

    FailedPrecondition: BACKUP_NONE, BACKUP_DAMAGED, FORMAT_NEWER, DATA_DIR_NOT_EMPTY, DATA_DIR_FOREIGN, DISK_FULL,
    PLATFORM_RUNNING; Unavailable when the place cannot be reached. Then the directory is as it was.
    """
    manifest = _chosen(place, backup)
    _check_vacant(root, replace=replace)
    (root / "run").mkdir(parents=True, exist_ok=True, mode=0o750)
    remedy = "Stop it first, or restore into another --data-dir"
    with ExclusiveLock(root / "run" / "up.lock", command="tidewire storage restore", remedy=remedy):
        _check_vacant(root, replace=replace)
        _check_registry_stopped(root)
        stage = root / ".restoring"
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir(mode=0o750)
        try:
            _check_room(root, manifest.length)
            _fetch(place, manifest, stage, progress)
            ends = {
                name: TopicEnd(bytes.fromhex(t.incarnation), t.offsets) for name, t in manifest.topics.items()
            }
            specs = {spec.name: spec for name in ends for spec in topics.specs(len(ends[name].offsets))}
            begin_log(stage / "log", {specs[name]: end for name, end in ends.items()})
            restored = asyncio.run(_look(manifest, stage))
            _put_in_place(root, stage)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        open_data_dir(root)
        return restored


def _chosen(place: Place, backup: str) -> Manifest:
    names = backup_names(place)
    if not names:
        raise FailedPrecondition(
            f"{place.name} holds no backup; name the place that was given to `tidewire storage backup`",
            reason="BACKUP_NONE",
            subject=place.name,
        )
    manifest = read(place, backup or names[-1])
    if manifest.data_format > FORMAT_VERSION:
        raise FailedPrecondition(
            f"backup {manifest.backup} is of data format {manifest.data_format}, this version knows up to "
            f"{FORMAT_VERSION}; restore it by the version that made it, or a newer one",
            reason="FORMAT_NEWER",
            subject=manifest.backup,
        )
    for file in manifest.files:
        if not _FILES.fullmatch(file.path):
            raise damaged(
                place, f"backup {manifest.backup} names the file {file.path!r}, which is none of ours"
            )
    return manifest


def _check_vacant(root: Path, *, replace: bool) -> None:
    if not root.exists():
        return
    foreign = sorted(entry.name for entry in root.iterdir() if entry.name not in _OURS)
    if foreign:
        raise FailedPrecondition(
            f"{root} holds something else ({foreign[0]}); restore into a directory of its own",
            reason="DATA_DIR_FOREIGN",
            subject=str(root),
        )
    held = [room for room in _REPLACED if (root / room).exists() and any((root / room).iterdir())]
    if held and not replace:
        raise FailedPrecondition(
            f"{root} holds data ({', '.join(held)}); restore into an empty directory, or give --replace to lose them",
            reason="DATA_DIR_NOT_EMPTY",
            subject=str(root),
        )


def _check_registry_stopped(root: Path) -> None:
    """Also without `tidewire up` a registry may run over the directory."""
    try:
        descriptor = os.open(root / "registry" / "registry.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FailedPrecondition(
            f"a registry runs over {root}; stop the platform first, or restore into another --data-dir",
            reason="PLATFORM_RUNNING",
            subject=str(root),
        ) from None
    finally:
        os.close(descriptor)


def _check_room(root: Path, needed: int) -> None:
    facts = os.statvfs(root)
    free = facts.f_bavail * facts.f_frsize
    if free < needed + _ROOM_BYTES:
        raise FailedPrecondition(
            f"the backup has {needed >> 20} MiB, {free >> 20} MiB are free in {root}; make room, or restore elsewhere",
            reason="DISK_FULL",
            subject=str(root),
        )


def _fetch(place: Place, manifest: Manifest, stage: Path, progress: Progress) -> None:
    progress.expect(manifest.length)
    (stage / "storage" / "blocks").mkdir(parents=True, mode=0o750)
    (stage / "registry").mkdir(mode=0o750)
    faults: list[str] = []

    def fetch(path: str, file: IO[bytes], piece: Piece, position: int) -> None:
        data = place.get(piece.key)
        if data is None or len(data) != piece.length or hashlib.sha256(data).hexdigest() != piece.sha256:
            what = "is missing" if data is None else "has other bytes than were put there"
            faults.append(f"{piece.key}, a piece of {path}, {what}")
            return
        _write(file.fileno(), data, position)
        progress.add(piece.length)

    for saved in manifest.files:
        descriptor = os.open(stage / saved.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            executor = ThreadPoolExecutor(_THREADS, "restore")
            try:
                futures = []
                position = 0
                for piece in saved.pieces:
                    futures.append(executor.submit(fetch, saved.path, file, piece, position))
                    position += piece.length
                for future in futures:
                    future.result()
            finally:
                executor.shutdown(cancel_futures=True)
            os.fsync(descriptor)
    if faults:
        more = f" and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        raise damaged(
            place, f"backup {manifest.backup} is damaged: {'; '.join(sorted(faults)[:_NAMED])}{more}"
        )
    for directory in (stage / "storage" / "blocks", stage / "storage", stage / "registry", stage):
        _sync(directory)


async def _look(manifest: Manifest, stage: Path) -> Restored:
    """Counts what has been restored, and compares it with the ledger."""
    store, events = EmbeddedStore(stage / "storage"), EmbeddedEventStore(stage / "storage")
    await store.open()
    try:
        difference = await store.difference()
        account = await store.ledger(None, 0, _END_US)
        await events.open()
        try:
            events_account = await events.account()
        finally:
            await events.close()
    finally:
        await store.close()
    with closing(sqlite3.connect(stage / "registry" / "registry.db")) as registry:
        tenants, devices = registry.execute(
            "SELECT count(*), coalesce(sum(devices), 0) FROM tenants"
        ).fetchone()
    return Restored(
        manifest=manifest,
        tenants=tenants,
        devices=devices,
        readings=sum(line.present for line in account.lines),
        events=events_account.present or 0,
        difference_readings=difference,
        difference_events=events_account.difference,
    )


def _put_in_place(root: Path, stage: Path) -> None:
    old = root / ".replaced"
    shutil.rmtree(old, ignore_errors=True)
    old.mkdir()
    (root / RESTORING).write_text("A restore was interrupted: run it again with --replace.\n")
    _sync(root)
    for room in _REPLACED:
        if (root / room).exists():
            (root / room).rename(old / room)
        (stage / room).rename(root / room)
    (root / "VERSION").write_text(f"{FORMAT_VERSION}\n")
    _sync(root)
    (root / RESTORING).unlink()
    _sync(root)
    shutil.rmtree(old)


def _write(descriptor: int, data: bytes, position: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, position)
        view, position = view[written:], position + written


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
