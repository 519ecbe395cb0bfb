import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tidewire_kit.errors import FailedPrecondition
from tidewire_platform.demo.fleet import METERS, METRICS, SLICES, UNKNOWN_METER, Fleet
from tidewire_platform.demo.state import DemoState, StateFile
from tidewire_platform.demo.stats import Stats
from tidewire_platform.demo.view import View, sparkline

UID = "0" * 31 + "1"


def test_state_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    state = DemoState(UID, keep_times=False, shift_us={"buoy": 5}, rows_done={"buoy": 7})
    file.save(state)
    assert StateFile(tmp_path).load(UID, keep_times=False) == state


def test_a_tenant_made_anew_starts_anew(tmp_path: Path) -> None:
    StateFile(tmp_path).save(DemoState(UID, keep_times=False, rows_done={"buoy": 7}))
    other = "0" * 31 + "2"
    assert StateFile(tmp_path).load(other, keep_times=True) == DemoState(other, keep_times=True)


def test_readings_are_not_imported_at_two_times(tmp_path: Path) -> None:
    StateFile(tmp_path).save(DemoState(UID, keep_times=True))
    with pytest.raises(FailedPrecondition, match="with --keep-times: add it"):
        StateFile(tmp_path).load(UID, keep_times=False)


@pytest.mark.parametrize("text", ["{", '{"format": 99}'])
def test_a_state_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    file = StateFile(tmp_path)
    (tmp_path / "demo" / "state.json").write_text(text)
    with pytest.raises(FailedPrecondition, match=r"state\.json"):
        file.load(UID, keep_times=False)


def test_the_fleet_sends_each_meter_once_a_turn_and_says_what_is_wrong_on_purpose() -> None:
    fleet = Fleet()
    turns = [fleet.next_rows() for _ in range(SLICES)]
    sent = [rows.devices[i] for rows in turns for i in rows.device_index]
    assert sorted(set(sent)) == [*METERS, UNKNOWN_METER]
    assert len(sent) == len(METERS) + 2  # the unknown one, and a second row of one whose clock is wrong
    for rows in turns:
        assert rows.values.shape == (len(METRICS), len(rows.time_unix_us)) == (5, len(rows.device_index))
        assert np.isfinite(rows.values).all()
    [first, *_] = turns
    assert first.time_unix_us[-2] - first.time_unix_us[-1] == 3_600_000_000


def test_no_two_rows_of_a_meter_have_the_same_time_at_the_pace_of_the_demo() -> None:
    fleet = Fleet()
    last: dict[str, int] = {}
    for _ in range(3 * SLICES):
        rows = fleet.next_rows()
        good = rows.time_unix_us <= rows.time_unix_us[0] + 1_000_000
        for device, time_us in zip(rows.device_index[good], rows.time_unix_us[good], strict=True):
            name = rows.devices[device]
            assert time_us != last.get(name)
            last[name] = int(time_us)


def test_visible_lag_is_the_age_of_what_is_not_yet_seen() -> None:
    stats = Stats()
    stats.acknowledged(100, {}, 0.002)
    stats.seen(99)
    assert stats.visible_lag_seconds is not None
    assert stats.visible_lag_seconds > 0
    stats.seen(100)
    assert stats.visible_lag_seconds == 0
    assert stats.ack_quantile_ms(0.5) == pytest.approx(2)


def test_sparkline_scales_to_its_greatest_value() -> None:
    assert sparkline([0, 1, 2, 4, 8]) == "▁▂▃▅█"
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "▁▁"
    assert len(sparkline(range(100), width=10)) == 10


@pytest.mark.parametrize("terminal", [True, False])
def test_the_view_shows_the_counts_on_a_terminal_and_in_plain_lines(terminal: bool) -> None:
    out = io.StringIO()
    stats = Stats()
    stats.acknowledged(12_345, {"CLOCK_SKEW": 5}, 0.001)
    view = View(Console(file=out, force_terminal=terminal, width=120), stats)
    view.stage = "replaying"
    with view.shown():
        stats.tick()
        view.refresh()
    assert "12,345" in out.getvalue()
    assert "CLOCK_SKEW 5" in out.getvalue()
    assert "replaying" in out.getvalue()
    assert ("\x1b" in out.getvalue()) is terminal
