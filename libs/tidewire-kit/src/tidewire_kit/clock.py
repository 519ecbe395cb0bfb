"""Time as an argument: whoever needs to know it takes a `Clock`, so that tests can set it.

Production code passes `SystemClock()` from its composition root; tests pass `tidewire_testkit.clock.ManualClock`.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks in one: the calendar's, which may jump, and one that only moves forward, for spans."""

    def now_us(self) -> int:
        """Unix time in microseconds."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back. For time-outs and freshness."""


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    def now_us(self) -> int:
        """Unix time in microseconds."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Seconds of the machine's monotonic clock."""
        return time.monotonic()
