"""The tail file: where a topic ends, shared by all processes through mapped memory. Written by appenders, read by all.

It holds two states of the same shape: `written` (everything handed to the kernel; guarded by the topic's append lock)
and `durable` (everything that an fdatasync has covered; guarded by its sync lock). Readers look at `durable` without a
lock and never beyond it. Each state has two slots that are written in turn and carry a checksum, so a process killed
in the middle of a store leaves the state before it, and a reader never sees half a state.

The file is never synced: it is trusted within one run of the kernel only (`boot_id`), and rebuilt from the segments
otherwise. A durable state that did reach the disk is still a lower bound of what was acknowledged.
"""

import mmap
import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

import xxhash

from tidewire_kit.errors import FailedPrecondition
from tidewire_kit.log.embedded import files
from tidewire_kit.log.errors import LogCorrupt

FORMAT_VERSION: Final = 1
_MAGIC = b"TWTAIL\r\n"
_FILE_HEAD = struct.Struct("<8sII16s40s")  # magic, version, partitions, incarnation, boot id
_SLOT_FIELDS = 6


class TailState(NamedTuple):
    """An end of the log."""

    position: int
    """Byte position in the topic, counted over all segments: where the next frame goes."""
    segment_base: int
    """Position of the first byte of the segment that `position` lies in."""
    appended_at_us: int
    """Log time of the last record."""
    generation: int
    """Rises when written records are cut off again, so that whoever wrote them notices."""
    indexed: int
    """Position of the last entry of the active segment's index."""
    offsets: tuple[int, ...]
    """Per partition, the offset of the next record."""


class _SlotPair:
    def __init__(self, memory: mmap.mmap, at: int, partitions: int) -> None:
        self._memory = memory
        self._slot = struct.Struct(f"<{_SLOT_FIELDS + partitions}Q")
        self._slot_bytes = self._slot.size + 8
        self._at = (at, at + self._slot_bytes)

    def load(self) -> TailState | None:
        """The newest whole state, or None when there is none."""
        best: tuple[int, ...] | None = None
        for at in self._at:
            raw = self._memory[at : at + self._slot_bytes]
            if xxhash.xxh3_64_intdigest(raw[:-8]) != int.from_bytes(raw[-8:], "little"):
                continue
            fields = self._slot.unpack_from(raw)
            if fields[0] and (best is None or fields[0] > best[0]):
                best = fields
        if best is None:
            return None
        return TailState(best[1], best[2], best[3], best[4], best[5], best[_SLOT_FIELDS:])

    def store(self, state: TailState) -> None:
        """Replaces the state; the caller holds the lock that guards it."""
        newest, turn = 0, 0
        for index, at in enumerate(self._at):
            raw = self._memory[at : at + self._slot_bytes]
            sequence = int.from_bytes(raw[:8], "little")
            whole = xxhash.xxh3_64_intdigest(raw[:-8]) == int.from_bytes(raw[-8:], "little")
            if whole and sequence > newest:
                newest, turn = sequence, 1 - index
        packed = self._slot.pack(newest + 1, *state[:-1], *state.offsets)
        at = self._at[turn]
        self._memory[at : at + self._slot_bytes] = packed + xxhash.xxh3_64_intdigest(packed).to_bytes(
            8, "little"
        )


def _file_bytes(partitions: int) -> int:
    return _FILE_HEAD.size + 4 * ((_SLOT_FIELDS + partitions) * 8 + 8)


class UnreadableTail(LogCorrupt):
    """The machine went down before the tail file had reached the disk. It is made again from the segments."""


class TailFile:
    """The mapped tail of one topic. Cheap to read: `durable.load()` is a copy of some hundred bytes and a hash."""

    def __init__(self, path: Path, memory: mmap.mmap, partitions: int) -> None:
        self.path = path
        self._memory = memory
        slot_pair_bytes = 2 * ((_SLOT_FIELDS + partitions) * 8 + 8)
        self.written = _SlotPair(memory, _FILE_HEAD.size, partitions)
        self.durable = _SlotPair(memory, _FILE_HEAD.size + slot_pair_bytes, partitions)

    @classmethod
    def create(cls, path: Path, partitions: int, incarnation: bytes) -> None:
        """Makes an empty tail file (no state, no boot id) in one step; the caller holds the append lock."""
        head = _FILE_HEAD.pack(_MAGIC, FORMAT_VERSION, partitions, incarnation, b"")
        files.write_whole(path, head.ljust(_file_bytes(partitions), b"\0"))

    @classmethod
    def open(cls, path: Path, partitions: int, incarnation: bytes) -> "TailFile":
        """Maps an existing tail file. Raises FileNotFoundError, UnreadableTail, LogCorrupt, FailedPrecondition."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            if size < _FILE_HEAD.size:
                raise UnreadableTail(f"tail file {path} is {size} bytes long")
            memory = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        magic, version, stored_partitions, stored_incarnation, _boot = _FILE_HEAD.unpack_from(memory)
        if magic != _MAGIC:
            raise UnreadableTail(f"{path} is not a tail file of the log")
        if version > FORMAT_VERSION:
            raise newer_format(path, version, FORMAT_VERSION)
        if stored_partitions != partitions or stored_incarnation != incarnation:
            raise LogCorrupt(
                f"{path} belongs to another incarnation of the topic than log/meta.db: one of them was replaced; "
                "restore both from one backup"
            )
        if size < _file_bytes(partitions):
            raise UnreadableTail(f"tail file {path} is {size} bytes long")
        return cls(path, memory, partitions)

    @property
    def boot_id(self) -> str:
        """Run of the kernel in which the states were written; empty when they are not to be trusted."""
        raw: bytes = _FILE_HEAD.unpack_from(self._memory)[4]
        return raw.rstrip(b"\0").decode("ascii", "replace")

    @boot_id.setter
    def boot_id(self, boot_id: str) -> None:
        raw = boot_id.encode("ascii")[:40]
        self._memory[_FILE_HEAD.size - 40 : _FILE_HEAD.size] = raw.ljust(40, b"\0")

    def close(self) -> None:
        """Unmaps the file."""
        self._memory.close()


def newer_format(path: Path, found: int, known: int) -> FailedPrecondition:
    """The refusal of a file that a newer version has written."""
    return FailedPrecondition(
        f"{path} has log format {found}, newer than the format {known} that this version knows; "
        "start a version of Tidewire at least as new as the one that wrote it",
        reason="FORMAT_NEWER",
        subject=str(path),
    )
