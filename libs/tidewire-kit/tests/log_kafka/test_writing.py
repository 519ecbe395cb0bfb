"""What may wait is bounded, retention does not overtake readers, members come and go."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from confluent_kafka.admin import AdminClient
from prometheus_client import CollectorRegistry

from tidewire_kit.errors import InvalidArgument, Unavailable
from tidewire_kit.log import LogFull, MemberProfile, Outgoing, TopicSpec
from tidewire_kit.log.kafka import KafkaLog, KafkaSettings, members
from tidewire_testkit.log_contract import RecordingHandler
from tidewire_testkit.polling import until

pytestmark = pytest.mark.servers

MakeLog = Callable[..., Awaitable[KafkaLog]]
TOPIC = "writing.v1"


def record(size: int, partition: int = 0) -> Outgoing:
    return Outgoing(partition, b"", [bytes(size)])


async def test_a_full_queue_refuses_whole_calls_and_takes_them_later(message_log_factory: MakeLog) -> None:
    log = await message_log_factory(queue_bytes=2 << 20)
    await log.ensure_topics([TopicSpec(TOPIC, partitions=2)])
    calls = [asyncio.create_task(log.produce(TOPIC, [record(400_000), record(400_000, 1)])) for _ in range(8)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, LogFull)]
    taken = [outcome for outcome in outcomes if isinstance(outcome, list)]
    assert len(refused) + len(taken) == 8
    assert refused
    assert refused[0].retry_delay_seconds == 1.0
    assert "TIDEWIRE_KAFKA_QUEUE_BYTES" in refused[0].message
    assert await log.end_offsets(TOPIC) == [len(taken)] * 2, "of a refused call nothing is in the log"
    await log.produce(TOPIC, [record(400_000)])
    await log.produce(TOPIC, [record(900_000, n % 2) for n in range(4)])  # larger than the queue, alone in it


async def test_a_table_item_too_large_is_refused_with_all_of_its_call(message_log_factory: MakeLog) -> None:
    log = await message_log_factory()
    await log.ensure_topics([TopicSpec("table.v1", compacted=True)])
    with pytest.raises(InvalidArgument):
        await log.put("table.v1", [(b"a", b"1"), (b"b", bytes(1_000_001))])
    assert await log._admin.end_offsets(log._compacted("table.v1").name, [0]) == {0: 0}


async def test_what_the_brokers_do_not_acknowledge_in_time_is_unknown(
    kafka_settings: KafkaSettings, message_log_factory: MakeLog
) -> None:
    log = await message_log_factory(delivery_timeout_ms=1500)
    await log.ensure_topics([TopicSpec(TOPIC, partitions=1)])
    admin = AdminClient({"bootstrap.servers": kafka_settings.bootstrap_servers})
    name = kafka_settings.topic_prefix + TOPIC
    admin.delete_topics([name])[name].result()
    with pytest.raises(Unavailable, match="unknown whether it was written"):
        await log.produce(TOPIC, [record(10)])


async def test_a_held_topic_refuses_while_its_group_lags(message_log_factory: MakeLog) -> None:
    log = await message_log_factory()
    spec = TopicSpec(TOPIC, partitions=2, retention_seconds=3600, held_for=("tidewire.storage",))
    await log.ensure_topics([spec])
    await log.produce(TOPIC, [record(10), record(10, 1)])
    await log._backlog.look()
    await log.produce(TOPIC, [record(10)])  # young enough

    # The same topic with a retention so short that its records are due at once; the brokers keep them.
    log._backlog.hold(replace(log._backlog._held[log._stream(TOPIC).name], retention_seconds=0.001))
    await until(lambda: _full(log))
    with pytest.raises(LogFull, match=r"group .*tidewire\.storage has not committed") as refused:
        await log.produce(TOPIC, [record(10)])
    assert refused.value.reason == "LOG_FULL"
    assert refused.value.retry_delay_seconds

    storage = await message_log_factory()
    await storage.ensure_topics([spec])
    consumer = await storage.consume("tidewire.storage", [TOPIC], RecordingHandler())
    read = 0
    async with asyncio.timeout(20):
        while read < 3:
            read += len(await consumer.poll(0.1))
    await consumer.commit({(TOPIC, 0): 2})
    await log._backlog.look()
    assert await _full(log), "one partition is behind still"
    await consumer.commit({(TOPIC, 1): 1})
    await log._backlog.look()
    await log.produce(TOPIC, [record(10)])


async def _full(log: KafkaLog) -> bool:
    await log._backlog.look()
    try:
        log._backlog.check(log._stream(TOPIC).name)
    except LogFull:
        return True
    return False


async def test_a_member_that_falls_silent_is_gone_after_a_while(message_log_factory: MakeLog) -> None:
    one, two = await message_log_factory(), await message_log_factory()
    await one.announce(MemberProfile("ingestion"))
    await two.announce(MemberProfile("storage"))
    await until(lambda: len(one.members()) == len(two.members()) == 2)
    for task in two._membership._tasks:  # as if it had been killed
        task.cancel()
    await until(lambda: one.members("storage") == [], seconds=members.GONE_SECONDS + 10)
    assert len(one.members("ingestion")) == 1


async def test_nobody_expires_while_the_topic_stands_still(message_log_factory: MakeLog) -> None:
    one, two = await message_log_factory(), await message_log_factory()
    await one.announce(MemberProfile("ingestion"))
    await two.announce(MemberProfile("storage"))
    await until(lambda: len(one.members()) == 2)
    membership = one._membership
    membership._moved(membership._moved_at + 30)  # nothing came for 30 s, then the first heartbeat
    assert len(one.members()) == 2


async def test_statistics_become_metrics(kafka_settings: KafkaSettings) -> None:
    registry = CollectorRegistry()
    log = KafkaLog(replace(kafka_settings, statistics_seconds=0.2), registry=registry)
    await log.start()
    try:
        await log.ensure_topics([TopicSpec(TOPIC, partitions=1)])
        consumer = await log.consume("tidewire.storage", [TOPIC], RecordingHandler())

        async def lag_is_shown() -> bool:
            await log.produce(TOPIC, [record(10)])
            await consumer.poll(0.1)
            labels = {"group": "tidewire.storage", "topic": TOPIC, "partition": "0"}
            return registry.get_sample_value("tidewire_kafka_consumer_lag_records", labels) is not None

        await until(lag_is_shown, seconds=20)
        found = {
            sample.labels["client"]
            for metric in registry.collect()
            for sample in metric.samples
            if sample.name == "tidewire_kafka_broker_connected" and sample.value == 1
        }
        assert found == {"producer", "tidewire.storage"}
        assert registry.get_sample_value("tidewire_kafka_queued_records", {"client": "producer"}) is not None
    finally:
        await log.close()
