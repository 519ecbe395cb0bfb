"""Backups of a data directory: what is sent, what is refused, and what a damaged one says."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tidewire_kit.datadir import RESTORING, open_data_dir
from tidewire_kit.errors import FailedPrecondition, InvalidArgument
from tidewire_platform.backup.listing import listed
from tidewire_platform.backup.manifest import OBJECTS, SavedFile, encode, manifest_key, read
from tidewire_platform.backup.places import DirectoryPlace, place_at
from tidewire_platform.backup.progress import Progress
from tidewire_platform.backup.restoring import restore
from tidewire_platform.backup.saving import save
from tidewire_platform.lock import ExclusiveLock
from tidewire_storage.adapters.embedded.copying import only_backup, sweeps_put_off
from tidewire_storage.ports import SweepPutOff
from tidewire_testkit.directory import TestDevice

Open = Callable[..., Awaitable[Any]]
TIME_US = 1_780_000_000_000_000


@pytest.fixture
def place(tmp_path: Path) -> DirectoryPlace:
    return DirectoryPlace(tmp_path / "place")


async def filled(open_source: Open, root: Path, device: TestDevice, rows: int = 50) -> Any:
    source = await open_source(root)
    await source.publish(device, TIME_US, rows)
    await source.settled()
    return source


def refused(reason: str, words: str, work: Callable[[], object]) -> None:
    with pytest.raises(FailedPrecondition, match=words) as raised:
        work()
    assert raised.value.reason == reason


async def test_a_restored_directory_goes_on_behind_what_it_holds(
    open_source: Open, device: TestDevice, place: DirectoryPlace, progress: Progress, tmp_path: Path
) -> None:
    source = await filled(open_source, tmp_path / "data", device)
    saved = await asyncio.to_thread(save, source.data_dir, place, progress, wait_seconds=30)
    restored = await asyncio.to_thread(restore, place, "", tmp_path / "copy", progress)
    assert (restored.readings, restored.difference_readings) == (50, 0)
    assert restored.manifest == saved.manifest

    copy = await open_source(tmp_path / "copy")
    await copy.publish(device, TIME_US + 3_600_000_000, 7)
    await copy.settled()
    assert await copy.present() == 57


async def test_what_only_the_log_holds_is_refused_or_left_out_and_never_skipped(
    open_source: Open, device: TestDevice, place: DirectoryPlace, progress: Progress, tmp_path: Path
) -> None:
    source = await filled(open_source, tmp_path / "data", device)
    await source.close()
    source = await open_source(tmp_path / "data", own=False)
    await source.publish(device, TIME_US + 60_000_000, 5)
    await source.publish(device, TIME_US + 70_000_000, 5)

    def attempt() -> None:
        save(source.data_dir, place, progress, wait_seconds=30)  # nobody stores: it does not wait

    await asyncio.to_thread(refused, "LOG_NOT_STORED", "2 records of the log are not stored yet", attempt)
    assert listed(place) == []
    saved = save(source.data_dir, place, progress, wait_seconds=0, allow_unstored=True)
    assert saved.manifest.unstored_records == 2
    await asyncio.to_thread(restore, place, "", tmp_path / "copy", progress)

    copy = await open_source(tmp_path / "copy")
    assert await copy.present() == 50
    await copy.publish(device, TIME_US + 80_000_000, 3)  # gets an offset that the lost ones had
    await copy.settled()
    assert await copy.present() == 53


async def test_a_later_backup_sends_what_is_new_and_a_restored_directory_begins_a_chain_of_its_own(
    open_source: Open, device: TestDevice, place: DirectoryPlace, progress: Progress, tmp_path: Path
) -> None:
    source = await filled(open_source, tmp_path / "data", device, rows=20_000)
    first = await asyncio.to_thread(save, source.data_dir, place, progress, wait_seconds=30)
    await source.publish(device, TIME_US + 10**12, 10)
    await source.settled()
    second = await asyncio.to_thread(save, source.data_dir, place, progress, wait_seconds=30)
    assert (first.manifest.previous, second.manifest.previous) == ("", first.manifest.backup)
    before = {file.path: file.pieces for file in first.manifest.files}
    (blocks,) = (file for file in second.manifest.files if file.path.endswith(".blk"))
    assert blocks.pieces[:-1] == before[blocks.path], "only what was appended is new"
    assert second.sent_bytes < first.sent_bytes

    await asyncio.to_thread(restore, place, "", tmp_path / "copy", progress)
    third = save(open_data_dir(tmp_path / "copy"), place, progress, wait_seconds=0)
    assert third.manifest.previous == "", "a restored directory goes its own way"
    assert third.manifest.source != second.manifest.source
    same = {file.path: file.pieces for file in third.manifest.files}
    assert sum(piece.length for piece in same[blocks.path]) == blocks.length
    again = save(open_data_dir(tmp_path / "copy"), place, progress, wait_seconds=0)
    assert (again.sent_bytes, again.manifest.previous) == (0, third.manifest.backup)
    full = save(open_data_dir(tmp_path / "copy"), place, progress, wait_seconds=0, full=True)
    assert full.sent_bytes > 0
    assert [row["state"] for row in listed(place)] == ["whole"] * 5


async def test_missing_and_damaged_objects_are_named_and_nothing_is_put_in_place(
    open_source: Open, device: TestDevice, place: DirectoryPlace, progress: Progress, tmp_path: Path
) -> None:
    source = await filled(open_source, tmp_path / "data", device)
    saved = await asyncio.to_thread(save, source.data_dir, place, progress, wait_seconds=30)
    pieces = {file.path: file.pieces[0] for file in saved.manifest.files}
    catalog, events = pieces["storage/catalog.db"], pieces["storage/events.db"]
    content = bytearray((place.root / catalog.key).read_bytes())
    content[100] ^= 1
    (place.root / catalog.key).write_bytes(content)
    (place.root / events.key).unlink()

    def attempt() -> None:
        restore(place, "", tmp_path / "copy", progress)

    words = f"{catalog.key}, a piece of storage/catalog.db, has other bytes.*{events.key}|{events.key}.*{catalog.key}"
    refused("BACKUP_DAMAGED", words, attempt)
    assert sorted(os.listdir(tmp_path / "copy")) == ["run"]
    (row,) = listed(place)
    assert row["state"] == f"1 objects missing or cut short, first {events.key}"

    await asyncio.to_thread(save, source.data_dir, place, progress, wait_seconds=30, full=True)
    assert [row["state"] for row in listed(place)] == ["whole", "whole"], (
        "a full one sends again what was damaged"
    )
    await asyncio.to_thread(restore, place, saved.manifest.backup, tmp_path / "copy", progress)


async def test_a_manifest_is_believed_only_whole(
    open_source: Open, device: TestDevice, place: DirectoryPlace, progress: Progress, tmp_path: Path
) -> None:
    source = await filled(open_source, tmp_path / "data", device)
    saved = await asyncio.to_thread(save, source.data_dir, place, progress, wait_seconds=30)
    path = place.root / manifest_key(saved.manifest.backup)
    good = json.loads(path.read_text())
    for change, reason, words in (
        ({**good, "format": 2}, "FORMAT_NEWER", "has format 2, newer than 1"),
        ({**good, "manifest": {**good["manifest"], "time_us": 1}}, "BACKUP_DAMAGED", "fails its checksum"),
        ({"format": 1}, "BACKUP_DAMAGED", "is no manifest"),
    ):
        path.write_text(json.dumps(change))
        refused(reason, words, lambda: read(place, saved.manifest.backup))
    refused("BACKUP_NONE", "has no backup other", lambda: read(place, "other"))
    empty = DirectoryPlace(tmp_path / "empty")
    refused("BACKUP_NONE", "holds no backup", lambda: restore(empty, "", tmp_path / "copy", progress))


async def test_a_manifest_names_no_files_elsewhere(
    open_source: Open, device: TestDevice, place: DirectoryPlace, progress: Progress, tmp_path: Path
) -> None:
    source = await filled(open_source, tmp_path / "data", device)
    saved = await asyncio.to_thread(save, source.data_dir, place, progress, wait_seconds=30)
    evil = replace(saved.manifest, files=(SavedFile("storage/../../elsewhere", ()),))
    place.put(manifest_key(saved.manifest.backup), encode(evil))
    refused("BACKUP_DAMAGED", "none of ours", lambda: restore(place, "", tmp_path / "copy", progress))


async def test_one_backup_at_a_time_and_no_sweep_meanwhile(
    open_source: Open, device: TestDevice, place: DirectoryPlace, progress: Progress, tmp_path: Path
) -> None:
    source = await filled(open_source, tmp_path / "data", device)
    with only_backup(source.data_dir.storage):
        refused(
            "BACKUP_RUNNING",
            "another backup of .* is running",
            lambda: save(source.data_dir, place, progress, wait_seconds=0),
        )
    with sweeps_put_off(source.data_dir.storage), pytest.raises(SweepPutOff):
        await source.store.sweep()
    assert await source.store.sweep() == 0


async def test_a_directory_that_holds_anything_is_not_overwritten_unasked(
    open_source: Open, device: TestDevice, place: DirectoryPlace, progress: Progress, tmp_path: Path
) -> None:
    source = await filled(open_source, tmp_path / "data", device)
    await asyncio.to_thread(save, source.data_dir, place, progress, wait_seconds=30)
    root = source.data_dir.root
    await source.publish(device, TIME_US + 60_000_000, 5)
    await source.settled()
    await source.close()
    refused("DATA_DIR_NOT_EMPTY", "holds data", lambda: restore(place, "", root, progress))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").touch()
    refused(
        "DATA_DIR_FOREIGN",
        "holds something else .letter.txt.",
        lambda: restore(place, "", tmp_path / "home", progress, replace=True),
    )
    with ExclusiveLock(root / "run" / "up.lock", command="tidewire up", remedy="-"):
        refused("PLATFORM_RUNNING", "is in use", lambda: restore(place, "", root, progress, replace=True))
    restored = await asyncio.to_thread(restore, place, "", root, progress, replace=True)
    assert restored.readings == 50
    source = await open_source(root)
    assert await source.present() == 50


async def test_a_restore_that_was_interrupted_is_run_again(
    open_source: Open, device: TestDevice, place: DirectoryPlace, progress: Progress, tmp_path: Path
) -> None:
    source = await filled(open_source, tmp_path / "data", device)
    await asyncio.to_thread(save, source.data_dir, place, progress, wait_seconds=30)
    await source.close()
    root = source.data_dir.root
    (root / RESTORING).touch()  # as when it is killed while it exchanges the rooms
    (root / ".replaced").mkdir()
    (root / "log").rename(root / ".replaced" / "log")
    refused("RESTORE_UNFINISHED", "run `tidewire storage restore` again", lambda: open_data_dir(root))
    await asyncio.to_thread(restore, place, "", root, progress, replace=True)
    assert sorted(os.listdir(root)) == ["VERSION", "keys", "log", "registry", "run", "storage"]
    source = await open_source(root)
    assert await source.present() == 50


async def test_files_that_were_damaged_before_are_not_backed_up_silently(
    open_source: Open, device: TestDevice, place: DirectoryPlace, progress: Progress, tmp_path: Path
) -> None:
    source = await filled(open_source, tmp_path / "data", device)
    await source.close()
    (file,) = (source.data_dir.storage / "blocks").glob("*.blk")
    os.truncate(file, file.stat().st_size - 1)
    words = f"{file.name} ends at byte"
    refused("SOURCE_DAMAGED", words, lambda: save(source.data_dir, place, progress, wait_seconds=0))
    file.unlink()
    words = f"{file.name} is missing"
    refused("SOURCE_DAMAGED", words, lambda: save(source.data_dir, place, progress, wait_seconds=0))
    assert listed(place) == []


def test_a_full_place_is_named_and_keeps_nothing_half(tmp_path: Path) -> None:
    program = """
import resource, signal, sys
from pathlib import Path
from tidewire_kit.errors import FailedPrecondition
from tidewire_platform.backup.places import DirectoryPlace
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    DirectoryPlace(Path(sys.argv[1])).put("objects/ab/abc", bytes(5000))
except FailedPrecondition as error:
    print(error.reason)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "place")], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("BACKUP_PLACE_FULL\n", 0), done.stderr
    assert DirectoryPlace(tmp_path / "place").sizes(OBJECTS) == {}
    assert list((tmp_path / "place" / ".writing").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("s3://key:secret@bucket/x", "no credentials"),
        ("s3:///x", "name the bucket"),
        ("gs://bucket/x", "gs:// is not known"),
    ],
)
def test_places_that_cannot_be_are_refused_without_repeating_a_secret(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words) as raised:
        place_at(text, {})
    assert "secret" not in raised.value.message.replace("SECRET", "")


async def test_a_place_within_the_data_directory_is_refused(
    open_source: Open, progress: Progress, tmp_path: Path
) -> None:
    source = await open_source(tmp_path / "data")
    inside = DirectoryPlace(source.data_dir.root / "backups")
    with pytest.raises(InvalidArgument, match="in the data directory itself"):
        save(source.data_dir, inside, progress, wait_seconds=0)
