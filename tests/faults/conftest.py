"""The servers that these tests kill: three nodes of each for those that need them, then one of each.

Tests of one shape run one after the other, so that the servers of `fault_servers` are started once per shape.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tidewire_testkit.servers.shared import FaultServers

_SHAPES: Mapping[str, Callable[[FaultServers], object]] = {
    "three_nodes": lambda servers: servers.cassandra(3),
    "three_of_each": lambda servers: servers.both(3),
    "three_brokers": lambda servers: servers.kafka(3),
    "lone_of_each": lambda servers: servers.both(1),
    "lone_node": lambda servers: servers.cassandra(1),
}
"""Fixture → what it asks for, in the order in which the tests run."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts the tests of this directory by the servers they need; those with servers of their own come last."""
    places = [n for n, item in enumerate(items) if item.path.parent == Path(__file__).parent]
    ours = sorted((items[n] for n in places), key=_place_of)
    for n, item in zip(places, ours, strict=True):
        items[n] = item


def _place_of(item: pytest.Item) -> int:
    names = getattr(item, "fixturenames", ())
    return next((n for n, shape in enumerate(_SHAPES) if shape in names), len(_SHAPES))


def _fixture(shape: str) -> Any:
    @pytest.fixture(name=shape)
    def servers(fault_servers: FaultServers) -> object:
        return _SHAPES[shape](fault_servers)

    return servers


three_nodes, three_of_each, three_brokers, lone_of_each, lone_node = map(_fixture, _SHAPES)
