"""Counts batches that are missing by their publisher's own count."""


class Sequences:
    """The last sequence number of each publisher that this process has heard of.

    Bounded: the publisher that has been silent for longest is forgotten first, and starts anew. A gap is what this
    process did not see; a publisher that spreads its batches over several processes had better not count them.
    """

    def __init__(self, publishers: int = 200_000) -> None:
        self._limit = publishers
        self._last: dict[bytes, int] = {}

    def missed(self, publisher_uid: bytes, sequence: int) -> int:
        """Notes a batch; returns how many are missing between the highest number before it and this one."""
        if sequence == 0:
            return 0
        last = self._last.pop(publisher_uid, None)
        if last is None:
            if len(self._last) >= self._limit:
                del self._last[next(iter(self._last))]
            self._last[publisher_uid] = sequence
            return 0
        if sequence > last:
            self._last[publisher_uid] = sequence
            return sequence - last - 1
        # A retry, a late one, or, at 1, a publisher that has started to count anew.
        self._last[publisher_uid] = 1 if sequence == 1 else last
        return 0
