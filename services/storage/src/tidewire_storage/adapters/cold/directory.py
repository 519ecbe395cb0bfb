"""The cold tier in a directory: a disk of its own, or a share that is mounted. Named by `main`."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tidewire_storage.ports import ColdObject, ColdUnavailable

_WRITING = ".writing"
"""No name of an object begins with a dot, and those who read the layout pass over such names."""
_THREADS = 4


class DirectoryColdStore:
    """See ColdStore. An object appears under its name once its bytes are on the disk."""

    def __init__(self, root: Path) -> None:
        self.place = str(root)
        self._root = root
        self._threads = ThreadPoolExecutor(_THREADS, "storage-cold")

    async def put(self, name: str, data: bytes) -> None:
        """See ColdStore."""
        await self._on_thread(lambda: self._put(name, data))

    def _put(self, name: str, data: bytes) -> None:
        target = self._root / name
        writing = self._root / _WRITING
        for directory in (writing, target.parent):
            _make(directory)
        descriptor, temporary = tempfile.mkstemp(dir=writing)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            os.chmod(temporary, 0o640)
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync(target.parent)

    async def ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes] | None:
        """See ColdStore."""

        def read() -> list[bytes] | None:
            try:
                descriptor = os.open(self._root / name, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                if not self._root.is_dir():
                    raise  # a share that is not mounted is not an object that is gone
                return None
            try:
                return [os.pread(descriptor, length, position) for position, length in ranges]
            finally:
                os.close(descriptor)

        return await self._on_thread(read)

    async def objects(self, prefix: str = "") -> list[ColdObject]:
        """See ColdStore."""

        def look() -> list[ColdObject]:
            found = []
            for directory, below, names in os.walk(self._root / prefix):
                below[:] = [name for name in below if not name.startswith(".")]
                for name in names:
                    path = Path(directory, name)
                    with contextlib.suppress(FileNotFoundError):
                        facts = path.stat()
                        found.append(
                            ColdObject(
                                path.relative_to(self._root).as_posix(),
                                facts.st_size,
                                facts.st_mtime_ns // 1000,
                            )
                        )
            return sorted(found, key=lambda one: one.name)

        return await self._on_thread(look)

    async def remove(self, names: Collection[str]) -> None:
        """See ColdStore."""

        def remove() -> None:
            for name in names:
                path = self._root / name
                path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # not empty, or gone
                    path.parent.rmdir()
                    path.parent.parent.rmdir()

        await self._on_thread(remove)

    async def close(self) -> None:
        """See ColdStore."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _on_thread[T](self, work: Callable[[], T]) -> T:
        def run() -> T:
            try:
                return work()
            except OSError as error:
                raise ColdUnavailable(f"{error.filename or self.place}: {error.strerror}") from error

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)


def _make(directory: Path) -> None:
    """Makes a directory durably."""
    if not directory.is_dir():
        _make(directory.parent)
        directory.mkdir(exist_ok=True)
        _sync(directory.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
