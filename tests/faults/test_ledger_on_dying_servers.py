"""Acknowledged − visible is empty whatever happens to Kafka and Cassandra under the platform; nothing is there twice.

As in tests/ledger, load runs all the time and keeps its own ledger. Here the servers die and hang instead of the
platform's processes; each time everybody goes on within 20 s of the fault's end, without help.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tidewire_testkit.servers.cassandra import CassandraCluster
from tidewire_testkit.servers.cluster import Cluster
from tidewire_testkit.servers.kafka import KafkaCluster
from tidewire_testkit.whole.backend import EmbeddedBackend, OwnServersBackend, use
from tidewire_testkit.whole.load import Publisher, StreamPublisher, UnaryPublisher
from tidewire_testkit.whole.own_ledger import OwnLedger
from tidewire_testkit.whole.platform import running, until
from tidewire_testkit.whole.progress import progress
from tidewire_testkit.whole.readback import read_device, settled_ledger

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400, func_only=True)]

SUSPENDED_SECONDS = 30.0
WINDOW_SECONDS = 8.0
EXPECTED_ERRORS = ("consumer", "flush", "publish", "sweep", "commit", "owner", "housekeeping")

Progress = Callable[[], Awaitable[None]]


@pytest.fixture(autouse=True)
def embedded_afterwards() -> Iterator[None]:
    yield
    use(EmbeddedBackend())


@asynccontextmanager
async def loaded(data_dir: Path, kafka: KafkaCluster, cassandra: CassandraCluster) -> AsyncIterator[Progress]:
    """The platform under load; yields what waits for progress from now on. At the end the ledger is checked."""
    use(OwnServersBackend(kafka.environ() | cassandra.environ()))
    ledger = OwnLedger()
    environ = {"TIDEWIRE_STORAGE_DEDUP_WINDOW_SECONDS": str(int(WINDOW_SECONDS))}
    async with running(data_dir, environ=environ, expected_errors=EXPECTED_ERRORS) as up:
        access = await up.create_tenant("ledger")
        publishers: list[UnaryPublisher | StreamPublisher] = [
            kind(up, access, name, ledger, devices=4, window_seconds=WINDOW_SECONDS)
            for kind, name in ((UnaryPublisher, "unary"), (StreamPublisher, "stream"))
        ]
        devices = [device for publisher in publishers for device in publisher.all_devices()]
        await up.create_devices(access, *devices)

        async def again() -> None:
            everybody: list[Publisher] = list(publishers)
            await progress(up, access, everybody, time.monotonic())

        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for publisher in publishers:
                tasks.create_task(publisher.run(stop))
            try:
                await again()
                yield again
            finally:
                stop.set()
        settled = await until(lambda: settled_ledger(up), "the log is read and written", 60)
        assert settled.difference_readings == 0
        for device in devices:
            ledger.check_device(device, await read_device(up, access, device))
        assert not ledger.violations, "\n".join([str(dict(ledger.counts)), *ledger.violations])
        assert ledger.acknowledged_cells() > 0


async def killed(cluster: Cluster, number: int, again: Progress) -> None:
    cluster.kill(number)
    await asyncio.to_thread(cluster.restart, number)
    await again()


async def suspended(cluster: Cluster, number: int, again: Progress) -> None:
    cluster.suspend(number)
    await asyncio.sleep(SUSPENDED_SECONDS)  # the fault itself
    cluster.resume(number)
    await again()


async def test_nothing_is_lost_when_a_lone_broker_or_node_dies_or_hangs(
    tmp_path: Path, lone_of_each: tuple[KafkaCluster, CassandraCluster]
) -> None:
    kafka, cassandra = lone_of_each
    async with loaded(tmp_path / "data", kafka, cassandra) as again:
        await killed(kafka, 1, again)
        await killed(cassandra, 1, again)
        await suspended(kafka, 1, again)


async def test_work_goes_on_while_one_of_three_brokers_and_nodes_is_down(
    tmp_path: Path, three_of_each: tuple[KafkaCluster, CassandraCluster]
) -> None:
    kafka, cassandra = three_of_each
    async with loaded(tmp_path / "data", kafka, cassandra) as again:
        for cluster, number in ((kafka, 1), (cassandra, 3)):
            cluster.kill(number)
            await again()
            await killed(cluster, number, again)
