"""The files of a topic against a simple model: a list of records, of which a prefix is durable.

Two writers append, sync, are killed at each point, meet a failing disk; segments roll and are removed; the machine
goes down and loses what was not synced, and the tail and index files with it. After each step a reader must see
exactly the durable prefix, and after a crash that prefix followed by a prefix of the rest.
"""

import errno
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tidewire_kit.errors import TidewireError
from tidewire_kit.log import LogCorrupt, Outgoing
from tidewire_kit.log.embedded import appender
from tidewire_kit.log.embedded.appender import Appended, TopicAppender
from tidewire_kit.log.embedded.frames import PreparedFrame
from tidewire_kit.log.embedded.reader import TopicCursor
from tidewire_kit.log.embedded.segments import TopicShape, read_header
from tidewire_kit.log.embedded.settings import EmbeddedLogSettings

PARTITIONS = 3
WRITERS = st.integers(0, 1)
BATCHES = st.lists(st.tuples(st.integers(0, PARTITIONS - 1), st.integers(0, 3000)), min_size=1, max_size=5)

Written = tuple[int, int, bytes]
"""(partition, offset, value)."""


class Killed(BaseException):
    """Ends a process of the model at once."""


def failing_sync(_descriptor: int) -> None:
    raise OSError(errno.EIO, "the disk is on fire")


class LogAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="tidewire-log-"))
        self.boot = 0
        self.clock = 1_000_000
        self.shape = TopicShape("model.v1", self.directory / "model.v1", PARTITIONS, b"incarnation-0001")
        self.settings = EmbeddedLogSettings(
            segment_bytes=8_000,
            preallocate_bytes=2_000,
            index_interval_bytes=700,
            cached_segments=1,
            clock_us=self.tick,
            boot_id=lambda: f"boot-{self.boot}",
        )
        self.records: list[Written] = []
        self.durable = 0
        self.begin = [0] * PARTITIONS
        self.counter = 0
        self.writers: list[TopicAppender | None] = [None, None]
        self.in_flight: list[tuple[Appended, int] | None] = [None, None]
        self.generation = 0

    def tick(self) -> int:
        self.clock += 1
        return self.clock

    def teardown(self) -> None:
        for writer in self.writers:
            if writer is not None:
                writer.close()
        shutil.rmtree(self.directory)

    def writer(self, index: int) -> TopicAppender:
        found = self.writers[index]
        if found is None:
            found = self.writers[index] = TopicAppender(self.shape, self.settings)
        return found

    @initialize()
    def open_first(self) -> None:
        self.generation = self.writer(0).tail.durable.load().generation

    # What writers do

    @rule(index=WRITERS, batch=BATCHES)
    def append(self, index: int, batch: list[tuple[int, int]]) -> None:
        if self.in_flight[index] is not None:
            self.sync(index)
        frames, new = [], []
        ends = self.ends(len(self.records))
        for partition, size in batch:
            self.counter += 1
            value = b"%d," % self.counter + bytes([self.counter % 256]) * size
            frames.append(
                PreparedFrame(Outgoing(partition, b"key", [value, b"!"], {"n": b"%d" % self.counter}))
            )
            new.append((partition, ends[partition], value + b"!"))
            ends[partition] += 1
        base = self.writer(index).tail.durable.load().segment_base
        appended = self.writer(index).append(frames)
        assert appended.offsets == [offset for _, offset, _ in new]
        if appended.end.segment_base != base:
            self.durable = len(self.records)  # a roll makes everything before it durable
        self.records += new
        self.in_flight[index] = (appended, len(self.records))

    @precondition(lambda self: any(self.in_flight))
    @rule(index=WRITERS)
    def sync(self, index: int) -> None:
        flight = self.in_flight[index]
        if flight is None:
            return
        appended, count = flight
        self.in_flight[index] = None
        if appended.end.generation != self.generation:
            try:
                self.writer(index).sync(appended)
            except TidewireError:
                return
            raise AssertionError("what was cut off was acknowledged")
        self.writer(index).sync(appended)
        self.durable = max(self.durable, count)

    @precondition(lambda self: any(self.in_flight))
    @rule(index=WRITERS)
    def fail_to_sync(self, index: int) -> None:
        flight = self.in_flight[index]
        if flight is None:
            return
        self.in_flight[index] = None
        writer = self.writer(index)
        works = writer.sync_function
        writer.sync_function = failing_sync
        try:
            writer.sync(flight[0])
        except TidewireError:
            pass
        else:
            raise AssertionError("a failed fdatasync was not noticed")
        finally:
            writer.sync_function = works
        if flight[0].end.generation == self.generation:
            self.records = self.records[: self.durable]
            self.generation += 1

    @rule(index=WRITERS, torn=st.binary(max_size=200))
    def kill(self, index: int, torn: bytes) -> None:
        """The process dies, perhaps in the middle of writing."""
        writer = self.writers[index]
        if writer is None:
            return
        state = writer.tail.written.load()
        path = self.shape.segment_path(state.segment_base)
        if torn and path.exists():
            descriptor = os.open(path, os.O_RDWR)
            os.pwrite(descriptor, b"\x1aTWF" + torn, state.position - state.segment_base)
            os.close(descriptor)
        self.in_flight[index] = None
        writer.close()
        self.writers[index] = None

    @rule(index=WRITERS, step=st.sampled_from(["prepare_segment", "publish_segment"]), before=st.booleans())
    def kill_while_rolling(self, index: int, step: str, before: bool) -> None:
        """The process dies before or after one of the steps that begin a new segment."""
        if self.in_flight[index] is not None:
            self.sync(index)
        real = getattr(appender, step)

        def dies(*arguments: object) -> None:
            if not before:
                result = real(*arguments)
                if step == "prepare_segment":
                    os.close(result)
            raise Killed

        writer = self.writer(index)
        setattr(appender, step, dies)
        try:
            rolled = writer.roll()
        except Killed:
            rolled = True
        finally:
            setattr(appender, step, real)
        if rolled:
            self.durable = len(self.records)
        self.kill(index, b"")

    # What happens to files

    @rule(index=WRITERS)
    def remove_oldest_segment(self, index: int) -> None:
        bases = self.shape.bases()
        if len(bases) < 2 or bases[1] > self.writer(index).tail.durable.load().segment_base:
            return
        self.begin = list(read_header(self.shape, bases[1]).offsets)
        self.shape.segment_path(bases[0]).unlink()
        self.shape.index_path(bases[0]).unlink(missing_ok=True)

    @rule(keep=st.booleans())
    def damage_indexes(self, keep: bool) -> None:
        for path in self.shape.directory.glob("*.idx"):
            if keep:
                raw = bytearray(path.read_bytes())
                raw[len(raw) // 2 :] = bytes(len(raw) - len(raw) // 2)
                path.write_bytes(raw)
            else:
                path.unlink()

    @rule(kept=st.floats(0, 1), garbage=st.booleans(), tail=st.sampled_from(["kept", "lost", "zero", "half"]))
    def machine_goes_down(self, kept: float, garbage: bool, tail: str) -> None:
        if self.writers == [None, None]:
            self.writer(0)
        writer = self.writers[0] or self.writers[1]
        durable, written = writer.tail.durable.load(), writer.tail.written.load()
        for index in range(2):
            self.kill(index, b"")
        path = self.shape.segment_path(written.segment_base)
        if path.exists():  # else the machine went down while the segment was being begun
            raw = path.read_bytes()
            start = max(self.shape.header_bytes, durable.position - written.segment_base)
            cut = start + int((len(raw) - start) * kept)
            lost = bytes(b ^ 0x55 for b in raw[cut:]) if garbage else b""
            path.write_bytes(raw[:cut] + lost)
        for leftover in self.shape.directory.glob("*.idx"):
            leftover.write_bytes(b"")
        tail_path = self.shape.directory / "tail"
        if tail == "lost":
            tail_path.unlink()
        elif tail == "zero":
            tail_path.write_bytes(bytes(tail_path.stat().st_size))
        elif tail == "half":
            tail_path.write_bytes(tail_path.read_bytes()[: tail_path.stat().st_size // 2])
        self.boot += 1

        survived = [(r.partition, r.offset, bytes(r.value)) for r in self.read_all()]
        expected = self.visible(len(self.records))
        assert survived == expected[: len(survived)], "something else than a prefix survived"
        assert len(survived) >= len(self.visible(self.durable)), "durable records are gone"
        self.records = self.records[: len(self.records) - len(expected) + len(survived)]
        self.durable = len(self.records)
        self.generation = self.writer(0).tail.durable.load().generation

    # What readers see

    def ends(self, count: int) -> list[int]:
        ends = [0] * PARTITIONS
        for partition, offset, _ in self.records[:count]:
            ends[partition] = offset + 1
        return ends

    def visible(self, count: int) -> list[Written]:
        return [record for record in self.records[:count] if record[1] >= self.begin[record[0]]]

    def read_all(self) -> list:
        cursor = TopicCursor(self.shape, self.writer(0).tail, self.settings)
        for partition in range(PARTITIONS):
            cursor.want(partition, 0)
        found = cursor.read(1 << 30)
        assert cursor.read(1 << 30) == []
        return found

    @invariant()
    def readers_see_the_durable_prefix(self) -> None:
        found = self.read_all()
        assert [(r.partition, r.offset, bytes(r.value)) for r in found] == self.visible(self.durable)
        stamps = [r.appended_at_us for r in found]
        assert stamps == sorted(stamps)
        assert list(self.writer(0).tail.durable.load().offsets) == [
            max(end, begin) for end, begin in zip(self.ends(self.durable), self.begin, strict=True)
        ]

    @rule(partition=st.integers(0, PARTITIONS - 1), share=st.floats(0, 1), most=st.integers(1, 5000))
    def seek_and_read(self, partition: int, share: float, most: int) -> None:
        expected = [r for r in self.visible(self.durable) if r[0] == partition]
        start = self.begin[partition] + int(len(expected) * share)
        cursor = TopicCursor(self.shape, self.writer(1).tail, self.settings)
        cursor.want(partition, start)
        found = []
        while batch := cursor.read(most):
            found += batch
        assert [(r.partition, r.offset, bytes(r.value)) for r in found] == [
            r for r in expected if r[1] >= start
        ]

    @precondition(lambda self: len(self.records) and self.durable)
    @rule(share=st.floats(0, 1))
    def damage_is_reported(self, share: float) -> None:
        """A bit of a durable frame flips (and is put right again)."""
        bases = [
            base for base in self.shape.bases() if base <= self.writer(0).tail.durable.load().segment_base
        ]
        base = bases[int((len(bases) - 1) * share)]
        state = self.writer(0).tail.durable.load()
        following = [b for b in bases if b > base]
        begin, end = self.shape.header_bytes, (min(following) if following else state.position) - base
        if end <= begin:
            return
        at = begin + int((end - begin - 1) * share)
        path = self.shape.segment_path(base)
        original = path.read_bytes()[at]
        descriptor = os.open(path, os.O_RDWR)
        os.pwrite(descriptor, bytes([original ^ 0x40]), at)
        try:
            found = [(r.partition, r.offset, bytes(r.value)) for r in self.read_all()]
        except LogCorrupt as error:
            named = str(path) in error.message
        else:
            # Padding between frames carries nothing; anything else must have been noticed.
            named = found == self.visible(self.durable)
        finally:
            os.pwrite(descriptor, bytes([original]), at)
            os.close(descriptor)
        assert named


TestLogAgainstModel = LogAgainstModel.TestCase
TestLogAgainstModel.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
