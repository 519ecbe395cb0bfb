"""Percentiles are those of NumPy over the same values, however the values come."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewire_storage.domain.aggregates import partials_of
from tidewire_storage.domain.collapse import Collapsed
from tidewire_storage.domain.percentiles import Samples

PERCENTILES = [0.0, 50.0, 95.0, 99.0, 100.0]
VALUES = st.one_of(st.integers(-50, 50).map(float), st.floats(-1e150, 1e150))
ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), VALUES), min_size=1, max_size=60)


def item(rows: list[tuple[int, int, float]]) -> Collapsed:
    """Rows as an item of a sweep: by device and time."""
    device, time, value = zip(*sorted(rows), strict=True)
    return Collapsed(("m",), np.array(device, np.int32), np.array(time), [np.array(value)])


@settings(deadline=None)
@given(
    ROWS,
    st.integers(1, 20),
    st.lists(st.integers(0, 41), max_size=4),
    st.lists(st.integers(0, 2), min_size=4, max_size=4),
)
def test_percentiles_are_those_of_numpy(
    rows: list[tuple[int, int, float]], width: int, cuts: list[int], groups: list[int]
) -> None:
    samples = Samples(PERCENTILES)
    group_of = np.array(groups, np.int32)
    edges = [0, *sorted(cuts), 50]
    for begin, end in pairwise(edges):
        some = [row for row in rows if begin <= row[1] < end]
        if some:
            part = item(some)
            runs = partials_of(part, 0, width, 0)
            runs.device = group_of[runs.device]
            samples.add(runs, part.values[0])
        samples.settle(end - end % width)
    samples.settle()
    assert samples.held == 0
    expected: dict[tuple[int, int], list[float]] = {}
    for device, time, value in rows:
        expected.setdefault((groups[device], time - time % width), []).append(value)
    found = np.array(samples.columns())
    assert found.shape == (len(PERCENTILES), len(expected))
    for place, key in enumerate(sorted(expected)):
        values = np.array(expected[key])
        assert found[:, place] == pytest.approx(np.percentile(values, PERCENTILES), rel=1e-12, abs=1e-300)
        assert (np.diff(found[:, place]) >= 0).all()
        assert (found[0, place], found[-1, place]) == (values.min(), values.max())


def test_what_is_complete_is_let_go() -> None:
    samples = Samples([50.0])
    for start in range(0, 1_000, 10):
        part = item([(0, start + step, float(step)) for step in range(10)])
        samples.add(partials_of(part, 0, 20, 0), part.values[0])
        samples.settle(start - start % 20)
        assert samples.held <= 20
    samples.settle()
    (column,) = samples.columns()
    assert column.tolist() == [4.5] * 50


def test_the_ends_of_the_doubles() -> None:
    samples = Samples([25.0, 50.0, 75.0])
    part = item([(0, 0, -1.7e308), (0, 1, 1.7e308)])
    with np.errstate(over="ignore", invalid="ignore"):
        samples.add(partials_of(part, 0, 20, 0), part.values[0])
    samples.settle()
    assert [column[0] for column in samples.columns()] == pytest.approx([-0.85e308, 0.0, 0.85e308])


def test_nothing_has_no_percentiles() -> None:
    samples = Samples([50.0, 99.0])
    samples.settle()
    assert [column.tolist() for column in samples.columns()] == [[], []]
