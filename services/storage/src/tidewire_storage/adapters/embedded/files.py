"""Block files: append-only, named by number, each written by one process at a time.

A file's writer holds a lock on it for as long as it appends, so that others know which files are at rest. What lies in
a file counts only where a row of the catalog names it: bytes that a killed process left behind are cut off later.
"""

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tidewire_storage.ports import StoreFull

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class BlockFile:
    """A file open for appending. Used by one thread."""

    __slots__ = ("_fd", "end", "file_id", "path")

    def __init__(self, directory: Path, file_id: int) -> None:
        """Creates it; FileExistsError when it is there."""
        self.file_id = file_id
        self.path = path_of(directory, file_id)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        self.end = 0
        if os.fstat(self._fd).st_nlink == 0:  # swept away before it was locked
            self.close()
            raise FileNotFoundError(
                errno.ENOENT, "the new file was removed by another process", str(self.path)
            )
        sync_directory(directory)

    def append(self, pieces: Sequence[bytes]) -> list[int]:
        """Appends and syncs; returns the positions. StoreFull when there is no room, and then the file is as before."""
        positions = []
        at = self.end
        try:
            for piece in pieces:
                positions.append(at)
                at = self._write(piece, at)
            os.fdatasync(self._fd)
        except OSError as error:
            os.ftruncate(self._fd, self.end)
            if error.errno in _FULL:
                raise StoreFull(f"{self.path.parent}: {error.strerror}; make room on the disk") from error
            raise
        self.end = at
        return positions

    def cut(self, end: int) -> None:
        """Takes back what was appended from `end` on; no row names it."""
        os.ftruncate(self._fd, end)
        self.end = end

    def _write(self, piece: bytes, at: int) -> int:
        view = memoryview(piece)
        while view:
            written = os.pwrite(self._fd, view, at)
            at += written
            view = view[written:]
        return at

    def close(self) -> None:
        """Lets go of the lock. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def path_of(directory: Path, file_id: int) -> Path:
    """Where a file lies."""
    return directory / f"{file_id:010d}.blk"


def file_ids(directory: Path) -> list[int]:
    """The files that are there, rising."""
    return sorted(int(path.stem) for path in directory.glob("*.blk") if path.stem.isdigit())


@contextmanager
def at_rest(directory: Path, file_id: int) -> Iterator[int | None]:
    """The descriptor of a file that no process writes, locked meanwhile; None when one does or it is gone."""
    try:
        fd = os.open(path_of(directory, file_id), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield fd
    finally:
        os.close(fd)


def read_pieces(directory: Path, file_id: int, places: Iterable[tuple[int, int]]) -> list[bytes]:
    """The bytes at (position, length)s; shorter where the file ends early. FileNotFoundError when it is gone."""
    fd = os.open(path_of(directory, file_id), os.O_RDONLY | os.O_CLOEXEC)
    try:
        return [os.pread(fd, length, position) for position, length in places]
    finally:
        os.close(fd)


def free_bytes(directory: Path) -> int:
    """What an unprivileged process may still write there."""
    facts = os.statvfs(directory)
    return facts.f_bavail * facts.f_frsize


def sync_directory(directory: Path) -> None:
    """Makes creations and removals in a directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
