"""When to stop setting records aside: a few bad records are theirs, many are ours."""

from collections import deque

POISON_WINDOW = 10_000
POISON_SHARE = 0.01
POISON_LEAST = 20


class PoisonGuard:
    """Counts the records that could not be processed among the last 10,000.

    More than 1 % of them, and at least 20: then the fault is more likely in this software than in the records, and the
    owner stops rather than diverting everything.
    """

    __slots__ = ("_least", "_poison", "_seen", "_share", "_window")

    def __init__(
        self, *, window: int = POISON_WINDOW, share: float = POISON_SHARE, least: int = POISON_LEAST
    ) -> None:
        self._window = window
        self._share = share
        self._least = least
        self._seen = 0
        self._poison: deque[int] = deque()

    def passed(self, records: int = 1) -> None:
        """Counts records that were processed."""
        self._seen += records
        self._trim()

    def failed(self) -> None:
        """Counts a record that was set aside."""
        self._seen += 1
        self._poison.append(self._seen)
        self._trim()

    @property
    def recent(self) -> int:
        """Records set aside among the last 10,000."""
        return len(self._poison)

    def would_trip(self) -> bool:
        """Whether one more record set aside would be too many."""
        poison = len(self._poison) + 1
        return poison >= self._least and poison > self._share * min(self._seen + 1, self._window)

    def _trim(self) -> None:
        while self._poison and self._poison[0] <= self._seen - self._window:
            self._poison.popleft()
