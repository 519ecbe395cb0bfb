"""Token buckets: a rate with a burst, for a tenant as one number and for its devices as columns.

A bucket holds this process's share of a quota: with several processes of ingestion each has a part (`quota_shares`),
and a bucket then fills at that part of the rate, up to that part of the burst.
"""

import numpy as np
from numpy.typing import NDArray

BURST_SECONDS = 10.0
"""A burst that is not set: this many seconds of the rate."""
LEAST_BURST = 10.0
"""No share of a burst is less than this, or than the burst: a row of a few metrics is admitted whole or never."""
_LEAST_DELAY_SECONDS = 0.1
_LOOKS = 2.0
"""What is looked at of a tenant far over its quota, in rates."""
_OWED_BURSTS = 2.0
_OWED_PART = 0.25
"""Most that one refusal counts, as a part of the burst: one large batch does not make its tenant a nuisance."""


class TokenBucket:
    """`rate` tokens a second, at most `burst` at once; full at first. A rate of 0 gives without limit."""

    __slots__ = ("_at", "_burst", "_looks", "_owed", "_quota", "_rate", "_share", "_tokens", "asked")

    def __init__(self) -> None:
        self._quota = (0.0, 0.0)
        """(rate, burst) of the whole quota; `_rate` and `_burst` are of the share."""
        self._share = 1.0
        self._rate = 0.0
        self._burst = 0.0
        self._tokens = 0.0
        self._owed = 0.0
        """What was lately refused, less what has flowed in since: above `_burst` the tenant is far over its quota."""
        self._looks = 0.0
        """How much may be looked at while the tenant is far over its quota."""
        self._at = 0.0
        self.asked = 0
        """Tokens that were asked for while there was a limit, given or not. Whoever reads it sets it back."""

    def configure(self, rate: float, burst: float) -> None:
        """Sets the limits; a bucket whose limits change is full. `burst` 0: `BURST_SECONDS` of the rate."""
        quota = (rate, burst or rate * BURST_SECONDS)
        if quota != self._quota:
            self._quota = quota
            self._divide()
            self._tokens, self._owed, self._looks = self._burst, 0.0, 0.0

    @property
    def quota(self) -> float:
        """Tokens a second of the whole quota; 0: no limit."""
        return self._quota[0]

    @property
    def share(self) -> float:
        """This bucket's part of the quota."""
        return self._share

    def set_share(self, share: float, now: float) -> None:
        """From `now` on the bucket has this part, in (0, 1], of the rate and of the burst. What it holds stays, as far
        as it fits in: a greater share does not bring tokens, or moving to and fro would make some."""
        if share != self._share:
            self._refill(now)
            self._share = share
            self._divide()
            self._tokens = min(self._tokens, self._burst)

    def take(self, amount: int, now: float) -> int:
        """Takes up to `amount` whole tokens at time `now` (seconds, not going back); returns how many."""
        if self._rate == 0:
            return amount
        self.asked += amount
        self._refill(now)
        taken = min(amount, int(self._tokens))
        self._tokens -= taken
        if taken < amount:
            self._owe(amount - taken)
        return taken

    def has(self, amount: int, now: float) -> bool:
        """Whether `take` would give all of `amount`. Takes nothing, and does not count as asking."""
        if self._rate == 0:
            return True
        self._refill(now)
        return amount <= int(self._tokens)

    def put_back(self, amount: int) -> None:
        """Returns tokens that were taken for nothing."""
        self._tokens = min(self._burst, self._tokens + amount)

    def delay(self, amount: int) -> float:
        """Seconds until `amount` tokens (at most a full bucket) will be there."""
        if self._rate == 0:
            return 0.0
        return max(_LEAST_DELAY_SECONDS, (min(amount, self._burst) - self._tokens) / self._rate)

    def refuse_unseen(self, amount: int, now: float) -> float:
        """Whether to refuse a request of about `amount` tokens without looking at it: the seconds to wait, 0 if not.

        That is so while, over many requests, several times the rate is asked for. Then twice the rate is looked at,
        which is enough to give all of the quota, however much comes.
        """
        if self._owed <= self._burst:
            return 0.0
        self._refill(now)
        if self._owed <= self._burst:
            return 0.0
        short = min(amount, self._burst) - self._looks
        if short <= 0:
            self._looks -= amount
            return 0.0
        self.asked += amount
        self._owe(amount)
        return max(_LEAST_DELAY_SECONDS, short / (_LOOKS * self._rate))

    def _refill(self, now: float) -> None:
        came = max(0.0, now - self._at) * self._rate
        self._at = now
        self._tokens = min(self._burst, self._tokens + came)
        if self._owed:
            self._owed = max(0.0, self._owed - came)
            self._looks = min(self._burst, self._looks + _LOOKS * came)

    def _owe(self, refused: int) -> None:
        more = min(float(refused), _OWED_PART * self._burst)
        self._owed = min(_OWED_BURSTS * self._burst, self._owed + more)

    def _divide(self) -> None:
        rate, burst = self._quota
        self._rate = rate * self._share
        self._burst = max(burst * self._share, min(burst, LEAST_BURST))


class DeviceBuckets:
    """A token bucket for each device of a tenant, by its slot in the directory's table."""

    def __init__(self) -> None:
        self._quota = 0.0
        self._share = 1.0
        self._rate: float | NDArray[np.float64] = 0.0
        """Of every device, or (capacity,) where shares differ; `_burst` likewise."""
        self._burst: float | NDArray[np.float64] = 0.0
        self._shares: NDArray[np.float64] | None = None
        self._tokens: NDArray[np.float64] = np.zeros(0)
        self._at: NDArray[np.float64] = np.zeros(0)
        self._asked: NDArray[np.float64] = np.zeros(0)

    def configure(self, rate: float, capacity: int) -> None:
        """Sets the rate of each device (0: no limit) and makes room for `capacity` slots."""
        if rate != self._quota:
            self._quota = rate
            self._tokens = np.zeros(0)
            self._shares = None
            self._divide()
        if rate and len(self._tokens) < capacity:
            held = len(self._tokens)
            tokens = np.full(capacity, rate * BURST_SECONDS)
            tokens[:held] = self._tokens
            at = np.zeros(capacity)
            at[:held] = self._at[:held]
            asked = np.zeros(capacity)
            asked[: len(self._asked)] = self._asked
            self._tokens, self._at, self._asked = tokens, at, asked
            if self._shares is not None:
                shares = np.full(capacity, self._share)
                shares[: len(self._shares)] = self._shares
                self._shares = shares
                self._divide()

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return self._quota > 0

    @property
    def quota(self) -> float:
        """Readings a second of each device; 0: no limit."""
        return self._quota

    @property
    def capacity(self) -> int:
        """Slots that there is room for."""
        return len(self._tokens)

    def set_shares(self, share: float, slots: NDArray[np.intp], shares: NDArray[np.float64]) -> None:
        """Gives this process a part of each device's quota: `shares`, (slots,), for `slots`; `share` for all others."""
        if len(slots) == 0 and self._shares is None and share == self._share:
            return
        self._share = share
        self._shares = None
        if len(slots):
            self._shares = np.full(self.capacity, share)
            self._shares[slots] = shares
        self._divide()

    def shares_of(self, slots: NDArray[np.intp]) -> NDArray[np.float64]:
        """(slots,): the part of their quota that these devices have here."""
        return np.full(len(slots), self._share) if self._shares is None else self._shares[slots]

    def take_asked(self) -> NDArray[np.float64]:
        """(capacity,): readings that each device asked for since the last call, given or not."""
        asked, self._asked = self._asked, np.zeros_like(self._asked)
        return asked

    def take(
        self, slots: NDArray[np.intp], readings: NDArray[np.int64], now: float
    ) -> tuple[NDArray[np.bool_] | None, float]:
        """Takes each row's readings, (rows,), from its device's bucket.

        Returns (mask of the rows that found too little, or None when all found enough; seconds to wait). Of a device
        that has too little its first rows are taken, as far as the tokens go.
        """
        present, place = np.unique(slots, return_inverse=True)
        needed = np.bincount(place, weights=readings, minlength=len(present))
        self._asked[present] += needed
        rate, burst = self._rate, self._burst
        if isinstance(rate, np.ndarray) and isinstance(burst, np.ndarray):
            rate, burst = rate[present], burst[present]
        tokens = np.minimum(burst, self._tokens[present] + (now - self._at[present]) * rate)
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
        wait = (np.minimum(needed - taken, burst) - self._tokens[present]) / rate
        return refused, max(_LEAST_DELAY_SECONDS, float(wait[~enough].max()))

    def _divide(self) -> None:
        share = self._share if self._shares is None else self._shares
        burst = self._quota * BURST_SECONDS
        self._rate = self._quota * share
        self._burst = np.maximum(burst * share, min(burst, LEAST_BURST))
