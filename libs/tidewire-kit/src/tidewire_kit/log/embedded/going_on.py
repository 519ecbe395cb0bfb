"""A log that goes on where an earlier one stood, and where a log stands: for backups of a data directory.

Storage keys what it keeps by incarnation and offset, so the log beside a restored store has to be of the same
incarnation and must not give an offset again that is stored already. `begin_log` makes such a log: empty, each topic
in a given incarnation from given offsets on. Called by the command that restores; `durable_ends` by the one that backs
up, while the platform runs.
"""

import os
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tidewire_kit.errors import FailedPrecondition
from tidewire_kit.log.embedded import files, meta
from tidewire_kit.log.embedded.meta_thread import connect
from tidewire_kit.log.embedded.segments import SegmentHeader, TopicShape, prepare_segment, publish_segment
from tidewire_kit.log.embedded.tail import TailFile, UnreadableTail
from tidewire_kit.log.port import TopicSpec


@dataclass(frozen=True, slots=True)
class TopicEnd:
    """Where a stream topic stands."""

    incarnation: bytes
    """16 bytes."""
    offsets: tuple[int, ...]
    """Per partition, the offset of the next record."""


def durable_ends(log_directory: Path) -> dict[str, TopicEnd]:
    """Topic → its durable end, of all stream topics; empty when there is no log. Writes nothing.

    After the machine went down, and until the platform has been started again, an end may be too low.
    """
    if not (log_directory / "meta.db").exists():
        return {}
    with closing(connect(log_directory / "meta.db")) as connection:
        rows = [row for row in meta.load_topics(connection) if not row.compacted]
    ends = {}
    for row in rows:
        try:
            tail = TailFile.open(log_directory / row.name / "tail", row.partitions, row.incarnation)
        except (FileNotFoundError, UnreadableTail):  # a topic that was never opened, or not since a crash
            ends[row.name] = TopicEnd(row.incarnation, (0,) * row.partitions)
            continue
        try:
            state = tail.durable.load()
        finally:
            tail.close()
        ends[row.name] = TopicEnd(row.incarnation, state.offsets if state else (0,) * row.partitions)
    return ends


def begin_log(log_directory: Path, topics: Mapping[TopicSpec, TopicEnd]) -> None:
    """Makes an empty log in a directory that has none, whose topics begin where the ends say; durable on return.

    FailedPrecondition (DATA_DIR_NOT_EMPTY) when there is a log. Topics that are not named come into being, in
    incarnations of their own, when the platform starts.
    """
    log_directory.mkdir(parents=True, exist_ok=True)
    if (log_directory / "meta.db").exists():
        raise FailedPrecondition(
            f"there is a log in {log_directory}; restore into an empty directory",
            reason="DATA_DIR_NOT_EMPTY",
            subject=str(log_directory),
        )
    with closing(connect(log_directory / "meta.db")) as connection:
        meta.prepare(connection)
        meta.ensure_topics(connection, list(topics))
        connection.executemany(
            "UPDATE topics SET incarnation = ? WHERE name = ?",
            [(end.incarnation, spec.name) for spec, end in topics.items()],
        )
    for spec, end in topics.items():
        shape = TopicShape(spec.name, log_directory / spec.name, len(end.offsets), end.incarnation)
        shape.directory.mkdir()
        os.close(prepare_segment(shape, SegmentHeader(0, time.time_ns() // 1000, end.offsets)))
        publish_segment(shape, 0)
    files.sync_directory(log_directory)
