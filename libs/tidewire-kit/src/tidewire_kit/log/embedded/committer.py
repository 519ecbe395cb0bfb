"""Group commit: takes what coroutines produce to one topic and makes it durable, in a thread of its own.

While one commit is being written and synced, further calls queue, and go together in the next one. Commits begin at
least `commit_interval_seconds` apart, so that under load each carries what a millisecond brings; after a pause the
first begins at once. A commit costs 0.1 to 0.25 ms of CPU whatever it carries, for fdatasync and the switches between
threads, so this is what makes small records affordable.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from tidewire_kit.errors import InvalidArgument, TidewireError, Unavailable
from tidewire_kit.lasting import ended
from tidewire_kit.log.embedded.appender import TopicAppender
from tidewire_kit.log.embedded.frames import PreparedFrame
from tidewire_kit.log.embedded.settings import EmbeddedLogSettings
from tidewire_kit.log.port import MAX_RECORD_BYTES, Outgoing

_MOST_COMMIT_BYTES = 32 << 20
_MOST_QUEUED_BYTES = 256 << 20

_Call = tuple[list[PreparedFrame], int, "asyncio.Future[list[int]]"]


class Committer:
    """The producing end of one topic in one process."""

    def __init__(
        self,
        appender: TopicAppender,
        settings: EmbeddedLogSettings,
        admit: Callable[[int], None],
        notify: Callable[[], None],
    ) -> None:
        self._appender = appender
        self._interval_seconds = min(settings.commit_interval_seconds, 0.001)
        self._admit = admit
        self._notify = notify
        self._loop = asyncio.get_running_loop()
        self._signal: SimpleQueue[bool] = SimpleQueue()
        self._lock = threading.Lock()
        self._calls: list[_Call] = []
        self._queued_bytes = 0
        self._closed = False
        self._thread = threading.Thread(
            target=self._run, name=f"log-commit-{appender.shape.name}", daemon=True
        )
        self._thread.start()

    def submit(self, records: Sequence[Outgoing]) -> "asyncio.Future[list[int]]":
        """Queues the records of one call; the future gives their offsets once they are durable.

        Raises InvalidArgument, Unavailable (closing, or too much is queued); then nothing is queued.
        """
        frames = [self._prepared(index, record) for index, record in enumerate(records)]
        size = sum(frame.frame_bytes for frame in frames)
        future: asyncio.Future[list[int]] = self._loop.create_future()
        if not frames:
            future.set_result([])
            return future
        with self._lock:
            if self._closed:
                raise Unavailable("message log", "the process is stopping")
            if self._queued_bytes + size > _MOST_QUEUED_BYTES:
                raise Unavailable("message log", "the disk does not keep up; more is queued than it may be")
            self._queued_bytes += size
            self._calls.append((frames, size, future))
            first = len(self._calls) == 1
        if first:
            self._signal.put(True)
        return future

    def ended(self) -> str | None:
        """As of `MessageLog.ended`."""
        return ended(self._thread)

    async def close(self) -> None:
        """Finishes what was queued, then ends the thread."""
        with self._lock:
            self._closed = True
        self._signal.put(False)
        await asyncio.to_thread(self._thread.join)

    def _prepared(self, index: int, record: Outgoing) -> PreparedFrame:
        if not 0 <= record.partition < self._appender.shape.partitions:
            why = f"is {record.partition}; the topic has {self._appender.shape.partitions} partitions"
            raise InvalidArgument(f"records[{index}].partition", why)
        frame = PreparedFrame(record)
        if frame.frame_bytes > MAX_RECORD_BYTES:
            why = f"has {frame.frame_bytes} bytes; a record may have {MAX_RECORD_BYTES}"
            raise InvalidArgument(f"records[{index}].value", why, reason="RECORD_TOO_LARGE")
        return frame

    def _run(self) -> None:
        begun = float("-inf")
        while True:
            going_on = self._signal.get()
            early = begun + self._interval_seconds - time.monotonic()
            if early > 0:
                time.sleep(early)
            begun = time.monotonic()
            calls, more = self._take()
            if calls:
                self._commit(calls)
            if more:
                self._signal.put(going_on)
            elif not going_on:
                return

    def _take(self) -> tuple[list[_Call], bool]:
        """The calls of the next commit, and whether others are left."""
        with self._lock:
            size, count = 0, 0
            for _, call_bytes, _ in self._calls:
                if count and size + call_bytes > _MOST_COMMIT_BYTES:
                    break
                size += call_bytes
                count += 1
            taken, self._calls = self._calls[:count], self._calls[count:]
            self._queued_bytes -= size
            return taken, bool(self._calls)

    def _commit(self, calls: list[_Call]) -> None:
        offsets: list[int] = []
        failure: Exception | None = None
        news = False
        try:
            self._admit(sum(size for _, size, _ in calls))
            appended = self._appender.append([frame for frames, _, _ in calls for frame in frames])
            news = self._appender.sync(appended)
            offsets = appended.offsets
        except TidewireError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - the callers must not wait for ever
            failure = Unavailable("message log", f"unexpected: {error!r}")
        try:
            self._loop.call_soon_threadsafe(_resolve, calls, offsets, failure)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more
        if news:
            self._notify()


def _resolve(calls: list[_Call], offsets: list[int], failure: Exception | None) -> None:
    at = 0
    for frames, _, future in calls:
        end = at + len(frames)
        if not future.done():
            if failure is None:
                future.set_result(offsets[at:end])
            else:
                future.set_exception(failure)
        at = end
