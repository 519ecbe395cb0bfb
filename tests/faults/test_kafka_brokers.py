"""Brokers of Kafka die, hang and come back under load: refused or kept, never lost, never twice, on again by itself."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tidewire_kit import settings
from tidewire_kit.log.kafka import KafkaLog, KafkaSettings
from tidewire_kit.log.port import TopicSpec
from tidewire_testkit.faults.log_load import LogLoad
from tidewire_testkit.faults.progress import progress
from tidewire_testkit.polling import until
from tidewire_testkit.servers.kafka import QUICK_FAILOVER, KafkaCluster

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

SUSPENDED_SECONDS = 30.0
TOPIC = TopicSpec("tidewire.faults.v1", partitions=3)


@pytest.fixture(scope="module")
def lone() -> Iterator[KafkaCluster]:
    with KafkaCluster(settings=QUICK_FAILOVER) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def three() -> Iterator[KafkaCluster]:
    with KafkaCluster(3, settings=QUICK_FAILOVER) as cluster:
        yield cluster


@asynccontextmanager
async def loaded(cluster: KafkaCluster, prefix: str) -> AsyncIterator[LogLoad]:
    """A load that runs until the block ends, and is checked then."""
    for number in cluster.numbers:  # a test that failed may have left them down
        cluster.resume(number)
    await asyncio.to_thread(cluster.start)
    environ = cluster.environ() | {"TIDEWIRE_KAFKA_TOPIC_PREFIX": f"{prefix}."}
    log = KafkaLog(settings.load(KafkaSettings, environ))
    await log.start()
    try:
        await log.ensure_topics([TOPIC])
        load = LogLoad(log, TOPIC.name)
        async with load.running():
            await some(load, 300)
            yield load
            await some(load, 300)
        await load.check()
    finally:
        await log.close()


async def some(load: LogLoad, records: int) -> None:
    """Waits until so many more records are acknowledged."""
    wanted = len(load.acknowledged) + records
    await until(lambda: len(load.acknowledged) >= wanted, seconds=60, message=f"{records} records more")


async def on_again(load: LogLoad) -> None:
    """Waits until both ends of the log go on."""
    await asyncio.gather(
        progress(lambda: load.last_begun, "producing"),
        progress(lambda: load.last_delivered_begun, "consuming"),
    )


async def test_a_lone_broker_that_is_killed_has_lost_nothing(lone: KafkaCluster) -> None:
    async with loaded(lone, "killed") as load:
        for _ in range(2):
            lone.kill()
            await asyncio.to_thread(lone.restart)
            await on_again(load)
            await some(load, 300)


async def test_a_lone_broker_that_hangs_for_half_a_minute_has_lost_nothing(lone: KafkaCluster) -> None:
    async with loaded(lone, "suspended") as load:
        lone.suspend()
        before = len(load.acknowledged)
        await asyncio.sleep(SUSPENDED_SECONDS)  # the fault itself, not a wait for something
        assert len(load.acknowledged) <= before + 100, "acknowledged by nobody"
        lone.resume()
        await on_again(load)


@pytest.mark.parametrize("fault", ["killed", "suspended"])
async def test_one_of_three_brokers_may_be_lost(three: KafkaCluster, fault: str) -> None:
    async with loaded(three, f"three-{fault}") as load:
        if fault == "killed":
            three.kill(1)
        else:
            three.suspend(1)
        await on_again(load)
        await some(load, 500)
        if fault == "killed":
            await asyncio.to_thread(three.restart, 1)
        else:
            three.resume(1)
        await on_again(load)
    await asyncio.to_thread(three.wait_ready)


async def test_with_two_of_three_brokers_down_nothing_is_acknowledged(three: KafkaCluster) -> None:
    async with loaded(three, "two") as load:
        three.kill(2)
        three.kill(3)
        refused = load.refused
        await until(lambda: load.refused > refused, seconds=60, message="producers are refused")
        await asyncio.to_thread(three.restart, 2, wait=False)
        await asyncio.to_thread(three.restart, 3)
        await on_again(load)
