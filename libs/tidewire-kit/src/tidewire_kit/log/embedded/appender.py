"""Appends to one topic, safe against other processes, kill -9, full disks and failing ones. Blocking; no threads here.

`append` takes the topic's lock, assigns offsets, writes all frames with one vectored write and notes the new end as
`written`. `sync` runs fdatasync without the lock, then notes the end as `durable`: only then may anything be
acknowledged or read. Both are called by the topic's committer, `sync` after each `append`; recovery is in `recovery`.

What makes `durable` true: every byte was written through, or rewritten by, a file descriptor that the process which
syncs it had open at the time. The kernel reports a failed write-back once to each descriptor open at that moment; so a
process that opens a segment with unsynced bytes of others writes these bytes again (`_adopt`), and whoever learns of a
failure cuts everything behind `durable` off and raises the generation, whereupon all that was cut is refused.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tidewire_kit.errors import Unavailable
from tidewire_kit.log.embedded import files, quick, recovery
from tidewire_kit.log.embedded.frames import PreparedFrame
from tidewire_kit.log.embedded.segments import (
    SegmentHeader,
    SegmentMap,
    TopicShape,
    append_index_entry,
    prepare_segment,
    publish_segment,
    read_header,
    scan,
)
from tidewire_kit.log.embedded.settings import EmbeddedLogSettings
from tidewire_kit.log.embedded.tail import TailFile, TailState
from tidewire_kit.log.errors import LogFull
from tidewire_kit.log.port import Buffer

_SMALL_BYTES = 16 << 10
_ZEROS = memoryview(bytes(128 << 10))


class Appended(NamedTuple):
    """What `append` did and `sync` shall make durable."""

    end: TailState
    offsets: list[int]
    """One per frame, in the order given."""


class TopicAppender:
    """The writing end of one topic in one process."""

    def __init__(self, shape: TopicShape, settings: EmbeddedLogSettings) -> None:
        self.shape = shape
        self._settings = settings
        shape.directory.mkdir(parents=True, exist_ok=True)
        files.sync_directory(shape.directory.parent)
        self._append_lock = files.FileLock(shape.directory / "append.lock")
        self._sync_lock = files.FileLock(shape.directory / "sync.lock")
        self._mutex = threading.Lock()  # the committer appends, retention rolls
        self._descriptor = -1
        self._base = -1
        self._reserved = 0
        """Size of the open segment's file, as far as known."""
        self._written = 0
        """Up to here in the open segment blocks were written, by frames or by zeros."""
        self._sync: Callable[[int], None] = files.sync_data
        with self._append_lock, self._sync_lock:
            self.tail: TailFile = recovery.open_tail(shape, settings)

    @property
    def sync_function(self) -> Callable[[int], None]:
        """What makes a descriptor's data durable. Tests put a failing disk here."""
        return self._sync

    @sync_function.setter
    def sync_function(self, function: Callable[[int], None]) -> None:
        self._sync = function

    def append(self, frames: Sequence[PreparedFrame]) -> Appended:
        """Writes the frames behind each other; not durable yet.

        Raises LogFull (no space) or Unavailable (another write error); then none of them is in the log.
        """
        with self._mutex:
            with self._append_lock, self._refusing():
                state = self._settle()
                needed = sum(frame.frame_bytes for frame in frames)
                held = state.position - state.segment_base
                rolled = held > self.shape.header_bytes and held + needed > self._settings.segment_bytes
                if rolled:
                    state = self._roll(state)
                appended = self._write(state, frames, needed)
            if rolled:
                self._forget_cold_segment()
            return appended

    def sync(self, appended: Appended) -> bool:
        """Makes what was appended durable, and everything before it. True: readers have something new to see.

        Raises Unavailable when it failed; then the records may be gone.
        """
        with self._mutex:
            try:
                self._sync(self._descriptor)
            except OSError as error:
                self._cut(appended.end.generation)
                raise self._failed(error) from error
            return self._note_durable(appended)

    def _note_durable(self, appended: Appended) -> bool:
        with self._sync_lock:
            durable = self._durable()
            if durable.generation != appended.end.generation:
                raise Unavailable("message log", "the disk failed while the records were being written")
            if durable.position >= appended.end.position:
                return False
            self.tail.durable.store(appended.end)
            return True

    def roll(self) -> bool:
        """Closes the active segment if it holds anything, so that retention can take it. Raises as `append`."""
        with self._mutex, self._append_lock, self._refusing():
            state = self._settle()
            if state.position - state.segment_base <= self.shape.header_bytes:
                return False
            self._roll(state)
            return True

    def close(self) -> None:
        """Closes all files. What was appended but not synced may be lost with the machine, not with the process."""
        self._drop_descriptor()
        self._append_lock.close()
        self._sync_lock.close()
        self.tail.close()

    # With the append lock held

    def _settle(self) -> TailState:
        """The end to write at: opens the right segment and removes what a killed writer has left behind it."""
        state = self.tail.written.load()
        if state is None:
            raise self.shape_lost()
        if state.segment_base != self._base:
            self._drop_descriptor()
            path = self.shape.segment_path(state.segment_base)
            if not path.exists():  # whoever began it was killed
                publish_segment(self.shape, state.segment_base)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            self._base = state.segment_base
            self._forget_size()
            state = self._adopt(state)
        at = state.position - state.segment_base
        if quick.read(self._descriptor, 8, at).strip(b"\0"):
            os.ftruncate(self._descriptor, at)
            self._forget_size()
        return state

    def _adopt(self, state: TailState) -> TailState:
        """Writes again what is written but not durable, so that our fdatasync answers for it; see the module."""
        with self._sync_lock:
            durable = self._durable()
            if durable.segment_base != state.segment_base:
                # Whoever began this segment was killed before it could say that the one before is durable.
                begin = state.segment_base + self.shape.header_bytes
                offsets = read_header(self.shape, state.segment_base).offsets
                durable = state._replace(position=begin, indexed=state.segment_base, offsets=offsets)
                self.tail.durable.store(durable)
            if durable.position >= state.position:
                return state
            start, end = durable.position, state.position
            raw = os.pread(self._descriptor, end - start, start - state.segment_base)
            segment = SegmentMap(self.shape, state.segment_base)
            whole = (
                sum(h.frame_bytes for _, h in scan(segment.view(end), segment.base, start, end))
                == end - start
            )
            if whole and len(raw) == end - start:
                files.write_pieces(self._descriptor, [raw], start - state.segment_base)
                return state
            return self._cut_locked(durable)

    def _write(self, state: TailState, frames: Sequence[PreparedFrame], needed: int) -> Appended:
        base = state.segment_base
        self._reserve(state.position - base + needed)
        stamp = max(self._settings.clock_us(), state.appended_at_us)
        next_offsets = list(state.offsets)
        position = state.position
        offsets: list[int] = []
        pieces: list[Buffer] = []
        for frame in frames:
            offset = next_offsets[frame.partition]
            pieces += frame.sealed(position, offset, stamp)
            next_offsets[frame.partition] = offset + 1
            position += frame.frame_bytes
            offsets.append(offset)
        if needed <= _SMALL_BYTES:
            pieces += self._zeros(position - base)
        try:
            files.write_pieces(self._descriptor, pieces, state.position - base)
        except OSError:
            self._forget_size()
            os.ftruncate(self._descriptor, state.position - base)
            raise
        indexed = state.indexed
        if state.position - indexed >= self._settings.index_interval_bytes:
            # The end before this append: it is noted in the tail, so no kill can make this entry untrue.
            append_index_entry(self.shape, base, state.position, state.offsets)
            indexed = state.position
        end = TailState(position, base, stamp, state.generation, indexed, tuple(next_offsets))
        self.tail.written.store(end)
        return Appended(end, offsets)

    def _zeros(self, end: int) -> list[Buffer]:
        """Zeros to write behind frames that end at byte `end` of the segment, or nothing.

        The first write to a reserved block has the file system note that it was written, which fdatasync then waits
        for. Blocks that hold zeros already are synced with half the CPU and several times sooner. Small commits gain by
        that; for large ones writing everything twice costs more.
        """
        if end <= self._written:
            return []
        count = max(0, min(len(_ZEROS), self._reserved - end))
        self._written = end + count
        return [_ZEROS[:count]] if count else []

    def _forget_size(self) -> None:
        """The file may have become shorter, or is another one."""
        self._reserved = self._written = 0

    def _reserve(self, size: int) -> None:
        if size <= self._reserved:
            return
        step = self._settings.preallocate_bytes
        target = -(-size // step) * step if step else size
        files.extend(self._descriptor, target)
        self._reserved = target

    def _roll(self, state: TailState) -> TailState:
        """Ends the segment and starts the next. The old one is durable before the new one exists."""
        try:
            self._sync(self._descriptor)
        except OSError as error:
            with self._sync_lock:
                self._cut_locked(self._durable())
            raise self._failed(error) from error
        with self._sync_lock:
            if self._durable().position < state.position:
                self.tail.durable.store(state)
        os.ftruncate(self._descriptor, state.position - state.segment_base)
        self._forget_size()
        stamp = max(self._settings.clock_us(), state.appended_at_us)
        base = state.position
        descriptor = prepare_segment(self.shape, SegmentHeader(base, stamp, state.offsets))
        begin = base + self.shape.header_bytes
        fresh = TailState(begin, base, stamp, state.generation, base, state.offsets)
        self._drop_descriptor()
        self._descriptor, self._base = descriptor, base
        self.tail.written.store(fresh)
        try:
            publish_segment(self.shape, base)
        except OSError:
            self._drop_descriptor()  # the next append tries again
            raise
        with self._sync_lock:
            self.tail.durable.store(fresh)
        return fresh

    def _forget_cold_segment(self) -> None:
        cold = self.shape.bases()[: -1 - self._settings.cached_segments]
        if cold:
            files.drop_from_cache(self.shape.segment_path(cold[-1]))

    # After a failed fdatasync

    def _cut(self, generation: int) -> None:
        with self._append_lock, self._sync_lock:
            durable = self._durable()
            if durable.generation == generation:
                self._cut_locked(durable)

    def _cut_locked(self, durable: TailState) -> TailState:
        """Removes everything behind `durable` from file and tail; both locks are held.

        The page cache may show bytes that never reached the disk: nothing behind `durable` is kept.
        """
        for base in self.shape.bases():
            if (
                base > durable.segment_base
            ):  # begun, and empty: its beginner was killed before noting it as durable
                self.shape.segment_path(base).unlink(missing_ok=True)
        self.shape.index_path(durable.segment_base).unlink(missing_ok=True)
        descriptor = os.open(self.shape.segment_path(durable.segment_base), os.O_RDWR | os.O_CLOEXEC)
        try:
            os.ftruncate(descriptor, durable.position - durable.segment_base)
        finally:
            os.close(descriptor)
        self._forget_size()
        cut = durable._replace(generation=durable.generation + 1, indexed=durable.segment_base)
        self.tail.durable.store(cut)
        self.tail.written.store(cut)
        return cut

    # Helpers

    def _durable(self) -> TailState:
        state = self.tail.durable.load()
        if state is None:
            raise self.shape_lost()
        return state

    def _drop_descriptor(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._base = -1, -1

    def shape_lost(self) -> Unavailable:
        """The error for a tail without a state, which only tampering with the data directory can bring about."""
        why = f"the tail file of topic {self.shape.name} holds no state; restart the platform"
        return Unavailable("message log", why)

    def _failed(self, error: OSError) -> LogFull | Unavailable:
        if error.errno in files.NO_SPACE_ERRORS:
            why = f"no space for topic {self.shape.name}: {os.strerror(error.errno or 0)}"
            return LogFull(why, retry_delay_seconds=self._settings.retry_delay_seconds)
        return Unavailable("message log", f"cannot write topic {self.shape.name}: {error}")

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._failed(error) from error
