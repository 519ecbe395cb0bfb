"""Commits are spaced out as far as requests gain by it: not when few come, further apart while the loop is busy."""

import pytest

from tidewire_kit.telemetry.pace import Pace

CALM, LONGEST = 0.002, 0.010


class Load:
    """Two clocks, and a pace that looks at them; `run` moves them with traffic and a share of work."""

    def __init__(self) -> None:
        self.cpu, self.wall = 0.0, 0.0
        self.pace = Pace(CALM, LONGEST, cpu_seconds=lambda: self.cpu, wall_seconds=lambda: self.wall)

    def run(self, *, rate: float, share: float, seconds: float = 1, late: float = 0) -> float:
        """The spacing after `seconds` of `rate` requests a second, with a commit every 2 ms."""
        spacing = 0.0
        for _ in range(round(seconds / 0.002)):
            self.wall += 0.002
            self.cpu += 0.002 * share
            spacing = self.pace.spacing(round(rate * 0.002), late)
        return spacing


def test_few_requests_do_not_wait() -> None:
    assert Load().run(rate=500, share=0.3) == 0
    assert Load().run(rate=500, share=1.0) == 0


def test_many_wait_for_each_other_a_little_and_longer_while_the_loop_is_busy() -> None:
    load = Load()
    assert load.run(rate=1500, share=0.3) == pytest.approx(CALM)
    assert load.run(rate=1500, share=1.0) == pytest.approx(LONGEST)
    assert CALM < load.run(rate=1500, share=0.52) < LONGEST
    assert load.run(rate=1500, share=0.1) == pytest.approx(CALM)


def test_a_loop_that_others_keep_from_working_is_busy() -> None:
    assert Load().run(rate=1500, share=0.2, late=0.006) == pytest.approx(LONGEST)


def test_nobody_waits_for_more_than_enough() -> None:
    assert Load().run(rate=32_000, share=1.0) == pytest.approx(0.0005)


def test_a_request_after_a_long_rest_is_not_held_up() -> None:
    load = Load()
    load.run(rate=1500, share=1.0)
    load.wall += 60
    assert load.pace.spacing(1, 0) == 0
