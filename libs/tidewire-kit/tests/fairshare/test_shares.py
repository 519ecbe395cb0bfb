"""Properties of the division of a quota, for any demand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tidewire_kit.fairshare import FLOOR, average, divide

amounts = st.one_of(st.just(0.0), st.floats(1e-30, 1e9))


@st.composite
def demands(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """(demand, quota, members)."""
    processes, keys = draw(st.integers(1, 8)), draw(st.integers(1, 3))
    cells = draw(st.lists(amounts, min_size=processes * keys, max_size=processes * keys))
    quota = draw(st.lists(st.floats(1, 1e8), min_size=keys, max_size=keys))
    members = processes + draw(st.integers(0, 4))
    return np.array(cells).reshape(processes, keys), np.array(quota), members


@given(demands())
def test_every_part_is_at_least_the_floor_and_all_parts_exceed_the_quota_by_a_quarter_at_most(
    given: object,
) -> None:
    demand, quota, members = given  # type: ignore[misc]
    parts = divide(demand, quota, members)
    assert (parts >= FLOOR / members * (1 - 1e-9)).all()
    assert (parts <= 1).all()
    silent = (members - len(demand)) * FLOOR / members
    wanted = demand.sum(axis=0) > 0
    assert (parts.sum(axis=0)[wanted] + silent <= 1 + FLOOR + 1e-9).all()
    assert parts[:, ~wanted] == pytest.approx(1 / members)


@given(demands())
def test_what_passes_is_at_most_the_quota_and_nobody_is_refused_within_it(given: object) -> None:
    demand, quota, members = given  # type: ignore[misc]
    passed = np.minimum(demand, divide(demand, quota, members) * quota)
    assert (passed.sum(axis=0) <= quota * (1 + 1e-9)).all()
    within = demand.sum(axis=0) <= quota
    assert passed[:, within] == pytest.approx(demand[:, within])


@given(demands())
def test_who_asks_for_more_gets_no_less(given: object) -> None:
    demand, quota, members = given  # type: ignore[misc]
    parts = divide(demand, quota, members)
    for key in range(len(quota)):
        order = np.argsort(demand[:, key], kind="stable")
        assert (np.diff(parts[order, key]) >= -1e-9).all()


def test_a_publisher_on_one_process_gets_all_of_it() -> None:
    assert divide(np.array([[5.0], [0.0], [0.0]]), np.array([100.0]), 3)[:, 0] == pytest.approx(
        [1, 1 / 12, 1 / 12]
    )


def test_demand_above_the_quota_is_cut_in_proportion_and_the_least_part_comes_off_the_others() -> None:
    parts = divide(np.array([[900.0], [300.0], [1.0]]), np.array([120.0]), 3)[:, 0]
    assert parts[2] == pytest.approx(1 / 12)
    assert parts[:2] * 120 == pytest.approx([119 * 0.75, 119 * 0.25])


def test_an_average_follows_steady_demand_and_does_not_depend_on_the_steps() -> None:
    rate = fine = 0.0
    for _ in range(10):
        rate = average(rate, 300.0, 1.0)
    for _ in range(40):
        fine = average(fine, 75.0, 0.25)
    assert rate == pytest.approx(300 * (1 - math.exp(-5)))
    assert fine == pytest.approx(rate)
    assert average(7.0, 0.0, 0.0) == 7.0
