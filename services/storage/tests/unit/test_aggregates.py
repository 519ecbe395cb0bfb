import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewire_storage.domain.aggregates import Function, merge_partials, partials_of
from tidewire_storage.domain.collapse import Part, collapse, split

ROWS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 40), st.integers(-50, 50)), min_size=1, max_size=40
)


def part(rows: list[tuple[int, int, float]], arrival: int = 0, metric: str = "m") -> Part:
    device, time, values = zip(*rows, strict=True)
    return Part(
        np.array(device, np.int32),
        np.array(time, np.int64),
        np.full(len(rows), arrival),
        {metric: np.array(values, np.float64)},
    )


@settings(deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=4), st.integers(1, 20), st.booleans())
def test_partials_of_pieces_merge_to_the_whole(
    batches: list[list[tuple[int, int, int]]], width: int, across: bool
) -> None:
    rows = collapse([part(batch, number) for number, batch in enumerate(batches)], ("m",))
    cut = len(rows) // 2
    pieces = [rows.slice(0, cut), rows.slice(cut, len(rows))]
    parts = [partials_of(piece, 0, width, 0) for piece in pieces if len(piece)]
    if across:
        parts = [part.grouped(np.zeros(3, np.int32)) for part in parts]
    merged = merge_partials(parts)
    groups: dict[tuple[int, int], list[tuple[int, float]]] = {}
    for device, time, value in zip(
        rows.device.tolist(), rows.time.tolist(), rows.values[0].tolist(), strict=True
    ):
        groups.setdefault((0 if across else device, time - time % width), []).append((time, value))
    assert list(zip(merged.device.tolist(), merged.bucket.tolist(), strict=True)) == sorted(groups)
    for row, key in enumerate(sorted(groups)):
        values = [value for _, value in groups[key]]
        found = {
            function: merged.column(function)[row] for function in Function if function.percentile is None
        }
        assert found[Function.COUNT] == len(values)
        assert (found[Function.MIN], found[Function.MAX]) == (min(values), max(values))
        assert found[Function.SUM] == pytest.approx(sum(values))
        assert found[Function.AVG] == pytest.approx(statistics.fmean(values))
        assert found[Function.STDDEV] == pytest.approx(statistics.pstdev(values), abs=1e-9)
        times = [time for time, _ in groups[key]]
        assert found[Function.FIRST] in [value for time, value in groups[key] if time == min(times)]
        assert found[Function.LAST] in [value for time, value in groups[key] if time == max(times)]


@settings(deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=5))
def test_collapsing_keeps_the_latest_arrival(batches: list[list[tuple[int, int, int]]]) -> None:
    expected: dict[tuple[int, int], float] = {}
    for batch in batches:
        for device, time, value in batch:
            expected[device, time] = float(value)
    parts = [part(sorted(batch, key=lambda row: row[:2]), number) for number, batch in enumerate(batches)]
    rows = collapse(list(reversed(parts)), ("m",))
    found = dict(
        zip(zip(rows.device.tolist(), rows.time.tolist(), strict=True), rows.values[0].tolist(), strict=True)
    )
    assert found == expected
    assert list(found) == sorted(found)


def test_columns_of_several_tables_meet_in_one_row() -> None:
    rows = collapse(
        [part([(0, 5, 1.0)], 0, "a"), part([(0, 5, 2.0), (0, 6, math.nan)], 1, "b")], ("a", "b", "c")
    )
    assert rows.time.tolist() == [5], "a row without a reading is none"
    assert [column.tolist() for column in rows.values[:2]] == [[1.0], [2.0]]
    assert np.isnan(rows.values[2]).all()


def test_rows_before_a_time() -> None:
    early, mixed, late = part([(0, 1, 1.0)]), part([(0, 4, 2.0), (0, 6, 3.0)]), part([(0, 9, 4.0)])
    before, after = split([early, mixed, late], 5)
    assert [item.time.tolist() for item in before] == [[1], [4]]
    assert [item.time.tolist() for item in after] == [[6], [9]]


def test_nothing_collapses_to_nothing() -> None:
    assert len(collapse([], ("m",))) == 0
    assert len(partials_of(collapse([], ("m",)), 0, 10, 0)) == 0
