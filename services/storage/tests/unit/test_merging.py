"""Merging flushed blocks gives what a dictionary gives: of several readings the latest arrival wins."""

import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewire_kit.ids import TenantId, new_uid
from tidewire_kit.owner import PieceOfTable
from tidewire_storage.domain.block_format import encode_block, read_block
from tidewire_storage.domain.blocks import BlockKey, TopicPartitionKey
from tidewire_storage.domain.merging import merge
from tidewire_storage.domain.rows import Piece, SortedTable, sort_pieces
from tidewire_testkit.telemetry import make_table

TENANT = TenantId(new_uid())
PLACE = TopicPartitionKey(new_uid(), 0)
DEVICES = [new_uid() for _ in range(4)]
SETS = (("a",), ("a", "b"), ("b", "c"), ("d",))
CELL = st.one_of(st.just(math.nan), st.integers(-3, 3).map(float))
ROW = st.tuples(st.integers(0, 3), st.integers(0, 6), CELL, CELL)
BATCH = st.tuples(st.integers(0, len(SETS) - 1), st.lists(ROW, min_size=1, max_size=5))
"""(metric set, rows of (device, time, cells))."""
Model = dict[tuple[bytes, int, str], float]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(BATCH, min_size=1, max_size=4), min_size=1, max_size=4),
    st.sets(st.integers(0, 3), max_size=2),
)
def test_it_merges_as_a_dictionary_does(blocks: list[list[Any]], dropped: set[int]) -> None:
    model: Model = {}
    readings = purged = offset = 0
    flushed = []
    for batches in blocks:
        pieces: dict[tuple[str, ...], list[Piece]] = {}
        first = offset
        for number, rows in batches:
            metrics = SETS[number]
            kept = [(DEVICES[device], time, cells[: len(metrics)]) for device, time, *cells in rows]
            table = make_table(TENANT, metrics, kept)
            pieces.setdefault(metrics, []).append(Piece(offset, PieceOfTable(table, 0)))
            offset += 1
            for uid, time, cells in kept:
                for metric, value in zip(metrics, cells, strict=True):
                    if math.isnan(value):
                        continue
                    readings += 1
                    if DEVICES.index(uid) in dropped:
                        purged += 1
                    else:
                        model[uid, time, metric] = value
        tables = _sorted(pieces)
        block = encode_block(BlockKey(TENANT, PLACE, 0, 0, first, offset), 0, tables)
        flushed.append((first, [reader.table() for reader in read_block(block.data)[1]]))
    merged = merge(flushed, [DEVICES[number] for number in dropped])
    found: Model = {}
    for table in merged.tables:
        assert table.arrival is None
        assert table.rows
        for key, value in _readings(table):
            assert key not in found
            found[key] = value
    assert found == model
    assert (merged.readings_before, merged.purged) == (readings, purged)
    assert merged.collapsed == readings - purged - len(model)


def _sorted(pieces: dict[tuple[str, ...], list[Piece]]) -> list[SortedTable]:
    names = [name for metrics in pieces for name in metrics]
    shared = len(set(names)) < len(names)
    return [sort_pieces(metrics, some, with_arrival=shared) for metrics, some in pieces.items()]


def _readings(table: SortedTable) -> list[tuple[tuple[bytes, int, str], float]]:
    found = []
    owners = np.repeat(np.arange(len(table.device_uids)), table.row_counts)
    for metric, column in zip(table.metrics, table.values, strict=True):
        for owner, time, value in zip(
            owners.tolist(), table.time_unix_us.tolist(), column.tolist(), strict=True
        ):
            if not math.isnan(value):
                found.append(((table.device_uids[owner].tobytes(), time, metric), value))
    return found
