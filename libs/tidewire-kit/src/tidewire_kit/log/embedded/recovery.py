"""Finds the end of a topic again: at its creation, and by reading the last segment after the machine went down.

Called by the appender with the append lock and the sync lock held. Segments before the last one were durable before
the next was created, so only the last one is read: it ends at its first frame that is not intact. What lies behind was
never acknowledged, unless the tail file remembers otherwise; then the disk lost data, and that is said, not hidden.
"""

import os

from tidewire_kit.log.embedded.segments import (
    SegmentHeader,
    SegmentMap,
    TopicShape,
    prepare_segment,
    publish_segment,
    read_header,
    scan,
)
from tidewire_kit.log.embedded.settings import EmbeddedLogSettings
from tidewire_kit.log.embedded.tail import TailFile, TailState, UnreadableTail
from tidewire_kit.log.errors import LogCorrupt


def open_tail(shape: TopicShape, settings: EmbeddedLogSettings) -> TailFile:
    """Opens the tail of a topic, after making or restoring it where needed.

    Raises LogCorrupt, FailedPrecondition (newer format), OSError.
    """
    path = shape.directory / "tail"
    boot_id = settings.boot_id()
    try:
        tail = TailFile.open(path, shape.partitions, shape.incarnation)
    except (FileNotFoundError, UnreadableTail):
        TailFile.create(path, shape.partitions, shape.incarnation)
        tail = TailFile.open(path, shape.partitions, shape.incarnation)
    written, durable = tail.written.load(), tail.durable.load()
    trusted = tail.boot_id == boot_id and written is not None and durable is not None
    if trusted and written is not None:
        if not shape.segment_path(written.segment_base).exists():
            publish_segment(shape, written.segment_base)
        return tail
    try:
        state = _find_end(shape, settings, durable)
    except BaseException:
        tail.close()
        raise
    tail.boot_id = ""
    tail.written.store(state)
    tail.durable.store(state)
    tail.boot_id = boot_id
    return tail


def _find_end(shape: TopicShape, settings: EmbeddedLogSettings, durable: TailState | None) -> TailState:
    """The end according to the segments; cuts the last one there, durably."""
    least = durable.position if durable else 0
    generation = durable.generation + 1 if durable else 1
    bases = shape.bases()
    if not bases:
        if least:
            raise LogCorrupt(
                f"the segments of topic {shape.name} are gone from {shape.directory}; restore a backup"
            )
        offsets = (0,) * shape.partitions
        os.close(prepare_segment(shape, SegmentHeader(0, settings.clock_us(), offsets)))
        publish_segment(shape, 0)
        return TailState(shape.header_bytes, 0, settings.clock_us(), generation, 0, offsets)

    segment = SegmentMap(shape, bases[-1])  # its header was durable before it got its name
    size = segment.path.stat().st_size
    ends = list(segment.header.offsets)
    stamp = segment.header.created_at_us
    position = segment.data_start
    for at, head in scan(
        segment.view(segment.base + size), segment.base, segment.data_start, segment.base + size
    ):
        if head.partition >= shape.partitions or head.offset != ends[head.partition]:
            break
        ends[head.partition] += 1
        stamp = head.appended_at_us
        position = at + head.frame_bytes
    if position < least:
        raise segment.corrupt(position, "no intact frame")
    # A seek reads the whole segment until the index has grown again; stale entries would be worse.
    shape.index_path(segment.base).unlink(missing_ok=True)
    _cut(segment, position)
    return TailState(position, segment.base, stamp, generation, segment.base, tuple(ends))


def _cut(segment: SegmentMap, position: int) -> None:
    descriptor = os.open(segment.path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.ftruncate(descriptor, position - segment.base)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def begin_of(shape: TopicShape) -> SegmentHeader:
    """The header of the oldest segment: where each partition begins. Retries while retention removes files."""
    for _ in range(100):
        bases = shape.bases()
        try:
            return read_header(shape, bases[0])
        except (FileNotFoundError, IndexError):
            continue
    raise LogCorrupt(f"topic {shape.name} has no readable segment in {shape.directory}")
