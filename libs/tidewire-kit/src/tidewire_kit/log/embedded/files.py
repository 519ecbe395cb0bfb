"""Small file operations that the log needs done exactly right: locks, whole-file writes, vectored writes, syncing."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tidewire_kit.log.embedded import quick
from tidewire_kit.log.port import Buffer

sync_data = getattr(os, "fdatasync", os.fsync)
"""fdatasync where the system has it."""

NO_SPACE_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The disk, the quota or the file size limit is used up: it may pass, nothing is broken."""

_MOST_PIECES = 1000  # IOV_MAX is 1,024 on Linux and macOS


class FileLock:
    """An advisory lock between processes (and between open files of one process). The kernel frees it on kill -9."""

    __slots__ = ("_descriptor", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def __enter__(self) -> "FileLock":
        quick.lock(self._descriptor)
        return self

    def __exit__(self, *_: object) -> None:
        quick.unlock(self._descriptor)

    def try_acquire(self) -> bool:
        """Takes the lock if nobody holds it."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Gives the lock back."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Closes the file, which gives the lock back too."""
        os.close(self._descriptor)


def write_pieces(descriptor: int, pieces: Sequence[Buffer], at: int) -> None:
    """Writes all pieces one after the other from byte `at` on. Raises OSError; then any part may have been written."""
    first = 0
    while first < len(pieces):
        batch = pieces[first : first + _MOST_PIECES]
        wanted = sum(piece.nbytes if isinstance(piece, memoryview) else len(piece) for piece in batch)
        done = os.pwritev(descriptor, batch, at)
        if done < wanted:
            # A short write: the disk is full or a signal came. Go on from there; a full disk then says so itself.
            rest = memoryview(b"".join(batch))[done:]
            while len(rest):
                count = os.pwrite(descriptor, rest, at + done)
                done += count
                rest = rest[count:]
        at += wanted
        first += _MOST_PIECES


def extend(descriptor: int, size: int) -> None:
    """Makes the file `size` bytes long with its blocks reserved where the file system can. Raises OSError."""
    now = os.fstat(descriptor).st_size
    if now >= size:
        return
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, now, size - now)
        else:
            os.ftruncate(descriptor, size)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}:
            raise
        os.ftruncate(descriptor, size)


def drop_from_cache(path: Path) -> None:
    """Lets the kernel forget the clean pages of a file (those that somebody has mapped stay). A hint: never raises."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Makes names created or removed in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes) -> None:
    """Replaces a file by `content` in one step (not synced: for what can be rebuilt)."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        write_pieces(descriptor, [content], 0)
    finally:
        os.close(descriptor)
    temporary.replace(path)
