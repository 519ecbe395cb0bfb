"""Cases: one consumer of a group."""

# ruff: noqa: D102 (the name of a case says what it tests)

import asyncio
import contextlib

import pytest

from tidewire_kit.errors import FailedPrecondition
from tidewire_kit.log import (
    LogRecord,
    TopicSpec,
)
from tidewire_testkit.log_contract.support import (
    DEADLINE_SECONDS,
    MessageLogFactory,
    RecordingHandler,
    fresh_group,
    fresh_topic,
    poll_many,
    poll_until,
    record,
    values,
)


class ConsumerCases:
    """A consumer reads, commits, seeks and pauses."""

    async def test_a_consumer_reads_everything_in_order(self, message_log_factory: MessageLogFactory) -> None:
        writer, reader = await message_log_factory(), await message_log_factory()
        topic = fresh_topic()
        for log in (writer, reader):
            await log.ensure_topics([TopicSpec(topic, partitions=4)])
        await writer.produce(topic, [record(n % 4, b"%d" % n) for n in range(20)])
        handler = RecordingHandler()
        consumer = await reader.consume(fresh_group(), [topic], handler)
        found = await poll_many(consumer, 20)
        await writer.produce(topic, [record(n % 4, b"%d" % n) for n in range(20, 40)])
        found += await poll_many(consumer, 20)
        assert consumer.assignment == handler.owned == {(topic, p) for p in range(4)}
        for partition in range(4):
            mine = [r for r in found if r.partition == partition]
            assert [r.offset for r in mine] == list(range(10))
            assert values(mine) == [b"%d" % n for n in range(partition, 40, 4)]
            assert consumer.position(topic, partition) == 10

    async def test_poll_returns_empty_when_there_is_nothing(
        self, message_log_factory: MessageLogFactory
    ) -> None:
        log = await message_log_factory()
        topic = fresh_topic()
        await log.ensure_topics([TopicSpec(topic)])
        consumer = await log.consume(fresh_group(), [topic], RecordingHandler())
        assert await consumer.poll(0) == []
        assert await consumer.poll(0.02) == []

    async def test_poll_respects_max_bytes(self, message_log_factory: MessageLogFactory) -> None:
        log = await message_log_factory()
        topic = fresh_topic()
        await log.ensure_topics([TopicSpec(topic, partitions=2)])
        await log.produce(topic, [record(n % 2, bytes(1000)) for n in range(10)])
        consumer = await log.consume(fresh_group(), [topic], RecordingHandler())
        batches: list[list[LogRecord]] = []
        async with asyncio.timeout(DEADLINE_SECONDS):
            while sum(len(batch) for batch in batches) < 10:
                batches.append(await consumer.poll(0.1, max_bytes=1500))
        assert max(len(batch) for batch in batches) <= 2

    async def test_values_outlive_the_polls_after_them(self, message_log_factory: MessageLogFactory) -> None:
        log = await message_log_factory()
        topic = fresh_topic()
        await log.ensure_topics([TopicSpec(topic, partitions=1)])
        consumer = await log.consume(fresh_group(), [topic], RecordingHandler())
        kept = []
        for n in range(20):
            await log.produce(topic, [record(0, b"%d" % n * 1000)])
            kept += await poll_many(consumer, 1)
        await consumer.close()
        await log.close()
        assert values(kept) == [b"%d" % n * 1000 for n in range(20)]

    async def test_a_group_goes_on_where_it_committed(self, message_log_factory: MessageLogFactory) -> None:
        log = await message_log_factory()
        topic, group = fresh_topic(), fresh_group()
        await log.ensure_topics([TopicSpec(topic, partitions=2)])
        await log.produce(topic, [record(n % 2, b"%d" % n) for n in range(10)])
        consumer = await log.consume(group, [topic], RecordingHandler())
        await poll_many(consumer, 10)
        assert await log.committed(group, topic) == {}
        assert await log.lag(group, topic) == {0: 5, 1: 5}
        await consumer.commit({(topic, 0): 3})
        assert await log.committed(group, topic) == {0: 3}
        assert await log.lag(group, topic) == {0: 2, 1: 5}
        await consumer.close()

        other = await message_log_factory()
        await other.ensure_topics([TopicSpec(topic, partitions=2)])
        again = await other.consume(group, [topic], RecordingHandler())
        found = await poll_many(again, 7)
        assert values([r for r in found if r.partition == 0]) == [b"6", b"8"]
        assert len([r for r in found if r.partition == 1]) == 5

    async def test_the_handler_may_know_a_better_start(self, message_log_factory: MessageLogFactory) -> None:
        log = await message_log_factory()
        topic = fresh_topic()
        await log.ensure_topics([TopicSpec(topic, partitions=2)])
        await log.produce(topic, [record(n % 2, b"%d" % n) for n in range(10)])
        consumer = await log.consume(fresh_group(), [topic], RecordingHandler({(topic, 1): 4}))
        found = await poll_many(consumer, 6)
        assert values([r for r in found if r.partition == 1]) == [b"9"]
        assert len([r for r in found if r.partition == 0]) == 5

    async def test_groups_do_not_disturb_each_other(self, message_log_factory: MessageLogFactory) -> None:
        log = await message_log_factory()
        topic = fresh_topic()
        await log.ensure_topics([TopicSpec(topic, partitions=2)])
        await log.produce(topic, [record(n % 2, b"x") for n in range(6)])
        one = await log.consume(fresh_group(), [topic], RecordingHandler())
        two = await log.consume(fresh_group(), [topic], RecordingHandler())
        assert len(await poll_many(one, 6)) == len(await poll_many(two, 6)) == 6

    async def test_seek_goes_back_and_forth(self, message_log_factory: MessageLogFactory) -> None:
        log = await message_log_factory()
        topic = fresh_topic()
        await log.ensure_topics([TopicSpec(topic, partitions=2)])
        await log.produce(topic, [record(n % 2, b"%d" % n) for n in range(10)])
        consumer = await log.consume(fresh_group(), [topic], RecordingHandler())
        await poll_many(consumer, 10)
        consumer.seek(topic, 1, 3)
        assert values(await poll_many(consumer, 2)) == [b"7", b"9"]
        consumer.seek(topic, 0, 0)
        consumer.seek(topic, 0, 4)
        assert values(await poll_many(consumer, 1)) == [b"8"]

    async def test_an_offset_after_the_end_is_an_error(self, message_log_factory: MessageLogFactory) -> None:
        log = await message_log_factory()
        topic = fresh_topic()
        await log.ensure_topics([TopicSpec(topic, partitions=1)])
        await log.produce(topic, [record(0, b"x")])
        consumer = await log.consume(fresh_group(), [topic], RecordingHandler({(topic, 0): 7}))
        with pytest.raises(FailedPrecondition) as refused:
            await poll_many(consumer, 1)
        assert refused.value.reason == "OFFSET_AFTER_END"

    async def test_paused_partitions_stay_silent_and_owned(
        self, message_log_factory: MessageLogFactory
    ) -> None:
        log = await message_log_factory()
        topic = fresh_topic()
        await log.ensure_topics([TopicSpec(topic, partitions=2)])
        consumer = await log.consume(fresh_group(), [topic], RecordingHandler())
        await log.produce(topic, [record(p, b"before") for p in (0, 1)])
        await poll_many(consumer, 2)
        consumer.pause([(topic, 0)])
        await log.produce(topic, [record(p, b"paused") for p in (0, 1)])
        await log.produce(topic, [record(1, b"later")])
        assert [r.partition for r in await poll_many(consumer, 2)] == [1, 1]
        assert (topic, 0) in consumer.assignment
        assert consumer.position(topic, 0) == 1
        consumer.resume([(topic, 0)])
        assert [(r.partition, bytes(r.value)) for r in await poll_many(consumer, 1)] == [(0, b"paused")]

    async def test_only_the_owner_may_commit_seek_or_ask(
        self, message_log_factory: MessageLogFactory
    ) -> None:
        log = await message_log_factory()
        topic, group = fresh_topic(), fresh_group()
        await log.ensure_topics([TopicSpec(topic, partitions=2)])
        consumer = await log.consume(group, [topic], RecordingHandler())
        await consumer.poll(0)
        await poll_until(consumer, lambda _: len(consumer.assignment) == 2)
        with pytest.raises(FailedPrecondition) as refused:
            await consumer.commit({(topic, 0): 0, (topic, 9): 0})
        assert refused.value.reason == "NOT_OWNER"
        assert await log.committed(group, topic) == {}
        with pytest.raises(FailedPrecondition):
            consumer.seek(topic, 9, 0)
        await consumer.close()
        with pytest.raises(FailedPrecondition):
            await consumer.commit({(topic, 0): 0})

    async def test_a_cancelled_poll_loses_nothing(self, message_log_factory: MessageLogFactory) -> None:
        log = await message_log_factory()
        topic = fresh_topic()
        await log.ensure_topics([TopicSpec(topic, partitions=1)])
        consumer = await log.consume(fresh_group(), [topic], RecordingHandler())
        await poll_until(consumer, lambda _: len(consumer.assignment) == 1)
        payloads = [b"%d" % n * 40_000 for n in range(60)]
        await log.produce(topic, [record(0, payload) for payload in payloads])
        found: list[LogRecord] = []
        async with asyncio.timeout(DEADLINE_SECONDS):
            for turn in range(1000):
                task = asyncio.create_task(consumer.poll(5.0, max_bytes=200_000))
                for _ in range(turn % 4):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    found += await task
                if turn % 5 == 4:
                    found += await consumer.poll(1.0, max_bytes=200_000)
                if len(found) >= len(payloads):
                    break
        assert values(found) == payloads
