"""How the values of a metric are best compressed: learnt from a sample, so that not every column is analysed anew.

pcodec left to itself looks for a model (multiples of what, differences or not) in every column, which takes as long as
compressing. The values of one metric nearly always have the same model. What is learnt is advice: it decides how many
bytes a column takes, never what is in it, and it is dropped when columns come that it does not suit. Used by the block
formats.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pcodec import ChunkConfig, DeltaSpec, ModeSpec

from tidewire_kit.ids import TenantId
from tidewire_storage.domain import columns
from tidewire_storage.domain.columns import LEVEL, VALUE_CONFIG, Packed

LEAST_ROWS = 512
"""Fewer say too little about the others."""
_SAMPLE_ROWS = 2_048
_USES = 2_000
"""Columns after which a metric is looked at again: it may have become simpler."""
_DOUBTS = 4
"""Columns that took more bytes than they had to before it is."""
_MOST = 10_000
"""Metrics remembered, some 300 bytes each."""
_GOOD_ENOUGH = 1.01

_MODES = [ModeSpec.classic(), *(ModeSpec.try_float_mult(base) for base in (1.0, 0.1, 0.01, 0.001))]
_DELTAS = [DeltaSpec.no_op(), DeltaSpec.try_consecutive(1)]
_CANDIDATES = [
    ChunkConfig(compression_level=LEVEL, mode_spec=mode, delta_spec=delta)
    for mode in _MODES
    for delta in _DELTAS
]

Series = tuple[TenantId, int, str]
"""Tenant, level of the block, metric: rows lie in another order on each level."""


@dataclass(slots=True)
class _Choice:
    config: ChunkConfig
    limit: float
    """Bytes a row: a column that takes more is compressed without advice, too."""
    uses_left: int = _USES
    doubts_left: int = _DOUBTS


_choices: dict[Series, _Choice] = {}
"""Of this process. Threads may overwrite each other's: then a metric is learnt twice."""


def pack_values(series: Series, column: NDArray[np.float64]) -> Packed:
    """Values of one metric, lossless to the bit."""
    choice = _choices.get(series)
    if choice is None or choice.uses_left <= 0 or choice.doubts_left <= 0:
        if len(column) < LEAST_ROWS:
            return columns.pack_values(column)
        choice = _remember(series, column)
    choice.uses_left -= 1
    packed = columns.pack(column, choice.config)
    length = len(packed[1])
    if length <= choice.limit * len(column) or choice.config is VALUE_CONFIG:
        return packed
    other = columns.pack_values(column)
    if len(other[1]) * _GOOD_ENOUGH < length:
        choice.doubts_left -= 1
        return other
    choice.limit = length / len(column)
    return packed


def _remember(series: Series, column: NDArray[np.float64]) -> _Choice:
    first = max(0, (len(column) - _SAMPLE_ROWS) // 2)
    sample = column[first : first + _SAMPLE_ROWS]
    sizes = [len(columns.pack(sample, config)[1]) for config in _CANDIDATES]
    least = len(columns.pack_values(sample)[1])
    best = int(np.argmin(sizes))
    config = _CANDIDATES[best] if sizes[best] <= least * _GOOD_ENOUGH else VALUE_CONFIG
    if len(_choices) >= _MOST:
        _choices.clear()
    choice = _choices[series] = _Choice(config, 1.25 * min(least, sizes[best]) / len(sample) + 0.05)
    return choice
