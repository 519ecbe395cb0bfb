import contextlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewire_cli.claims import claims_of
from tidewire_cli.fleet import METRICS, Fleet
from tidewire_cli.given import parse_moment, parse_span
from tidewire_cli.looks import chart, human_bytes, human_count, human_span, human_value, sparkline, utc_text
from tidewire_client import InvalidArgument


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (9_999, "9,999"), (52_281, "52.3 k"), (1_250_000, "1.25 M"), (999_999, "1,000 k")],
)
def test_counts(number, text):
    assert human_count(number) == text


def test_other_looks():
    assert human_bytes(1536) == "1.5 KiB"
    assert human_bytes(3) == "3 B"
    assert human_span(0.44) == "0.4 s"
    assert human_span(7200) == "2 h"
    assert human_value(math.nan) == "–"
    assert human_value(3.0) == "3"
    assert human_value(9_320_801.25, 5) == "9320801"
    assert human_value(1.5e300) == "1.5e+300"
    assert utc_text(1_795_342_500_250_000) == "2026-11-22T10:15:00.25Z"
    assert utc_text(-62_135_596_800_000_000) == "0001-01-01T00:00:00Z"


@given(st.lists(st.floats(allow_nan=True, allow_infinity=False, width=32), max_size=200), st.integers(1, 80))
def test_curves_never_fail_and_keep_their_size(values, width):
    assert len(sparkline(values, width=width)) == min(len(values), width)
    lines = chart(values, width=width, height=4)
    assert len(lines) in (0, 4)
    assert all(len(line.split("┤", 1)[1]) <= width for line in lines)


def test_a_rising_line_rises():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1h30m", 5400), ("7d", 604_800), ("250ms", 0.25), ("1.5 h", 5400)]
)
def test_spans(text, seconds):
    assert parse_span(text, "--last").total_seconds() == seconds


@given(st.text(max_size=20))
def test_what_is_no_span_or_time_is_refused_by_name(text):
    for parse in (parse_span, parse_moment):
        with contextlib.suppress(InvalidArgument):  # and nothing else
            parse(text, "--option")
    with pytest.raises(InvalidArgument) as caught:
        parse_span(f"{text} parsecs", "--option")
    assert caught.value.field == "--option"


@given(st.text(max_size=60))
def test_any_token_has_claims(text):
    assert isinstance(claims_of(text).expires_at, int)


def test_a_fleet_is_the_same_for_the_same_moment():
    one, same, other = Fleet(50), Fleet(50), Fleet(50, seed=2)
    moment = 1_795_342_500_000_000
    first, second = one.at(moment), same.at(moment)
    np.testing.assert_array_equal(first.values, second.values)
    assert not np.array_equal(first.values[0], other.at(moment).values[0][: len(first.values[0])])
    assert first.values.shape == (len(METRICS), len(first.device_index))
    assert np.isfinite(first.values).all()
    assert ((first.time_unix_us >= moment) & (first.time_unix_us <= moment + 40_000)).all()


def test_a_fleet_has_days_and_its_counters_rise():
    fleet = Fleet(20, loss=0.0)
    hour = 3_600_000_000
    rows = [fleet.at(1_795_305_600_000_000 + n * hour) for n in range(24)]
    temperature = np.array([row.values[0] for row in rows])
    assert (temperature[13:17].mean(axis=0) > temperature[1:5].mean(axis=0)).mean() > 0.9
    pulses = np.array([row.values[2] for row in rows])
    assert (np.diff(pulses, axis=0) >= 0).all()
    assert set(np.array([row.values[4] for row in rows]).ravel()) == {0.0, 1.0}
