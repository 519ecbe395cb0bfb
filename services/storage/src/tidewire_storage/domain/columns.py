"""Columns as bytes, and a table that is decoded column by column.

Shared by the formats of flushed and of sealed blocks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pcodec import ChunkConfig, DeltaSpec, standalone

from tidewire_storage.domain.block_header import BlockDamaged
from tidewire_storage.domain.rows import SortedTable

Packed = tuple[int, bytes | memoryview]
"""A column's codec and its bytes."""

RAW, PCODEC, NONE = 0, 1, 2

_SMALL_ROWS = 32
"""Below this, pcodec's own header outweighs what it saves."""

LEVEL = 4
"""Of pcodec: below it booleans are taken for something else, above it a tenth less takes twice as long."""
_TIME_CONFIG = ChunkConfig(compression_level=LEVEL, delta_spec=DeltaSpec.try_consecutive(1))
VALUE_CONFIG = ChunkConfig(compression_level=LEVEL)
"""pcodec looks for a model by itself, which takes as long as compressing; see `tuning`."""


def pack_times(column: NDArray[np.int64]) -> Packed:
    """Event times, which mostly rise by equal steps."""
    return pack(column, _TIME_CONFIG)


def pack_values(column: NDArray[Any]) -> Packed:
    """Any other column of 8-byte numbers."""
    return pack(column, VALUE_CONFIG)


def unpack(column: Packed, dtype: str) -> NDArray[Any]:
    """The reverse of both. Raises BlockDamaged."""
    codec, data = column
    if codec == RAW:
        return np.frombuffer(data, dtype)
    if codec != PCODEC:
        raise BlockDamaged(f"codec {codec} is not known")
    return np.asarray(standalone.simple_decompress(bytes(data)))


def pack(column: NDArray[Any], config: ChunkConfig) -> Packed:
    """A column compressed in a given way, or as it is where that takes fewer bytes."""
    if len(column) >= _SMALL_ROWS:
        packed: bytes = standalone.simple_compress(np.ascontiguousarray(column), config)
        if len(packed) < column.nbytes:
            return PCODEC, packed
    return RAW, column.tobytes()


class TableReader:
    """A table of a block, or some pages of one; columns are decoded when asked for."""

    __slots__ = ("_arrival", "_times", "_values", "device_uids", "metrics", "row_counts")

    def __init__(
        self,
        metrics: tuple[str, ...],
        device_uids: NDArray[np.uint8],
        row_counts: NDArray[np.uint32],
        times: Sequence[Packed],
        values: Sequence[Sequence[Packed]],
        arrival: Packed | None = None,
    ) -> None:
        """`times` are the pieces of the time column, `values` per metric those of its column, in the order of rows."""
        self.metrics = metrics
        self.device_uids = device_uids
        """(devices, 16), as in SortedTable."""
        self.row_counts = row_counts
        """(devices,)."""
        self._times = times
        self._values = values
        self._arrival = arrival

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.row_counts.sum())

    def time(self) -> NDArray[np.int64]:
        """(rows,): event times in µs."""
        return _joined(self._times, "<i8")

    def arrival(self) -> NDArray[np.int64] | None:
        """(rows,), or None: all rows arrived with the block."""
        return None if self._arrival is None else unpack(self._arrival, "<i8")

    def column(self, metric: str) -> NDArray[np.float64]:
        """(rows,): the values of one of `metrics`."""
        return _joined(self._values[self.metrics.index(metric)], "<f8")

    def table(self) -> SortedTable:
        """Everything, decoded."""
        values = [self.column(metric) for metric in self.metrics]
        return SortedTable(
            self.metrics, self.device_uids, self.row_counts, self.time(), values, self.arrival()
        )


def _joined(pieces: Sequence[Packed], dtype: str) -> NDArray[Any]:
    if len(pieces) == 1:
        return unpack(pieces[0], dtype)
    return np.concatenate([unpack(piece, dtype) for piece in pieces])
