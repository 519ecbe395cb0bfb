"""How far apart commits should be: at once while the processor has time to spare, apart when it has not.

A commit costs the same for one request and for fifty. While the loop's thread mostly waits, the shortest latency is
best and commits cost nothing that anybody needs. When it is always busy, requests queue for the processor anyway, and
the quickest way to serve them all is to spend less on commits.
"""

import time
from collections.abc import Callable

_SAMPLE_SECONDS = 0.02
_IDLE, _BUSY = 0.5, 0.75
"""Share of its time that the thread works: no spacing up to the first, all of it from the second on."""
_WEIGHT = 0.3


class Pace:
    """Watches the share of time that the current thread works. Use from one thread."""

    def __init__(
        self,
        longest_seconds: float,
        *,
        cpu_seconds: Callable[[], float] = time.thread_time,
        wall_seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._longest = longest_seconds
        self._cpu_seconds = cpu_seconds
        self._wall_seconds = wall_seconds
        self._cpu = cpu_seconds()
        self._wall = wall_seconds()
        self._share = 0.0

    def spacing(self) -> float:
        """Seconds that the next commit should come after this one, 0 to `longest_seconds`. Called at each commit."""
        wall = self._wall_seconds()
        elapsed = wall - self._wall
        if elapsed >= _SAMPLE_SECONDS:
            cpu = self._cpu_seconds()
            weight = min(1.0, _WEIGHT * elapsed / _SAMPLE_SECONDS)
            self._share += weight * ((cpu - self._cpu) / elapsed - self._share)
            self._cpu, self._wall = cpu, wall
        return self._longest * min(1.0, max(0.0, (self._share - _IDLE) / (_BUSY - _IDLE)))
