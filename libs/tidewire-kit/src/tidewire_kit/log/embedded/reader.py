"""Reads the records of chosen partitions of one topic, up to its durable end. Blocking, but only on page faults.

A cursor walks the topic's frames in log order, skips the heads of partitions that are not wanted, and verifies the
checksum of each frame that it returns. Values are views of the mapped file. Used by consumers and by `MessageLog.read`.
"""

import logging
from collections.abc import Mapping

from tidewire_kit.errors import FailedPrecondition
from tidewire_kit.log.embedded.frames import head_at, is_intact, record_at
from tidewire_kit.log.embedded.recovery import begin_of
from tidewire_kit.log.embedded.segments import SegmentIndex, SegmentMap, TopicShape, rebuild_index
from tidewire_kit.log.embedded.settings import EmbeddedLogSettings
from tidewire_kit.log.embedded.tail import TailFile, TailState
from tidewire_kit.log.errors import LogCorrupt
from tidewire_kit.log.port import LogRecord

_log = logging.getLogger(__name__)


class TopicCursor:
    """A place in a topic and, per wanted partition, the offset that comes next."""

    def __init__(self, shape: TopicShape, tail: TailFile, settings: EmbeddedLogSettings) -> None:
        self.shape = shape
        self._tail = tail
        self._settings = settings
        self._next: dict[int, int] = {}
        self._position: int | None = None
        self._segment: SegmentMap | None = None
        self._following_base: int | None = None

    @property
    def wanted(self) -> Mapping[int, int]:
        """Partition → offset of the next record."""
        return self._next

    def durable(self) -> TailState:
        """The durable end."""
        state = self._tail.durable.load()
        if state is None:
            raise LogCorrupt(f"the tail file of topic {self.shape.name} holds no state; restart the platform")
        return state

    def want(self, partition: int, offset: int) -> None:
        """Reads a partition from `offset` on (also to move to another place in it)."""
        if self._next.get(partition) != offset:
            self._next[partition] = offset
            self._position = None  # to be found again, as the minimum over all partitions

    def unwant(self, partition: int) -> None:
        """Reads a partition no more."""
        self._next.pop(partition, None)

    def backlog_bytes(self) -> int:
        """About how much there is to walk through; 0: nothing new."""
        if not self._next:
            return 0
        durable = self.durable()
        if self._position is not None:
            return max(0, durable.position - self._position)
        return (
            durable.position if any(durable.offsets[p] != offset for p, offset in self._next.items()) else 0
        )

    def read(self, max_bytes: int) -> list[LogRecord]:
        """The next records in log order, at most `max_bytes` of values (but at least one). Empty: nothing new.

        Raises LogCorrupt, FailedPrecondition (an offset after the end), OSError.
        """
        found: list[LogRecord] = []
        if not self._next:
            return found
        durable = self.durable()
        taken = 0
        while taken < max_bytes:
            try:
                if self._position is None:
                    self._position = self._locate(durable)
                if self._position >= durable.position:
                    break
                segment = self._enter(durable)
            except FileNotFoundError:
                self._skip_to_begin()
                continue
            taken = self._walk(segment, durable, found, taken, max_bytes)
        return found

    def _walk(
        self, segment: SegmentMap, durable: TailState, found: list[LogRecord], taken: int, most: int
    ) -> int:
        """Walks to the end of one segment, or until enough was taken."""
        end = durable.position if self._following_base is None else self._following_base
        view = segment.view(end)
        base, position, wanted = segment.base, self._position or 0, self._next
        topic = self.shape.name
        while position < end and taken < most:
            head = head_at(view, position - base, position)
            if head is None:
                raise segment.corrupt(position, "no intact head of a frame")
            next_offset = wanted.get(head.partition)
            if next_offset is not None and head.offset >= next_offset:
                if not is_intact(view, position - base, head):
                    raise segment.corrupt(position, "a frame fails its checksum")
                if head.offset != next_offset:
                    raise segment.corrupt(position, f"offset {head.offset} where {next_offset} is due")
                found.append(record_at(topic, view, position - base, head))
                wanted[head.partition] = next_offset + 1
                taken += head.value_bytes
            position += head.frame_bytes
            self._position = position
        if position > end:
            raise segment.corrupt(position, "a frame reaches over the end")
        return taken

    def _enter(self, durable: TailState) -> SegmentMap:
        """The segment of the current position; steps over a header. Notes where the next segment begins."""
        assert self._position is not None
        segment = self._segment
        if segment is None or (self._following_base is not None and self._position >= self._following_base):
            bases = self.shape.bases()
            base = max((b for b in bases if b <= self._position), default=None)
            if base is None:
                raise FileNotFoundError
            segment = self._segment = SegmentMap(self.shape, base)
            self._following_base = None
        if self._following_base is None and durable.segment_base != segment.base:
            following = [b for b in self.shape.bases() if segment.base < b <= durable.segment_base]
            if not following:
                raise FileNotFoundError
            self._following_base = min(following)
            if self._position >= self._following_base:
                return self._enter(durable)
        self._position = max(self._position, segment.data_start)
        return segment

    def _skip_to_begin(self) -> None:
        """Retention has overtaken us: go on at the oldest segment."""
        self._segment, self._following_base = None, None
        begin = begin_of(self.shape)
        for partition, offset in self._next.items():
            if offset < begin.offsets[partition]:
                missed = begin.offsets[partition] - offset
                _log.warning("%d records of %s/%d were removed unread", missed, self.shape.name, partition)
                self._next[partition] = begin.offsets[partition]
        self._position = max(self._position or 0, begin.base)

    def _locate(self, durable: TailState) -> int:
        """The position to start from: at or before the next record of every wanted partition."""
        self._segment, self._following_base = None, None
        begin = begin_of(self.shape)
        target: int = durable.position
        bases = [base for base in self.shape.bases() if begin.base <= base <= durable.segment_base]
        segments: dict[int, SegmentMap] = {}
        for partition, offset in list(self._next.items()):
            end = durable.offsets[partition]
            if offset > end:
                raise FailedPrecondition(
                    f"offset {offset} of {self.shape.name}/{partition} lies after the end {end}; "
                    "the log was restored from an older copy: restore the stores of that time, or seek",
                    reason="OFFSET_AFTER_END",
                    subject=f"{self.shape.name}/{partition}",
                )
            if offset < begin.offsets[partition]:
                offset = self._next[partition] = begin.offsets[partition]
            if offset == end:
                continue
            target = min(target, self._find(bases, segments, partition, offset, durable))
        return target

    def _find(
        self,
        bases: list[int],
        segments: dict[int, SegmentMap],
        partition: int,
        offset: int,
        durable: TailState,
    ) -> int:
        """A position at or before the frame of `offset`, which exists, close to it by the index."""
        low, high = 0, len(bases) - 1  # the last segment that does not begin after the offset
        while low < high:
            middle = (low + high + 1) // 2
            if bases[middle] not in segments:
                segments[bases[middle]] = SegmentMap(self.shape, bases[middle])
            if segments[bases[middle]].header.offsets[partition] <= offset:
                low = middle
            else:
                high = middle - 1
        base = bases[low]
        segment = segments.get(base) or SegmentMap(self.shape, base)
        sealed = low + 1 < len(bases)
        end = bases[low + 1] if sealed else durable.position
        index = SegmentIndex.load(self.shape, base)
        interval = self._settings.index_interval_bytes
        if sealed and end - segment.data_start > 4 * interval and (index is None or not len(index.positions)):
            index = rebuild_index(self.shape, segment, end, interval)
        position = index.floor(partition, offset, end) if index else None
        if position is not None:
            # An index is a hint: it counts only if there is a whole frame where it points to.
            view = segment.view(end)
            head = head_at(view, position - base, position)
            if head is None or not is_intact(view, position - base, head):
                position = None
        return segment.data_start if position is None else position
