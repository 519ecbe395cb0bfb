"""Exponential back-off with jitter, used by every retry in the SDK.

What the platform asks for (RetryInfo) is a lower bound; jitter keeps a fleet from coming back in step.
"""

import random


class Backoff:
    """Delays that double from `first_seconds` to `limit_seconds`, each less a random part of up to a half."""

    def __init__(self, first_seconds: float = 0.05, limit_seconds: float = 10.0) -> None:
        self._first = first_seconds
        self._limit = limit_seconds
        self.attempts = 0

    def next_delay(self, asked_seconds: float | None = None) -> float:
        """Seconds to wait now. At least what was asked for, and then at most a quarter longer."""
        delay = min(self._limit, self._first * 2.0 ** min(self.attempts, 30))
        self.attempts += 1
        if asked_seconds:
            return asked_seconds * random.uniform(1.0, 1.25)
        return delay * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Starts over, after a success."""
        self.attempts = 0
