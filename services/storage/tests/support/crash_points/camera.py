"""Pictures of a store's directory at every moment at which a kill would find it different."""

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tidewire_storage.adapters.embedded import EmbeddedStore, schema
from tidewire_storage.ports import Flush, Seal


@dataclass(frozen=True, slots=True)
class Picture:
    """The disk at a moment at which a kill would find it so."""

    label: str
    files: dict[str, bytes]
    under_way: Flush | Seal | None
    """The call of the store's port that was not answered yet."""

    def put(self, directory: Path) -> None:
        """Makes it a directory."""
        for name, data in self.files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


class Camera:
    """Takes a picture of a directory after every step of the operating system and SQLite that changed it.

    Of bytes that are written and not synced yet there are pictures without them, and with zeros in their place, too: a
    machine that loses its power may leave either. `every_piece`: also between the pieces of one append.
    """

    def __init__(self, directory: Path, *, every_piece: bool) -> None:
        self.directory = directory
        self.every_piece = every_piece
        self.pictures: list[Picture] = []
        self.under_way: Flush | Seal | None = None
        self.calls: list[Flush | Seal] = []
        """All that the store was asked to change."""
        self.step = ""
        self._seen: set[bytes] = set()
        self._synced: dict[str, int] = {}

    def shoot(self, what: str) -> None:
        """Takes the pictures, unless the disk is as it was."""
        files = {
            str(path.relative_to(self.directory)): path.read_bytes()
            for path in sorted(self.directory.rglob("*"))
            if path.is_file() and path.suffix in (".blk", ".db", ".db-wal")
        }
        self._keep(what, files)
        torn = {name: self._synced.get(name, 0) for name in files if name.endswith(".blk")}
        torn = {name: synced for name, synced in torn.items() if synced < len(files[name])}
        if torn:
            cut = {name: files[name][:synced] for name, synced in torn.items()}
            zeros = {name: data + bytes(len(files[name]) - len(data)) for name, data in cut.items()}
            self._keep(f"{what}, and power lost: bytes missing", files | cut)
            self._keep(f"{what}, and power lost: bytes zero", files | zeros)

    def _keep(self, what: str, files: dict[str, bytes]) -> None:
        digest = hashlib.blake2b(digest_size=16)
        for name, data in files.items():
            digest.update(f"{name} {len(data)} ".encode() + data)
        if digest.digest() not in self._seen:
            self._seen.add(digest.digest())
            self.pictures.append(Picture(f"{self.step}: {what}", files, self.under_way))

    def synced(self, fd: int) -> None:
        """What a file holds now survives the machine."""
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        if path.is_file():
            self._synced[str(path.relative_to(self.directory))] = path.stat().st_size

    def port(self, store: EmbeddedStore) -> Any:
        """The store, noting which change is under way."""
        camera = self

        class Noting:
            def __getattr__(self, name: str) -> Any:
                return getattr(store, name)

            async def commit(self, flush: Flush) -> None:
                await camera._noted(flush, store.commit(flush))

            async def seal(self, seal: Seal) -> bool:
                return bool(await camera._noted(seal, store.seal(seal)))

        return Noting()

    async def _noted(self, what: Flush | Seal, call: Any) -> Any:
        self.under_way = what
        self.calls.append(what)
        try:
            return await call
        finally:
            self.under_way = None


class _Connection(sqlite3.Connection):
    """Has a picture taken after every statement that may have reached the disk."""

    camera: Camera

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        cursor = super().execute(sql, *values)
        if not self.in_transaction and not sql.startswith("SELECT"):
            self.camera.shoot(sql.split("\n")[0][:40])
        return cursor


@contextmanager
def filming(camera: Camera, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything that the embedded store does to the disk in this process is seen by the camera meanwhile."""
    real_connect = sqlite3.connect
    filmed = type("_Filmed", (_Connection,), {"camera": camera})

    def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = real_connect(*args, factory=filmed, **kwargs)
        sqlite3.Connection.execute(
            connection, "PRAGMA wal_autocheckpoint=32"
        )  # small pictures, many checkpoints
        return connection

    def after(name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def acting(*args: Any, **kwargs: Any) -> Any:
            if name == "fdatasync":
                camera.shoot(f"before {name}")
            result = act(*args, **kwargs)
            if name in ("fdatasync", "fsync"):
                camera.synced(args[0])
            if name != "pwrite" or camera.every_piece:
                camera.shoot(name)
            return result

        return acting

    with monkeypatch.context() as patch:
        patch.setattr(schema.sqlite3, "connect", connect)
        for name in ("pwrite", "fdatasync", "ftruncate", "fsync", "unlink"):
            patch.setattr(os, name, after(name, getattr(os, name)))
        yield
