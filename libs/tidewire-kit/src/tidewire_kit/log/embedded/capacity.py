"""Decides whether there is room for more: the log's cap and the disk's floor. Asked by committers before they write.

A verdict is kept for a tenth of a second or 4 MiB, so that a commit costs no more than a comparison.
"""

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from tidewire_kit.log.embedded.settings import EmbeddedLogSettings, default_cap_bytes
from tidewire_kit.log.errors import LogFull

_KEPT_SECONDS = 0.1
_KEPT_BYTES = 4 << 20
_RESERVE_DIVISOR = 16
"""What may exceed the cap may do so by this part of it."""


class Measured(Protocol):
    """A topic as far as capacity is concerned."""

    def held_bytes(self) -> int:
        """Bytes between the oldest kept record and the end."""


class Capacity:
    """Shared by the committers of one process; any thread."""

    def __init__(
        self,
        directory: Path,
        settings: EmbeddedLogSettings,
        topics: Callable[[], Iterable[Measured]],
        make_room: Callable[[int], None],
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._topics = topics
        self._make_room = make_room
        self._lock = threading.Lock()
        self._checked_at = float("-inf")
        self._allowance = 0

    @property
    def cap_bytes(self) -> int:
        """The cap in force."""
        return self._settings.log_cap_bytes or default_cap_bytes(self._directory)

    @property
    def reserve_bytes(self) -> int:
        """Room above the cap for what may exceed it."""
        return self.cap_bytes // _RESERVE_DIVISOR

    def held_bytes(self) -> int:
        """What all topics hold now."""
        return sum(topic.held_bytes() for topic in self._topics())

    def admit(self, needed_bytes: int, *, may_exceed_cap: bool = False) -> None:
        """Raises LogFull when `needed_bytes` more must not be written, after trying to make room.

        With `may_exceed_cap` there is a little room above the cap: at the cap a consumer must still be able to set
        aside a record that it cannot process, since only what is processed makes room.
        """
        with self._lock:
            now = time.monotonic()
            if now - self._checked_at < _KEPT_SECONDS and needed_bytes <= self._allowance:
                self._allowance -= needed_bytes
                return
            self._checked_at = float("-inf")
            delay = self._settings.retry_delay_seconds
            free = self._settings.free_bytes(self._directory)
            if free - needed_bytes < self._settings.min_free_bytes:
                raise LogFull(
                    f"{free >> 20} MiB of disk are free, {self._settings.min_free_bytes >> 20} MiB must stay free; "
                    "free some space, or give the data directory a larger disk",
                    retry_delay_seconds=delay,
                )
            cap = self.cap_bytes
            held = self.held_bytes()
            if held + needed_bytes > cap:
                self._make_room(needed_bytes)
                held = self.held_bytes()
            if held + needed_bytes > cap + (self.reserve_bytes if may_exceed_cap else 0):
                raise LogFull(
                    f"the log holds {held >> 20} MiB of {cap >> 20} MiB that storage or alerting have not finished; "
                    "it goes on when they have caught up, or with a larger TIDEWIRE_LOG_CAP_BYTES",
                    retry_delay_seconds=delay,
                )
            self._checked_at = now
            spare = min(cap - held, free - self._settings.min_free_bytes) - needed_bytes
            self._allowance = max(0, min(_KEPT_BYTES, spare))
