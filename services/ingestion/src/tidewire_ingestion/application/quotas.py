"""Token buckets: a rate with a burst, for a tenant as one number and for its devices as columns."""

import numpy as np
from numpy.typing import NDArray

BURST_SECONDS = 10.0
"""A burst that is not set: this many seconds of the rate."""
_LEAST_DELAY_SECONDS = 0.1


class TokenBucket:
    """`rate` tokens a second, at most `burst` at once; full at first. A rate of 0 gives without limit."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self) -> None:
        self._rate = 0.0
        self._burst = 0.0
        self._tokens = 0.0
        self._at = 0.0

    def configure(self, rate: float, burst: float) -> None:
        """Sets the limits; a bucket whose limits change is full. `burst` 0: `BURST_SECONDS` of the rate."""
        burst = burst or rate * BURST_SECONDS
        if (rate, burst) != (self._rate, self._burst):
            self._rate, self._burst, self._tokens = rate, burst, burst

    def take(self, amount: int, now: float) -> int:
        """Takes up to `amount` whole tokens at time `now` (seconds, not going back); returns how many."""
        if self._rate == 0:
            return amount
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now
        taken = min(amount, int(self._tokens))
        self._tokens -= taken
        return taken

    def put_back(self, amount: int) -> None:
        """Returns tokens that were taken for nothing."""
        self._tokens = min(self._burst, self._tokens + amount)

    def delay(self, amount: int) -> float:
        """Seconds until `amount` tokens (at most a full bucket) will be there."""
        if self._rate == 0:
            return 0.0
        return max(_LEAST_DELAY_SECONDS, (min(amount, self._burst) - self._tokens) / self._rate)


class DeviceBuckets:
    """A token bucket for each device of a tenant, by its slot in the directory's table."""

    def __init__(self) -> None:
        self._rate = 0.0
        self._tokens: NDArray[np.float64] = np.zeros(0)
        self._at: NDArray[np.float64] = np.zeros(0)

    def configure(self, rate: float, capacity: int) -> None:
        """Sets the rate of each device (0: no limit) and makes room for `capacity` slots."""
        if rate != self._rate:
            self._rate = rate
            self._tokens = np.zeros(0)
        if rate and len(self._tokens) < capacity:
            held = len(self._tokens)
            tokens = np.full(capacity, rate * BURST_SECONDS)
            tokens[:held] = self._tokens
            at = np.zeros(capacity)
            at[:held] = self._at[:held]
            self._tokens, self._at = tokens, at

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return self._rate > 0

    def take(
        self, slots: NDArray[np.intp], readings: NDArray[np.int64], now: float
    ) -> tuple[NDArray[np.bool_] | None, float]:
        """Takes each row's readings, (rows,), from its device's bucket.

        Returns (mask of the rows that found too little, or None when all found enough; seconds to wait). Of a device
        that has too little its first rows are taken, as far as the tokens go.
        """
        present, place = np.unique(slots, return_inverse=True)
        needed = np.bincount(place, weights=readings, minlength=len(present))
        burst = self._rate * BURST_SECONDS
        tokens = np.minimum(burst, self._tokens[present] + (now - self._at[present]) * self._rate)
        self._at[present] = now
        enough = needed <= tokens
        if enough.all():
            self._tokens[present] = tokens - needed
            return None, 0.0
        order = np.argsort(place, kind="stable")
        ordered = readings[order].astype(np.float64)
        running = ordered.cumsum()
        firsts = np.searchsorted(place[order], np.arange(len(present)))
        running -= (running[firsts] - ordered[firsts])[place[order]]
        refused = np.empty(len(slots), np.bool_)
        refused[order] = running > tokens[place[order]]
        taken = np.bincount(place, weights=np.where(refused, 0, readings), minlength=len(present))
        self._tokens[present] = tokens - taken
        short = np.minimum(needed - taken, burst) - self._tokens[present]
        return refused, max(_LEAST_DELAY_SECONDS, float(short[~enough].max()) / self._rate)
