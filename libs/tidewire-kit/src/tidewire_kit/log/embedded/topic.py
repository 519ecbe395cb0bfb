"""One stream topic as this process has it open: its files, its ends, and how much it holds."""

import time
from pathlib import Path

from tidewire_kit.log.embedded.appender import TopicAppender
from tidewire_kit.log.embedded.meta import TopicRow
from tidewire_kit.log.embedded.reader import TopicCursor
from tidewire_kit.log.embedded.recovery import begin_of
from tidewire_kit.log.embedded.segments import TopicShape
from tidewire_kit.log.embedded.settings import EmbeddedLogSettings
from tidewire_kit.log.embedded.tail import TailState

_BEGIN_KEPT_SECONDS = 1.0


class StreamTopic:
    """Opening it creates or recovers the files (blocking). Methods may be called from any thread."""

    def __init__(self, directory: Path, row: TopicRow, settings: EmbeddedLogSettings) -> None:
        self.row = row
        self.shape = TopicShape(row.name, directory / row.name, row.partitions, row.incarnation)
        self.appender = TopicAppender(self.shape, settings)
        self._settings = settings
        self._begin = (float("-inf"), 0)

    def durable(self) -> TailState:
        """The durable end."""
        return self.cursor().durable()

    def cursor(self) -> TopicCursor:
        """A new reader that wants nothing yet."""
        return TopicCursor(self.shape, self.appender.tail, self._settings)

    def begin_offsets(self) -> list[int]:
        """Offset of the oldest record of each partition."""
        return list(begin_of(self.shape).offsets)

    def held_bytes(self) -> int:
        """Bytes from the oldest segment to the end."""
        looked_at, base = self._begin
        if time.monotonic() - looked_at > _BEGIN_KEPT_SECONDS:
            base = min(self.shape.bases(), default=0)
            self._begin = (time.monotonic(), base)
        state = self.appender.tail.written.load()
        return max(0, state.position - base) if state else 0

    def forget_begin(self) -> None:
        """Looks for the oldest segment again the next time: some were removed."""
        self._begin = (float("-inf"), 0)
