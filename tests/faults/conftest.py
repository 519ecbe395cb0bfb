"""The servers that these tests kill: three nodes of each for those that need them, then one of each.

Tests of one shape run one after the other, so that the servers of `fault_servers` are started once per shape.
"""

from pathlib import Path

import pytest

from tidewire_testkit.servers.cassandra import CassandraCluster
from tidewire_testkit.servers.kafka import KafkaCluster
from tidewire_testkit.servers.shared import FaultServers

_SHAPES = ("three_nodes", "three_of_each", "three_brokers", "lone_of_each", "lone_node")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts the tests of this directory by the servers they need; those with servers of their own come last."""
    places = [n for n, item in enumerate(items) if item.path.parent == Path(__file__).parent]
    ours = sorted((items[n] for n in places), key=_shape)
    for n, item in zip(places, ours, strict=True):
        items[n] = item


def _shape(item: pytest.Item) -> int:
    names = getattr(item, "fixturenames", ())
    return next((n for n, shape in enumerate(_SHAPES) if shape in names), len(_SHAPES))


@pytest.fixture
def three_nodes(fault_servers: FaultServers) -> CassandraCluster:
    return fault_servers.cassandra(3)


@pytest.fixture
def three_brokers(fault_servers: FaultServers) -> KafkaCluster:
    return fault_servers.kafka(3)


@pytest.fixture
def three_of_each(fault_servers: FaultServers) -> tuple[KafkaCluster, CassandraCluster]:
    return fault_servers.both(3)


@pytest.fixture
def lone_node(fault_servers: FaultServers) -> CassandraCluster:
    return fault_servers.cassandra(1)


@pytest.fixture
def lone_of_each(fault_servers: FaultServers) -> tuple[KafkaCluster, CassandraCluster]:
    return fault_servers.both(1)
