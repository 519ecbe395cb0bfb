"""Cases: groups of several processes, and members."""

# ruff: noqa: D102 (the name of a case says what it tests)

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from tidewire_kit.log import (
    MemberProfile,
    TopicPartition,
    TopicSpec,
)
from tidewire_testkit.log_contract.support import (
    MessageLogFactory,
    RecordingHandler,
    fresh_group,
    fresh_topic,
    poll_many,
    polling,
    record,
    values,
)
from tidewire_testkit.polling import until


class GroupCases:
    """Partitions have one owner each; processes see each other."""

    async def test_partitions_are_shared_and_handed_over(
        self, message_log_factory: MessageLogFactory
    ) -> None:
        writer, one, two = [await message_log_factory() for _ in range(3)]
        topic, group = fresh_topic(), fresh_group()
        for log in (writer, one, two):
            await log.ensure_topics([TopicSpec(topic, partitions=8)])
        first, second = RecordingHandler(), RecordingHandler()
        consumer_one = await one.consume(group, [topic], first)
        async with polling(consumer_one):
            await until(lambda: len(first.owned) == 8)
        consumer_two = await two.consume(group, [topic], second)
        async with polling(consumer_one, consumer_two) as found:
            await until(lambda: len(first.owned) == len(second.owned) == 4)
            assert not first.owned & second.owned
            await writer.produce(topic, [record(p, b"%d" % p) for p in range(8)])
            await until(lambda: len(found[0]) + len(found[1]) == 8)
            assert {(topic, r.partition) for r in found[0]} == first.owned
            assert {(topic, r.partition) for r in found[1]} == second.owned

    async def test_a_member_that_leaves_hands_over_at_once(
        self, message_log_factory: MessageLogFactory
    ) -> None:
        one, two = await message_log_factory(), await message_log_factory()
        topic, group = fresh_topic(), fresh_group()
        for log in (one, two):
            await log.ensure_topics([TopicSpec(topic, partitions=4)])
        await one.produce(topic, [record(p, b"x") for p in range(4) for _ in range(3)])
        first, second = RecordingHandler(), RecordingHandler()
        consumer_one = await one.consume(group, [topic], first)
        consumer_two = await two.consume(group, [topic], second)
        committed_at_revoke: list[int] = []

        async def commit_on_revoke(partitions: Sequence[TopicPartition]) -> None:
            await consumer_one.commit({p: consumer_one.position(*p) for p in partitions})
            committed_at_revoke.extend(p for _, p in partitions)

        first.on_revoked = commit_on_revoke
        async with polling(consumer_one, consumer_two):
            await until(lambda: len(first.owned) == len(second.owned) == 2)
            await until(lambda: all(consumer_one.position(*p) == 3 for p in first.owned))
        given_up = first.owned.copy()
        await consumer_one.close()
        assert not first.owned
        async with polling(consumer_two) as found:
            await until(lambda: len(second.owned) == 4)
            await one.produce(topic, [record(p, b"new") for p in range(4)])
            await until(lambda: len([r for r in found[0] if r.value == b"new"]) == 4)
        again = [r for r in found[0] if (topic, r.partition) in given_up and r.value != b"new"]
        assert again == [], "what was committed on revocation was read again"
        assert {p for _, p in given_up} <= set(committed_at_revoke)

    async def test_no_partition_has_two_owners_while_members_come_and_go(
        self, message_log_factory: MessageLogFactory
    ) -> None:
        logs = [await message_log_factory() for _ in range(3)]
        topic, group = fresh_topic(), fresh_group()
        for log in logs:
            await log.ensure_topics([TopicSpec(topic, partitions=6)])
        owners: dict[TopicPartition, RecordingHandler] = {}

        class Exclusive(RecordingHandler):
            async def assigned(
                self, partitions: Sequence[TopicPartition]
            ) -> Mapping[TopicPartition, int] | None:
                for partition in partitions:
                    assert owners.setdefault(partition, self) is self
                return await super().assigned(partitions)

            async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
                await asyncio.sleep(0.02)  # flushing
                for partition in partitions:
                    del owners[partition]
                await super().revoked(partitions)

        for _ in range(2):
            consumers = []
            for log in logs:
                consumers.append(await log.consume(group, [topic], Exclusive()))
                async with polling(*consumers):
                    await until(lambda: len(owners) == 6)
            async with polling(*consumers):
                await until(lambda: len(owners) == 6 and len(set(map(id, owners.values()))) == 3)
            while consumers:
                await consumers.pop(0).close()
                if consumers:
                    async with polling(*consumers):
                        await until(lambda: len(owners) == 6)
            assert not owners

    async def test_a_handler_that_fails_is_asked_again(self, message_log_factory: MessageLogFactory) -> None:
        log = await message_log_factory()
        topic = fresh_topic()
        await log.ensure_topics([TopicSpec(topic, partitions=2)])
        await log.produce(topic, [record(0, b"x")])

        class Failing(RecordingHandler):
            failures = 1

            async def assigned(
                self, partitions: Sequence[TopicPartition]
            ) -> Mapping[TopicPartition, int] | None:
                if self.failures:
                    self.failures -= 1
                    raise RuntimeError("the snapshot cannot be read")
                return await super().assigned(partitions)

        consumer = await log.consume(fresh_group(), [topic], Failing())
        with pytest.raises(RuntimeError, match="snapshot"):
            await poll_many(consumer, 1)
        assert not consumer.assignment
        assert values(await poll_many(consumer, 1)) == [b"x"]

    async def test_members_see_each_other_until_they_leave(
        self, message_log_factory: MessageLogFactory
    ) -> None:
        one, two = await message_log_factory(), await message_log_factory()
        await one.announce(MemberProfile("ingestion", {"grpc": "127.0.0.1:7002"}))
        await two.announce(MemberProfile("storage", {"grpc": "127.0.0.1:7003"}))
        await until(lambda: len(one.members()) == len(two.members()) == 2)
        (ingestion,) = two.members("ingestion")
        assert ingestion.addresses == {"grpc": "127.0.0.1:7002"}
        assert ingestion.pid > 0
        await one.announce(MemberProfile("ingestion", {"grpc": "127.0.0.1:9"}))
        await until(lambda: [m.addresses for m in two.members("ingestion")] == [{"grpc": "127.0.0.1:9"}])
        await one.close()
        await until(lambda: two.members("ingestion") == [])
        assert len(two.members("storage")) == 1
