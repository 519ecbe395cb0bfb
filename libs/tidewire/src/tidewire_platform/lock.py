"""At most one platform runs over a data directory: the lock that `up` and `demo` hold while they run their services.

The kernel drops the lock with the process that holds it, so a crash leaves nothing behind that a person must remove.
"""

import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tidewire_kit.errors import FailedPrecondition


@dataclass(frozen=True, slots=True)
class LockHolder:
    """Who holds a lock, by its own words."""

    pid: int
    command: str


def lock_holder(path: Path) -> LockHolder | None:
    """Who holds the lock at `path`; None when nobody does."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_holder(path)
    else:
        return None
    finally:
        os.close(descriptor)


def _read_holder(path: Path) -> LockHolder:
    try:
        words = json.loads(path.read_text())
        return LockHolder(int(words["pid"]), str(words["command"]))
    except (ValueError, KeyError, TypeError):  # taken a moment ago, not yet written
        return LockHolder(0, "another process")


def _try_lock(descriptor: int) -> bool:
    for _ in range(10):  # `lock_holder` of another process may have it for a moment
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.01)
        else:
            return True
    return False


class ExclusiveLock:
    """Holds the lock file at `path` from `__enter__` to `__exit__`."""

    def __init__(self, path: Path, *, command: str, remedy: str) -> None:
        """`command` tells others who holds it; `remedy` is what a second one should do instead."""
        self._path = path
        self._command = command
        self._remedy = remedy
        self._descriptor = -1

    def __enter__(self) -> Self:
        """Takes the lock; FailedPrecondition (reason PLATFORM_RUNNING) when another process has it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if not _try_lock(descriptor):
            os.close(descriptor)
            holder = _read_holder(self._path)
            raise FailedPrecondition(
                f"{self._path.parent.parent} is in use by `{holder.command}`, process {holder.pid}. {self._remedy}",
                reason="PLATFORM_RUNNING",
                subject=str(self._path),
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "command": self._command}).encode(), 0)
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(
            self._descriptor
        )  # the file stays: removing it would let two processes hold two files of one name
