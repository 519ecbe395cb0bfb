"""When the real readings of the demo are said to have been measured."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from tidewire_platform.demo.publishing import HELD_BACK_US, DemoPublisher
from tidewire_platform.demo.sources import BUOY, GLUCOSE, load_sources
from tidewire_platform.demo.state import DemoState, StateFile
from tidewire_platform.demo.stats import Stats

NOW_US = 1_795_000_000_000_000
SOURCES = load_sources()


def planned(tmp_path: Path, state: DemoState) -> DemoPublisher:
    """A publisher that has decided on the times, and publishes nothing."""
    access = None
    publisher = DemoPublisher(access, SOURCES, state, StateFile(tmp_path), Stats())  # type: ignore[arg-type]
    publisher.plan(now_us=NOW_US)
    return publisher


@pytest.fixture(params=[False, True], ids=["shifted", "kept"])
async def state(request: pytest.FixtureRequest) -> DemoState:
    return DemoState("0" * 32, keep_times=request.param)


def year(time_us: np.int64) -> int:
    return datetime.fromtimestamp(int(time_us) / 1e6, UTC).year


async def test_the_last_reading_is_now_unless_times_are_kept(tmp_path: Path, state: DemoState) -> None:
    publisher = planned(tmp_path, state)
    for source in SOURCES:
        times = publisher.times(source.device)
        np.testing.assert_array_equal(np.diff(times), np.diff(source.time_unix_us))
        if state.keep_times:
            np.testing.assert_array_equal(times, source.time_unix_us)
        else:
            assert times[-1] == NOW_US
    if state.keep_times:
        assert [year(publisher.times(GLUCOSE)[row]) for row in (0, -1)] == [2010, 2010]
        assert [year(publisher.times(BUOY)[row]) for row in (0, -1)] == [2016, 2017]


async def test_the_times_are_decided_once_and_a_day_is_held_back(tmp_path: Path, state: DemoState) -> None:
    first = planned(tmp_path, state)
    later = DemoPublisher(
        None,  # type: ignore[arg-type]
        SOURCES,
        StateFile(tmp_path).load(state.tenant_uid, keep_times=state.keep_times),
        StateFile(tmp_path),
        Stats(),
    )
    later.plan(now_us=NOW_US + 3_600_000_000)
    for source in SOURCES:
        times = first.times(source.device)
        np.testing.assert_array_equal(later.times(source.device), times)
        held_back = times[first.history_rows(source.device) :]
        assert 0 < len(held_back) < len(times) / 10
        assert times[-1] - held_back[0] < HELD_BACK_US
