"""What makes a retried batch count once: a window, per partition, over the segments that an owner has seen.

A segment is dropped only if its batch id AND the digest of its rows were seen: admission may differ between two tries
of a batch, and rows that were refused first and admitted later must not be lost. All segments of all records that a
poll returned for a partition are looked up together, with some dozens of NumPy calls whatever their number.
"""

from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from tidewire_kit.telemetry.record import Table

WINDOW_SECONDS = 600.0
WINDOW_SEGMENTS = 65_536

ENTRY_BYTES = 32
"""An entry is four little-endian uint64: the 128-bit key in two, the digest, and log time in µs."""

Entries = NDArray[np.uint64]
"""(segments, 4): key (two words), digest, log time in µs."""

_INDEX_FACTOR = 4
_MIX = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)


class SegmentHasher:
    """Makes the 128-bit keys of (tenant, publisher, batch id) of many segments at once.

    Two sums of products modulo 2^64 with odd secret factors, so that a publisher's own batch ids never collide (the
    factors of the batch id have an odd determinant), and others' only by chance. `seed` is the topic's incarnation:
    tenants do not know it, so none can choose a batch id that collides with another tenant's.
    """

    __slots__ = ("_factors",)

    def __init__(self, seed: bytes) -> None:
        words = [xxhash.xxh3_64_intdigest(seed + bytes([number])) | 1 for number in range(12)]
        words[11] &= ~1  # the batch id's 2 × 2 factors [[odd, odd], [odd, even]] have an odd determinant
        self._factors = [np.array(words[first : first + 2], np.uint64) for first in range(0, 12, 2)]

    def entries(self, tables: Sequence[Table], log_times_us: Sequence[int]) -> Entries:
        """Returns the entries of all segments of the tables, in order; `log_times_us` has one time a table."""
        counts = [table.segments for table in tables]
        batch = _words(np.concatenate([table.segment_batch_ids for table in tables]))
        publisher = _words(np.concatenate([table.segment_publisher_uids for table in tables]))
        tenant = np.frombuffer(b"".join([table.tenant for table in tables]), "<u8").reshape(-1, 2)
        factors = self._factors
        per_table = tenant[:, :1] * factors[0] + tenant[:, 1:] * factors[1]
        entries = np.empty((len(batch), 4), np.uint64)
        keys = entries[:, :2]
        # Mixing the publisher first keeps a batch id and a publisher from standing in for one another.
        publisher = (publisher ^ (publisher >> _SHIFT)) * _MIX
        np.multiply(batch[:, :1], factors[4], out=keys)
        keys += batch[:, 1:] * factors[5]
        keys += publisher[:, :1] * factors[2]
        keys += publisher[:, 1:] * factors[3]
        keys += np.repeat(per_table, counts, axis=0)
        keys ^= keys >> _SHIFT
        keys *= _MIX
        entries[:, 2] = np.concatenate([table.segment_digests for table in tables])
        entries[:, 3] = np.repeat(np.array(log_times_us, np.uint64), counts)
        return entries


class DedupWindow:
    """The last 10 minutes of log time, or 64 Ki segments, whichever is less, of one partition.

    A ring of entries and an open-addressed index into it, both NumPy arrays, 3 MiB when full. Not thread-safe.
    """

    __slots__ = ("_capacity", "_index", "_indexed", "_next", "_ring", "_span_us")

    def __init__(self, *, seconds: float = WINDOW_SECONDS, segments: int = WINDOW_SEGMENTS) -> None:
        """`segments` is rounded up to a power of two."""
        self._capacity = 1 << max(4, (segments - 1).bit_length())
        self._span_us = np.uint64(seconds * 1e6)
        self._ring = np.zeros((self._capacity, 4), np.uint64)
        self._index = np.zeros(self._capacity * _INDEX_FACTOR, np.int32)
        """Place in the ring + 1, or 0; a place that was overwritten since compares unequal and is passed over."""
        self._indexed = 0
        self._next = 0

    def __len__(self) -> int:
        """Entries held, those beyond the time span included."""
        return min(self._next, self._capacity)

    def admit(self, entries: Entries) -> NDArray[np.bool_]:
        """Looks up segments in their order in the log, and notes the new ones.

        Returns bool (segments,), true for those seen for the first time. Their entries are to be stored together with
        the effect of their record, and given to `load` after a restart.
        """
        fresh = ~self._seen(entries)
        if len(entries) > 1:
            _only_first(entries, fresh)
        self.load(entries if fresh.all() else entries[fresh])
        return fresh

    def load(self, entries: Entries) -> None:
        """Notes stored entries, oldest first."""
        for first in range(0, len(entries), self._capacity):
            self._note(entries[first : first + self._capacity])

    def forget(self, entries: Entries) -> None:
        """Takes entries back: their record had no effect after all."""
        for entry in entries:
            self._ring[(self._ring == entry).all(axis=1)] = 0

    def _slots(self, entries: Entries) -> NDArray[np.intp]:
        return ((entries[:, 0] ^ entries[:, 2]) & np.uint64(len(self._index) - 1)).astype(np.intp)

    def _seen(self, entries: Entries) -> NDArray[np.bool_]:
        seen = np.zeros(len(entries), np.bool_)
        slots = self._slots(entries)
        places = self._index[slots]
        left = np.flatnonzero(places)
        mask = len(self._index) - 1
        while left.size:
            held = self._ring[places[left] - 1]
            asked = entries[left]
            same = (held[:, 0] == asked[:, 0]) & (held[:, 1] == asked[:, 1]) & (held[:, 2] == asked[:, 2])
            same &= (
                held[:, 3] + self._span_us >= asked[:, 3]
            )  # of one that has expired a newer one may follow
            seen[left] = same
            left = left[~same]
            slots[left] = (slots[left] + 1) & mask
            places[left] = self._index[slots[left]]
            left = left[places[left] != 0]
        return seen

    def _note(self, entries: Entries) -> None:
        count = len(entries)
        if not count:
            return
        first = self._next & (self._capacity - 1)
        self._next += count
        head = min(count, self._capacity - first)
        self._ring[first : first + head] = entries[:head]
        self._ring[: count - head] = entries[head:]
        if self._indexed + count > len(self._index) // 2:
            self._index.fill(0)  # passed-over places are swept out
            self._indexed = 0
            places = np.arange(len(self), dtype=np.int32)
            slots = self._slots(self._ring[: len(self)])
        else:
            places = (np.arange(first, first + count) & (self._capacity - 1)).astype(np.int32)
            slots = self._slots(entries)
        self._indexed += len(places)
        places += 1
        mask = len(self._index) - 1
        while True:
            free = self._index[slots] == 0
            self._index[slots[free]] = places[free]  # of several for one slot, any may win
            lost = self._index[slots] != places
            if not lost.any():
                return
            places, slots = places[lost], (slots[lost] + 1) & mask


def _only_first(entries: Entries, fresh: NDArray[np.bool_]) -> None:
    """Clears `fresh` where the same segment stands earlier among the same entries."""
    folded = np.sort(entries[:, 0] ^ entries[:, 2])
    if not (folded[1:] == folded[:-1]).any():
        return
    _, first = np.unique(entries[:, :3], axis=0, return_index=True)
    repeated = np.ones(len(entries), np.bool_)
    repeated[first] = False
    fresh &= ~repeated


def _words(uids: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """(n, 16) bytes as (n, 2) words."""
    return uids.view("<u8")
