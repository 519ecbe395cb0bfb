"""How far apart commits should be: so far that several requests share one, and never so far that it is felt.

A commit costs about the same for one request and for twenty. While few requests come nothing is gained by waiting, and
each is committed at once. When many come, a short time brings several together, and the event loop keeps up with ease.
When the loop is busy all the time, requests queue for the processor anyway, and the quickest way to serve them all is
to spend less on commits: then the spacing grows with what the loop lacks.
"""

import time
from collections.abc import Callable

_SAMPLE_SECONDS = 0.02
_WEIGHT = 0.3
_IDLE, _BUSY = 0.45, 0.6
"""Share of its time that the thread works: no more than calm up to the first, as far apart as may be from the second
on. A loop with more to do than it can works 0.55 to 0.75 of the time; the rest it waits for the interpreter."""
_PROMPT_SECONDS, _LATE_SECONDS = 0.002, 0.005
"""The same for how late the loop runs what is due: a thread that others keep from working is busy too."""
_ENOUGH = 16.0
"""Requests in a commit, beyond which more of them save nothing to speak of."""
_WORTH_WAITING = 2.0
"""Requests that must be expected within the calm spacing, or nobody waits."""


class Pace:
    """Watches what comes and how busy the current thread is. Use from one thread."""

    def __init__(
        self,
        calm_seconds: float,
        longest_seconds: float,
        *,
        cpu_seconds: Callable[[], float] = time.thread_time,
        wall_seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """Spacing is at most `calm_seconds` while there is time to spare, else at most `longest_seconds`."""
        self._calm = calm_seconds
        self._longest = max(calm_seconds, longest_seconds)
        self._cpu_seconds = cpu_seconds
        self._wall_seconds = wall_seconds
        self._cpu = cpu_seconds()
        self._wall = wall_seconds()
        self._requests = 0
        self._share = 0.0
        self._late = 0.0
        self._rate = 0.0

    def spacing(self, requests: int, late_seconds: float) -> float:
        """Seconds that the next commit should come after this one. Called at each commit.

        `requests` is how many this one takes, `late_seconds` how much later it began than it was meant to.
        """
        self._requests += requests
        self._late += 0.1 * (late_seconds - self._late)
        wall = self._wall_seconds()
        elapsed = wall - self._wall
        if elapsed >= _SAMPLE_SECONDS:
            cpu = self._cpu_seconds()
            weight = min(1.0, _WEIGHT * elapsed / _SAMPLE_SECONDS)
            self._share += weight * ((cpu - self._cpu) / elapsed - self._share)
            self._rate += weight * (self._requests / elapsed - self._rate)
            self._cpu, self._wall, self._requests = cpu, wall, 0
        if self._rate * self._calm < _WORTH_WAITING:
            return 0.0
        busy = max(
            (self._share - _IDLE) / (_BUSY - _IDLE),
            (self._late - _PROMPT_SECONDS) / (_LATE_SECONDS - _PROMPT_SECONDS),
        )
        most = self._calm + (self._longest - self._calm) * min(1.0, max(0.0, busy))
        return min(most, _ENOUGH / self._rate)
