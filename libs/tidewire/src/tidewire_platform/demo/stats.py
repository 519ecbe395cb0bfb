"""Counts of a demo run: what was acknowledged, refused and made visible, and how long each took; for the view."""

import time
from collections import Counter, deque

import numpy as np

WINDOW_SECONDS = 10.0


class Stats:
    """Counters of one run, written by the publishers and the poller on one event loop, read by the view."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.accepted = 0
        """Readings acknowledged in this run."""
        self.refused: Counter[str] = Counter()
        """Reason → readings refused in this run."""
        self.retries = 0
        """Batches that had to be sent again."""
        self.visible = 0
        """Readings of this run that queries see, as far as is known."""
        self.visible_lag_seconds: float | None = None
        """How old the oldest acknowledgement is that is not yet visible; None before the first answer."""
        self.rates: deque[float] = deque(maxlen=60)
        """Accepted readings per second, one value a second, newest last."""
        self.ack_lags_ms: deque[float] = deque(maxlen=60)
        """Median milliseconds from publish to acknowledgement, one value a second, newest last."""
        self._acks: deque[tuple[float, float]] = deque()
        self._unseen: deque[tuple[float, int]] = deque()
        self._last_tick = (self.started, 0)

    def acknowledged(self, readings: int, refused: dict[str, int], took_seconds: float) -> None:
        """Notes an acknowledgement that took `took_seconds` from publish."""
        now = time.monotonic()
        self.accepted += readings
        self.refused.update(refused)
        self._acks.append((now, took_seconds))
        if readings:
            self._unseen.append((now, self.accepted))

    def seen(self, visible: int) -> None:
        """Notes that `visible` readings of this run are visible now."""
        self.visible = visible
        while self._unseen and self._unseen[0][1] <= visible:
            self._unseen.popleft()
        self.visible_lag_seconds = time.monotonic() - self._unseen[0][0] if self._unseen else 0.0

    def begin(self) -> None:
        """Begins the live part: what came before, such as an import, counts, and is not in rates and durations."""
        self._last_tick = (time.monotonic(), self.accepted)
        self._acks.clear()

    def tick(self) -> None:
        """Ends a second: adds a point to the sparklines."""
        now = time.monotonic()
        then, accepted = self._last_tick
        self.rates.append((self.accepted - accepted) / max(now - then, 1e-3))
        self._last_tick = (now, self.accepted)
        recent = [took for at, took in self._acks if at >= then]
        self.ack_lags_ms.append(float(np.median(recent)) * 1e3 if recent else 0.0)
        while self._acks and self._acks[0][0] < now - WINDOW_SECONDS:
            self._acks.popleft()

    def ack_quantile_ms(self, quantile: float) -> float | None:
        """Milliseconds from publish to durable acknowledgement over the last 10 s; None when there were none."""
        took = [took for _, took in self._acks]
        return float(np.quantile(took, quantile)) * 1e3 if took else None
