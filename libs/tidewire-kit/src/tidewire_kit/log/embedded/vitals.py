"""Notices at once that a process has died: each member holds a lock that the kernel frees with it.

Heartbeats alone would take seconds, and a service that is restarted would wait for its own ghost that long. This only
shortens the wait; a member without a lock file counts as alive for as long as its heartbeats say so.
"""

import contextlib
import fcntl
import os
from pathlib import Path

from tidewire_kit.log.embedded.files import FileLock


class Vitals:
    """The lock of this member, and a look at those of others. Calls take some µs."""

    def __init__(self, directory: Path, member_id: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._lock = FileLock(directory / member_id)
        self._lock.try_acquire()

    def is_dead(self, member_id: str) -> bool:
        """Whether the process of this member has ended (also without saying so)."""
        try:
            descriptor = os.open(self._directory / member_id, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def forget(self, member_id: str) -> None:
        """Removes the file of a dead member."""
        with contextlib.suppress(OSError):
            (self._directory / member_id).unlink()

    def close(self) -> None:
        """Ends this member."""
        self._lock.path.unlink(missing_ok=True)
        self._lock.close()
