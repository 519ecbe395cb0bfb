"""The fixtures with which a test marked `servers` reaches a real Kafka, a real Cassandra and a real S3 server.

Loaded for every test run by `-p` in pyproject.toml, so tests only name them. `make test-servers` starts the servers
once for all workers and says where by TIDEWIRE_TEST_KAFKA and TIDEWIRE_TEST_CASSANDRA; so does who has servers running
already. Without these variables the fixtures start servers of their own, and a test fails when that cannot be done.

Tests share the servers: they use topic prefixes, groups and keyspaces of their own.
"""

import os
import sys
from collections.abc import Generator, Iterator
from typing import Any

import pytest

KAFKA_VARIABLE = "TIDEWIRE_TEST_KAFKA"
CASSANDRA_VARIABLE = "TIDEWIRE_TEST_CASSANDRA"

_VARIABLES = {
    "kafka_servers": KAFKA_VARIABLE,
    "cassandra_contact_points": CASSANDRA_VARIABLE,
    "s3_server": "",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Does not count the start of servers as a test's time: a first start may have to install them."""
    for item in items:
        names = getattr(item, "fixturenames", ())
        started = [
            name for name, variable in _VARIABLES.items() if name in names and variable not in os.environ
        ]
        if started and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(float(item.config.getini("timeout")), func_only=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keeps the logs of this process's servers when a test fails, and says where."""
    report = yield
    clusters = sys.modules.get("tidewire_testkit.servers.cluster")  # not loaded: nothing was started
    if report.failed and clusters is not None:
        for cluster in clusters.OPEN:
            report.sections.append((f"logs of {cluster.NAME}", str(cluster.keep_logs())))
    return report


@pytest.fixture(scope="session")
def kafka_servers() -> Iterator[str]:
    """Bootstrap servers (host:port, comma separated) of a running Kafka: plain, one broker, no topic made by itself."""
    if given := os.environ.get(KAFKA_VARIABLE):
        yield given
        return
    from tidewire_testkit.servers.kafka import KafkaCluster  # loads a driver that most test runs do not need

    with KafkaCluster(lasting=False) as cluster:
        yield cluster.bootstrap_servers


@pytest.fixture(scope="session")
def cassandra_contact_points() -> Iterator[str]:
    """Contact points (host:port, comma separated) of a running Cassandra: plain, one node, no authentication."""
    if given := os.environ.get(CASSANDRA_VARIABLE):
        yield given
        return
    from tidewire_testkit.servers.cassandra import CassandraCluster

    with CassandraCluster(lasting=False) as cluster:
        yield cluster.contact_points


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Any]:
    """An `S3Server` of `s3`, started for this process; it takes a third of a second. Use buckets of your own."""
    from tidewire_testkit.servers.s3 import S3Server

    with S3Server() as server:
        yield server


@pytest.fixture(scope="session")
def fault_servers() -> Iterator[Any]:
    """`FaultServers` of `shared`: clusters to kill, one or three nodes each."""
    from tidewire_testkit.servers.shared import FaultServers

    servers = FaultServers()
    yield servers
    servers.close()
