"""Brokers of Kafka die, hang and come back under load: refused or kept, never lost, never twice, on again by itself.

A lone broker that dies or hangs: log_kafka/test_broker_faults of the kit, and the whole platform in
test_ledger_on_dying_servers.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tidewire_kit import settings
from tidewire_kit.log.kafka import KafkaLog, KafkaSettings
from tidewire_kit.log.port import TopicSpec
from tidewire_testkit.faults.log_load import LogLoad
from tidewire_testkit.faults.progress import progress
from tidewire_testkit.polling import until
from tidewire_testkit.servers.kafka import KafkaCluster

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300, func_only=True)]

TOPIC = TopicSpec("tidewire.faults.v1", partitions=3)


@asynccontextmanager
async def loaded(cluster: KafkaCluster, prefix: str) -> AsyncIterator[LogLoad]:
    """A load that runs until the block ends, and is checked then."""
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


@pytest.mark.parametrize("fault", ["killed", "suspended"])
async def test_one_of_three_brokers_may_be_lost(three_brokers: KafkaCluster, fault: str) -> None:
    async with loaded(three_brokers, f"three-{fault}") as load:
        if fault == "killed":
            three_brokers.kill(1)
        else:
            three_brokers.suspend(1)
        await on_again(load)
        await some(load, 500)
        if fault == "killed":
            await asyncio.to_thread(three_brokers.restart, 1)
        else:
            three_brokers.resume(1)
        await on_again(load)
    await asyncio.to_thread(three_brokers.wait_ready)


async def test_with_two_of_three_brokers_down_nothing_is_acknowledged(three_brokers: KafkaCluster) -> None:
    async with loaded(three_brokers, "two") as load:
        three_brokers.kill(2)
        three_brokers.kill(3)
        refused = load.refused
        await until(lambda: load.refused > refused, seconds=60, message="producers are refused")
        await asyncio.to_thread(three_brokers.restart, 2, wait=False)
        await asyncio.to_thread(three_brokers.restart, 3)
        await on_again(load)
