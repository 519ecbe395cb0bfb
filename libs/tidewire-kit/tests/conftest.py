"""Fixtures of the kit's tests."""

import pytest

from tidewire_testkit.clock import ManualClock
from tidewire_testkit.directory import World


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def world(clock: ManualClock) -> World:
    return World(clock)
