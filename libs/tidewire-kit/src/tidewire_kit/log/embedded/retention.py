"""Removes the oldest segments: by age, or at the cap, and never what a retention holder has not committed.

Blocking; run by the maintenance task in a worker thread, and by a committer that has met the cap. One process at a
time does it, under a lock. Only a prefix of a topic is ever removed, a whole segment at a time.
"""

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from tidewire_kit.log.embedded import meta, meta_thread
from tidewire_kit.log.embedded.files import FileLock
from tidewire_kit.log.embedded.segments import SegmentHeader, read_header
from tidewire_kit.log.embedded.settings import EmbeddedLogSettings
from tidewire_kit.log.embedded.topic import StreamTopic

_log = logging.getLogger(__name__)

_ROOM = 0.05
"""At the cap this part of it is freed at once, so that not every commit has to ask again."""


_LONGEST_SEGMENT = 0.25
"""A segment takes records for no longer than this part of its topic's retention."""


class _Candidate(NamedTuple):
    """A topic's oldest segment, if it may go."""

    ended_at_us: int
    topic: StreamTopic
    base: int
    following: int


class Retention:
    """The retention of all topics that this process knows."""

    def __init__(
        self,
        directory: Path,
        settings: EmbeddedLogSettings,
        topics: Callable[[], Iterable[StreamTopic]],
    ) -> None:
        self._lock_path = directory / "retention.lock"
        self._database = directory / "meta.db"
        self._settings = settings
        self._topics = topics

    def expire(self) -> int:
        """Removes what is committed and older than its topic's retention; returns the bytes removed."""
        for topic in self._topics():
            self._close_aged(topic)
        return self._run(lambda candidate, _removed: self._is_expired(candidate))

    def expire_if_due(self) -> int:
        """Does as `expire`, unless another process did so a moment ago."""
        now = time.time()
        with contextlib.suppress(FileNotFoundError):
            if 0 <= now - self._lock_path.stat().st_mtime < self._settings.maintenance_seconds / 2:
                return 0
        removed = self.expire()
        os.utime(self._lock_path)
        return removed

    def make_room(
        self, needed_bytes: int, cap_bytes: int, reserve_bytes: int, reserved: Collection[str]
    ) -> int:
        """Removes the oldest committed segments until `needed_bytes` fit below the cap; returns the bytes removed.

        Of the topics in `reserved` each keeps `reserve_bytes`.
        """
        held = sum(topic.held_bytes() for topic in self._topics())
        excess = held + needed_bytes - int(cap_bytes * (1 - _ROOM))

        def wanted(candidate: _Candidate, removed: int) -> bool:
            topic = candidate.topic
            return removed < excess and not (
                topic.row.name in reserved and topic.held_bytes() <= reserve_bytes
            )

        return self._run(wanted, roll=True)

    def _run(self, wanted: Callable[[_Candidate, int], bool], *, roll: bool = False) -> int:
        lock = FileLock(self._lock_path)
        try:
            with lock, contextlib.closing(meta_thread.connect(self._database)) as connection:
                return self._remove(connection, wanted, roll=roll)
        finally:
            lock.close()

    def _remove(
        self, connection: sqlite3.Connection, wanted: Callable[[_Candidate, int], bool], *, roll: bool
    ) -> int:
        removed = 0
        floors = {topic.shape.name: self._floors(connection, topic) for topic in self._topics()}
        while True:
            candidates = [
                candidate
                for topic in self._topics()
                if (candidate := self._oldest(topic, floors[topic.shape.name], roll=roll)) is not None
                and wanted(candidate, removed)
            ]
            if not candidates:
                return removed
            oldest = min(candidates, key=lambda candidate: candidate.ended_at_us)
            shape = oldest.topic.shape
            shape.segment_path(oldest.base).unlink(missing_ok=True)
            shape.index_path(oldest.base).unlink(missing_ok=True)
            removed += oldest.following - oldest.base
            _log.info("removed segment %016x of %s", oldest.base, shape.name)

    def _floors(self, connection: sqlite3.Connection, topic: StreamTopic) -> list[Mapping[int, int]]:
        return meta.holders_offsets(connection, topic.row.id, self._settings.retention_holders)

    def _oldest(
        self, topic: StreamTopic, floors: list[Mapping[int, int]], *, roll: bool
    ) -> _Candidate | None:
        active = topic.durable().segment_base  # first: a segment begun meanwhile is only one more to find
        bases = topic.shape.bases()
        if not bases or bases[0] > active:
            return None
        begin = read_header(topic.shape, bases[0])
        if bases[0] == active:
            # Nothing is closed. When room is needed and all of it is done with, the active segment may go as well.
            if (
                not roll
                or not _is_committed(topic.durable().offsets, begin, floors)
                or not topic.appender.roll()
            ):
                return None
            bases = topic.shape.bases()
        following = read_header(topic.shape, bases[1])
        if not _is_committed(following.offsets, begin, floors):
            return None
        return _Candidate(following.created_at_us, topic, bases[0], bases[1])

    def _close_aged(self, topic: StreamTopic) -> None:
        """Ends a segment that a quiet topic does not fill, so that its records expire in time too."""
        created_at_us = read_header(topic.shape, topic.durable().segment_base).created_at_us
        age_us = self._settings.clock_us() - created_at_us
        if age_us > topic.row.retention_seconds * 1e6 * _LONGEST_SEGMENT:
            topic.appender.roll()

    def _is_expired(self, candidate: _Candidate) -> bool:
        age_us = self._settings.clock_us() - candidate.ended_at_us
        return age_us > candidate.topic.row.retention_seconds * 1e6


def _is_committed(ends: Iterable[int], begin: SegmentHeader, floors: list[Mapping[int, int]]) -> bool:
    """Whether every holder has committed everything from `begin` up to `ends`."""
    return all(
        end <= max(floor.get(partition, 0), begin.offsets[partition])
        for floor in floors
        for partition, end in enumerate(ends)
    )
