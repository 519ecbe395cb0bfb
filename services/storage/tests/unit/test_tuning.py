"""What is learnt of a metric's values changes how many bytes a column takes, and never what is in it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tidewire_kit.ids import TenantId
from tidewire_storage.domain import columns, tuning

ROWS = 1_024
TENANT = TenantId(b"t" * 16)


@pytest.fixture(autouse=True)
def nothing_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_choices", {})


def _tenths(seed: int = 0) -> np.ndarray:
    return np.round(20 + np.random.default_rng(seed).normal(0, 1, ROWS).cumsum(), 1)


def _size(packed: columns.Packed) -> int:
    return len(packed[1])


@settings(max_examples=30)
@given(
    st.lists(
        arrays.arrays(np.int64, st.integers(1, 700), elements=st.integers(-(1 << 63), (1 << 63) - 1)),
        min_size=1,
        max_size=4,
    )
)
def test_columns_come_back_to_the_bit_whatever_was_learnt_before(bits: list[np.ndarray]) -> None:
    series = (TENANT, 1, "m")
    tuning.pack_values(series, _tenths())
    for some in bits:
        found = columns.unpack(tuning.pack_values(series, some.view(np.float64)), "<f8")
        np.testing.assert_array_equal(found.view(np.int64), some)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, -0.0, 5e-324, 1.7e308])
def test_special_numbers_among_rounded_ones_come_back_to_the_bit(special: float) -> None:
    series = (TENANT, 1, "m")
    tuning.pack_values(series, _tenths())
    column = _tenths(1)
    column[::7] = special
    found = columns.unpack(tuning.pack_values(series, column), "<f8")
    np.testing.assert_array_equal(found.view(np.int64), column.view(np.int64))


@pytest.mark.parametrize("step", [1.0, 0.1, 0.01, 0.001, 0.25, 1 / 3, np.pi])
def test_a_column_takes_hardly_more_than_when_it_is_analysed(step: float) -> None:
    for seed in range(3):
        column = np.round(_tenths(seed) / step) * step
        assert _size(tuning.pack_values((TENANT, 1, "m"), column)) <= 1.3 * _size(columns.pack_values(column))


def test_a_metric_that_changes_its_nature_is_learnt_anew() -> None:
    series = (TENANT, 1, "m")
    tuning.pack_values(series, _tenths())
    for seed in range(8):
        column = _tenths(seed) * np.pi
        best = _size(columns.pack_values(column))
        assert _size(tuning.pack_values(series, column)) <= 1.05 * best
    column = _tenths(9)
    for _ in range(8):
        last = tuning.pack_values(series, column)
    assert _size(last) <= 1.3 * _size(columns.pack_values(column))


def test_short_columns_teach_nothing() -> None:
    tuning.pack_values((TENANT, 0, "m"), np.zeros(tuning.LEAST_ROWS - 1))
    assert not tuning._choices
    tuning.pack_values((TENANT, 0, "m"), np.zeros(tuning.LEAST_ROWS))
    assert tuning._choices


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_MOST", 10)
    for number in range(25):
        tuning.pack_values((TENANT, 0, f"m{number}"), np.zeros(tuning.LEAST_ROWS))
    assert 0 < len(tuning._choices) <= 10
