"""A clock that a test moves by hand."""

START_US = 1_700_000_000_000_000
"""2023-11-14T22:13:20Z: any fixed moment."""


class ManualClock:
    """A `tidewire_kit.clock.Clock` that stands still until it is moved."""

    def __init__(self, now_us: int = START_US) -> None:
        self._now_us = now_us
        self._monotonic = 1000.0

    def now_us(self) -> int:
        """Unix µs, as set."""
        return self._now_us

    def monotonic(self) -> float:
        """Seconds; moved by `advance` only."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Moves both clocks forward."""
        assert seconds >= 0, "time that goes back is `jump`"
        self._now_us += round(seconds * 1_000_000)
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Moves the calendar's clock only, in either direction, as an administrator does."""
        self._now_us += round(seconds * 1_000_000)
