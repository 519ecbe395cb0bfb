"""Segment files and their sparse indexes: naming, headers, scanning. Used by the appender, readers and retention.

A topic's segments follow each other without a gap in one sequence of byte positions; a file is named by the position of
its first byte. All partitions of a topic share the sequence, so one write and one fdatasync make a commit of all of
them durable. A header says where each partition stands at the beginning of the segment.

    <topic>/0000000000000000.seg     header, frames, and zeros up to the preallocated size
    <topic>/0000000000000000.idx     sparse index: (position, offset of each partition there), each with a checksum

The index is written along with the segment but never synced; an entry that is missing or torn only makes a seek read
more, and a missing file is made again from the segment.
"""

import contextlib
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from tidewire_kit.log.embedded import files
from tidewire_kit.log.embedded.frames import FrameHead, head_at, is_intact
from tidewire_kit.log.embedded.tail import newer_format
from tidewire_kit.log.errors import LogCorrupt

FORMAT_VERSION: Final = 1
_MAGIC = b"TWSEGM\r\n"
_FIXED = struct.Struct("<8sII16sQQ")


@dataclass(frozen=True, slots=True)
class TopicShape:
    """What all files of a topic have in common."""

    name: str
    directory: Path
    partitions: int
    incarnation: bytes

    @property
    def header_bytes(self) -> int:
        """Size of a segment's header; frames start behind it."""
        return (_FIXED.size + 8 * self.partitions + 8 + 63) & ~63

    def segment_path(self, base: int) -> Path:
        """The segment whose first byte has this position."""
        return self.directory / f"{base:016x}.seg"

    def prepared_path(self, base: int) -> Path:
        """The same before it is in use."""
        return self.directory / f"{base:016x}.new"

    def index_path(self, base: int) -> Path:
        """The index of that segment."""
        return self.directory / f"{base:016x}.idx"

    def bases(self) -> list[int]:
        """First positions of the segment files there are, ascending (the last one may not be in use yet)."""
        names = (entry.name for entry in os.scandir(self.directory))
        return sorted(
            int(name[:-4], 16) for name in names if name.endswith(".seg") and not name.startswith(".")
        )


class SegmentHeader(NamedTuple):
    """What a segment says of itself."""

    base: int
    created_at_us: int
    """Log time at its creation: not earlier than any record of the segments before, not later than any of its own."""
    offsets: tuple[int, ...]
    """Per partition, the offset of the first record at or behind this segment."""


def encode_header(shape: TopicShape, header: SegmentHeader) -> bytes:
    """The header's bytes, padded to `shape.header_bytes`."""
    raw = _FIXED.pack(
        _MAGIC, FORMAT_VERSION, shape.partitions, shape.incarnation, header.base, header.created_at_us
    ) + struct.pack(f"<{shape.partitions}Q", *header.offsets)
    raw += xxhash.xxh3_64_intdigest(raw).to_bytes(8, "little")
    return raw.ljust(shape.header_bytes, b"\0")


def read_header(shape: TopicShape, base: int) -> SegmentHeader:
    """Reads and checks a header. Raises FileNotFoundError, LogCorrupt, FailedPrecondition (newer format)."""
    path = shape.segment_path(base)
    with path.open("rb", buffering=0) as file:
        raw = file.read(shape.header_bytes)
    if len(raw) < _FIXED.size or not raw.startswith(_MAGIC):
        raise LogCorrupt(f"{path} does not start with the header of a segment")
    _magic, version, partitions, incarnation, stored_base, created_at_us = _FIXED.unpack_from(raw)
    if version > FORMAT_VERSION:
        raise newer_format(path, version, FORMAT_VERSION)
    end = _FIXED.size + 8 * shape.partitions
    if len(raw) < end + 8 or xxhash.xxh3_64_intdigest(raw[:end]) != int.from_bytes(
        raw[end : end + 8], "little"
    ):
        raise LogCorrupt(f"the header of {path} fails its checksum")
    if (partitions, incarnation, stored_base) != (shape.partitions, shape.incarnation, base):
        raise LogCorrupt(f"{path} belongs to another topic, incarnation or place")
    return SegmentHeader(base, created_at_us, struct.unpack_from(f"<{partitions}Q", raw, _FIXED.size))


def prepare_segment(shape: TopicShape, header: SegmentHeader) -> int:
    """Creates the next segment under a name that nobody looks at yet; returns its descriptor. Raises OSError.

    Then the tail is pointed to it, then `publish_segment` names it. Who finds the tail pointing to a segment without
    its name gives it its name; so a process killed in between leaves no segment that is not in use.
    """
    path = shape.prepared_path(header.base)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        files.write_pieces(descriptor, [encode_header(shape, header)], 0)
        os.fsync(descriptor)
    except OSError:
        os.close(descriptor)
        path.unlink(missing_ok=True)
        raise
    return descriptor


def publish_segment(shape: TopicShape, base: int) -> None:
    """Gives a prepared segment its name, durably; does nothing when it has it. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        shape.prepared_path(base).rename(shape.segment_path(base))
    files.sync_directory(shape.directory)


class SegmentMap:
    """A segment mapped for reading. Grows by mapping again; views handed out before stay valid."""

    def __init__(self, shape: TopicShape, base: int) -> None:
        self.header = read_header(shape, base)
        self.path = shape.segment_path(base)
        self.base = base
        self.data_start = base + shape.header_bytes
        self._view = memoryview(b"")

    def view(self, end: int) -> memoryview:
        """The file's bytes up to log position `end` at least. Raises LogCorrupt when the file is shorter."""
        if len(self._view) < end - self.base:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < end - self.base:
                    raise LogCorrupt(
                        f"{self.path} is {size} bytes long, {end - self.base} are known to be written"
                    )
                self._view = memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))
        return self._view

    def corrupt(self, position: int, what: str) -> LogCorrupt:
        """The error for damage at a position."""
        return LogCorrupt(
            f"{what} at byte {position - self.base} of {self.path} (position {position}), below the durable position: "
            "the disk has damaged acknowledged data; stop the platform and restore the data directory from a backup"
        )


def scan(view: memoryview, base: int, start: int, end: int) -> Iterator[tuple[int, FrameHead]]:
    """(position, head) of each intact frame from `start` on; stops at `end` or at the first one that is not intact."""
    position = start
    while position < end:
        head = head_at(view[: end - base], position - base, position)
        if head is None or not is_intact(view, position - base, head):
            return
        yield position, head
        position += head.frame_bytes


class SegmentIndex:
    """The sparse index of one segment, as arrays: `positions` (k,) and `offsets` (k, partitions), both ascending."""

    def __init__(self, shape: TopicShape, entries: npt.NDArray[np.uint64]) -> None:
        self.positions = entries[:, 0]
        self.offsets = entries[:, 1 : 1 + shape.partitions]

    @classmethod
    def load(cls, shape: TopicShape, base: int) -> "SegmentIndex | None":
        """Reads an index, up to the first entry that fails its checksum; None when there is no file."""
        width = shape.partitions + 2
        try:
            raw = shape.index_path(base).read_bytes()
        except FileNotFoundError:
            return None
        entry_bytes = 8 * width
        count = len(raw) // entry_bytes
        for index in range(count):
            entry = raw[index * entry_bytes : (index + 1) * entry_bytes]
            if xxhash.xxh3_64_intdigest(entry[:-8]) != int.from_bytes(entry[-8:], "little"):
                count = index
                break
        return cls(shape, np.frombuffer(raw, "<u8", count * width).reshape(count, width))

    def floor(self, partition: int, offset: int, end: int) -> int | None:
        """The last known position before `end` at or before the frame of `offset`; None: before the first entry."""
        known = int(np.searchsorted(self.positions, end, side="left"))
        at = int(np.searchsorted(self.offsets[:known, partition], offset, side="right")) - 1
        return int(self.positions[at]) if at >= 0 else None


def index_entry(position: int, offsets: tuple[int, ...]) -> bytes:
    """One entry of an index file."""
    raw = struct.pack(f"<{1 + len(offsets)}Q", position, *offsets)
    return raw + xxhash.xxh3_64_intdigest(raw).to_bytes(8, "little")


def append_index_entry(shape: TopicShape, base: int, position: int, offsets: tuple[int, ...]) -> None:
    """Adds an entry, over what a killed process may have left half written."""
    entry = index_entry(position, offsets)
    descriptor = os.open(shape.index_path(base), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        size = os.fstat(descriptor).st_size
        os.pwrite(descriptor, entry, size - size % len(entry))
    finally:
        os.close(descriptor)


def rebuild_index(shape: TopicShape, segment: SegmentMap, end: int, interval_bytes: int) -> SegmentIndex:
    """Makes the index of a segment again by reading its frames up to `end`."""
    offsets = list(segment.header.offsets)
    entries = []
    due = segment.data_start + interval_bytes
    view = segment.view(end)
    position = segment.data_start
    while position < end:
        if position >= due:
            entries.append(index_entry(position, tuple(offsets)))
            due = position + interval_bytes
        head = head_at(view, position - segment.base, position)
        if head is None:
            raise segment.corrupt(position, "no frame")
        offsets[head.partition] = head.offset + 1
        position += head.frame_bytes
    raw = b"".join(entries)
    files.write_whole(shape.index_path(segment.base), raw)
    width = shape.partitions + 2
    return SegmentIndex(shape, np.frombuffer(raw, "<u8").reshape(len(entries), width))
