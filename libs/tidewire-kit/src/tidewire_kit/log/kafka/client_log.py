"""The client library's own log, made bearable: `config` hands it to every client.

While a broker is away each client says so twenty times a second, as an error. The library tries again by itself, and
what fails meanwhile is raised to callers and shown by health, so the first line is a warning and its repetitions are
only counted.
"""

import logging
import re
import time
from collections.abc import Callable

REPEAT_SECONDS = 30.0
_THREAD = re.compile(r"\[thrd:([^\]]*)\]")
_MOST_KINDS = 1000


class Seldom(logging.Filter):
    """Lets one line through per kind and broker in `REPEAT_SECONDS`, as a warning at most."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written; the next one of its kind says how many were not."""
        text = record.getMessage()
        broker = _THREAD.search(text)
        kind = (text.partition(" ")[0], broker[1] if broker else "")
        now = self._clock()
        since, left_out = self._seen.get(kind, (-REPEAT_SECONDS, 0))
        if now - since < REPEAT_SECONDS:
            self._seen[kind] = (since, left_out + 1)
            return False
        if len(self._seen) >= _MOST_KINDS:
            self._seen.clear()
        self._seen[kind] = (now, 0)
        if left_out:
            record.msg, record.args = f"{text} (and {left_out} times more since the last such line)", ()
        record.levelno = min(record.levelno, logging.WARNING)
        record.levelname = logging.getLevelName(record.levelno)
        return True


client_log = logging.getLogger("tidewire_kit.log.kafka.client")
client_log.addFilter(Seldom())
