"""Commits are spaced out only while the processor is the limit."""

import pytest

from tidewire_kit.telemetry.pace import Pace


class Load:
    """Two clocks; `run` moves them with a share of work."""

    def __init__(self) -> None:
        self.cpu, self.wall = 0.0, 0.0

    def run(self, pace: Pace, seconds: float, share: float) -> float:
        spacing = 0.0
        for _ in range(round(seconds / 0.002)):
            self.wall += 0.002
            self.cpu += 0.002 * share
            spacing = pace.spacing()
        return spacing


def test_spacing_follows_the_load() -> None:
    load = Load()
    pace = Pace(0.01, cpu_seconds=lambda: load.cpu, wall_seconds=lambda: load.wall)
    assert pace.spacing() == 0
    assert load.run(pace, 1, 0.3) == 0
    assert load.run(pace, 1, 1.0) == pytest.approx(0.01)
    between = load.run(pace, 1, 0.6)
    assert 0.002 < between < 0.008
    assert load.run(pace, 1, 0.1) == 0


def test_a_burst_after_a_long_rest_is_not_spaced() -> None:
    load = Load()
    pace = Pace(0.01, cpu_seconds=lambda: load.cpu, wall_seconds=lambda: load.wall)
    load.run(pace, 1, 1.0)
    load.wall += 60
    assert pace.spacing() == 0
