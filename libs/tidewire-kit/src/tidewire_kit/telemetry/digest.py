"""Digests of segments: the same for the same frame and rows, whatever batch traffic they were gathered with.

A segment's digest is a hash of its metric names, its frame's number in the batch, its own number within the frame's
rows of that partition, and the sum modulo 2^64 of a 64-bit hash per row (device uid, time, bits of the values).
Owners of partitions drop a segment whose batch id and digest they have seen, so two segments of one batch never share
a digest, and a retry that has other rows admitted has another one. Not meant against people who seek collisions: a
publisher can only harm batches of its own.
"""

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_TIME = np.uint64(0xD6E8FEB86659FD93)
_UID = np.uint64(0xA0761D6478BD642F)
_SHIFT_1, _SHIFT_2, _HALF = np.uint64(30), np.uint64(27), np.uint64(32)
_FRAME, _CHUNK = 0xE7037ED1A0B428DB, 0x8EBC6AF09C88C6E3


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scrambles in place (a bijection: splitmix64's finaliser) and returns its argument."""
    words ^= words >> _SHIFT_1
    words *= _MIX_1
    words ^= words >> _SHIFT_2
    words *= _MIX_2
    words ^= words >> _HALF
    return words


def _multipliers(count: int) -> NDArray[np.uint64]:
    words = np.full(count, _GOLDEN, np.uint64).cumsum(dtype=np.uint64)
    return _mix(words) | np.uint64(1)


_COLUMN = _multipliers(1_024).reshape(-1, 1)


def hash_devices(uids: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """uids uint8 (devices, 16), C-contiguous → (devices,)."""
    halves = uids.view(np.uint64)
    words: NDArray[np.uint64] = halves[:, 1] * _UID
    words += halves[:, 0]
    return _mix(words)


def hash_rows(
    device_hashes: NDArray[np.uint64], time_unix_us: NDArray[np.int64], values: NDArray[np.float64]
) -> NDArray[np.uint64]:
    """(rows,), (rows,), (metrics, rows) C-contiguous → (rows,). At most 1,024 metrics."""
    bits = values.view(np.uint64)
    # The low half of a short number's bits is zero, and stays so under multiplication: bring the upper half down.
    words = bits >> _HALF
    words ^= bits
    words *= _COLUMN[: len(words)]
    hashes: NDArray[np.uint64] = words[0] if len(words) == 1 else np.add.reduce(words, axis=0)
    hashes += time_unix_us.view(np.uint64) * _TIME
    hashes += device_hashes
    return _mix(hashes)


def segment_seed(metrics_seed: int, frame: int) -> int:
    """What the digests of a frame's segments start from."""
    return (metrics_seed + frame * _FRAME) & _MASK


def finish(
    sums: NDArray[np.uint64], seeds: NDArray[np.uint64], chunks: NDArray[np.uint64] | None
) -> NDArray[np.uint64]:
    """Sums of row hashes, seeds and numbers of chunks (None: all 0), one per segment → digests. Overwrites `sums`."""
    sums += seeds
    if chunks is not None:
        sums += chunks * np.uint64(_CHUNK)
    return _mix(sums)
