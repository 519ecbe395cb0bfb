"""Cases: topics, producing, reading without a group."""

# ruff: noqa: D102 (the name of a case says what it tests)

import asyncio

import pytest

from tidewire_kit.errors import FailedPrecondition, InvalidArgument, NotFound
from tidewire_kit.log import (
    MAX_RECORD_BYTES,
    Buffer,
    MessageLog,
    Outgoing,
    TopicSpec,
)
from tidewire_testkit.log_contract.support import (
    MessageLogFactory,
    fresh_topic,
    record,
    values,
)


class StreamCases:
    """Topics are created, take records and give them back."""

    partitions_setting = "TIDEWIRE_PARTITIONS"
    """What the refusal of another partition count names."""

    async def test_topics_are_created_once_and_keep_their_partitions(
        self, message_log_factory: MessageLogFactory
    ) -> None:
        one, two = await message_log_factory(), await message_log_factory()
        topic = fresh_topic()
        await asyncio.gather(*(log.ensure_topics([TopicSpec(topic, partitions=5)]) for log in (one, two)))
        assert one.partitions(topic) == two.partitions(topic) == 5
        assert one.incarnation(topic) == two.incarnation(topic)
        assert len(one.incarnation(topic)) == 16

    async def test_another_partition_count_is_refused_with_the_remedy(
        self, message_log_factory: MessageLogFactory
    ) -> None:
        log = await message_log_factory()
        topic, other = fresh_topic(), fresh_topic()
        await log.ensure_topics([TopicSpec(topic, partitions=5)])
        with pytest.raises(FailedPrecondition, match="has 5 partitions, 6 are asked for") as refused:
            await log.ensure_topics([TopicSpec(other), TopicSpec(topic, partitions=6)])
        assert refused.value.reason == "TOPIC_MISMATCH"
        assert f"{self.partitions_setting}=5" in refused.value.message
        with pytest.raises(NotFound):
            log.partitions(other)

    async def test_another_kind_is_refused(self, message_log_factory: MessageLogFactory) -> None:
        log = await message_log_factory()
        topic = fresh_topic()
        await log.ensure_topics([TopicSpec(topic, compacted=True)])
        with pytest.raises(FailedPrecondition) as refused:
            await log.ensure_topics([TopicSpec(topic, partitions=1)])
        assert refused.value.reason == "TOPIC_MISMATCH"

    async def test_topics_have_different_incarnations(self, message_log_factory: MessageLogFactory) -> None:
        log = await message_log_factory()
        topics = [fresh_topic(), fresh_topic()]
        await log.ensure_topics([TopicSpec(topic) for topic in topics])
        assert log.incarnation(topics[0]) != log.incarnation(topics[1])

    async def test_an_unknown_topic_is_not_found(self, message_log_factory: MessageLogFactory) -> None:
        log = await message_log_factory()
        with pytest.raises(NotFound):
            await log.produce("contract.nowhere.v1", [record(0, b"x")])
        with pytest.raises(NotFound):
            log.table("contract.nowhere.v1")

    async def test_a_bad_topic_name_is_refused(self, message_log_factory: MessageLogFactory) -> None:
        log = await message_log_factory()
        with pytest.raises(InvalidArgument, match="topic"):
            await log.ensure_topics([TopicSpec("../outside")])

    async def test_offsets_are_dense_per_partition(self, message_log_factory: MessageLogFactory) -> None:
        log = await message_log_factory()
        topic = fresh_topic()
        await log.ensure_topics([TopicSpec(topic, partitions=3)])
        assert await log.produce(topic, [record(p, b"x") for p in (0, 2, 0, 1, 2, 0)]) == [0, 0, 1, 0, 1, 2]
        assert await log.produce(topic, [record(p, b"x") for p in (1, 0)]) == [1, 3]
        assert await log.produce(topic, []) == []
        assert await log.end_offsets(topic) == [4, 2, 2]
        assert await log.begin_offsets(topic) == [0, 0, 0]

    async def test_a_record_comes_back_as_it_was(self, message_log_factory: MessageLogFactory) -> None:
        log = await message_log_factory()
        topic = fresh_topic()
        await log.ensure_topics([TopicSpec(topic, partitions=2)])
        pieces: list[Buffer] = [b"one", bytearray(b"two"), memoryview(b"-three-")[1:-1], b""]
        await log.produce(topic, [Outgoing(1, b"\x00key\xff", pieces, {"trace": b"\x01\x02", "ü": b""})])
        await log.produce(topic, [Outgoing(1, b"", [])])
        first, second = await log.read(topic, 1, 0)
        assert (first.topic, first.partition, first.offset) == (topic, 1, 0)
        assert bytes(first.value) == b"onetwothree"
        assert first.key == b"\x00key\xff"
        assert dict(first.headers) == {"trace": b"\x01\x02", "ü": b""}
        assert (bytes(second.value), second.key, dict(second.headers)) == (b"", b"", {})
        assert 0 < first.appended_at_us <= second.appended_at_us

    async def test_records_of_any_size_up_to_the_limit(self, message_log_factory: MessageLogFactory) -> None:
        log = await message_log_factory()
        topic = fresh_topic()
        await log.ensure_topics([TopicSpec(topic, partitions=1)])
        sizes = [0, 1, 7, 8, 9, 4095, 4096, 65_537, MAX_RECORD_BYTES - 1000]
        payloads = [bytes([size % 251]) * size for size in sizes]
        await log.produce(topic, [record(0, payload) for payload in payloads])
        assert values(await log.read(topic, 0, 0, max_bytes=1 << 30)) == payloads

    async def test_a_record_too_large_or_for_no_partition_is_refused_with_all_of_its_call(
        self, message_log_factory: MessageLogFactory
    ) -> None:
        log = await message_log_factory()
        topic = fresh_topic()
        await log.ensure_topics([TopicSpec(topic, partitions=2)])
        with pytest.raises(InvalidArgument, match=r"records\[1\]\.value"):
            await log.produce(topic, [record(0, b"x"), record(0, bytes(MAX_RECORD_BYTES + 1))])
        with pytest.raises(InvalidArgument, match=r"records\[1\]\.partition"):
            await log.produce(topic, [record(0, b"x"), record(2, b"x")])
        assert await log.end_offsets(topic) == [0, 0]

    async def test_reading_stops_at_the_limit_but_returns_one(
        self, message_log_factory: MessageLogFactory
    ) -> None:
        log = await message_log_factory()
        topic = fresh_topic()
        await log.ensure_topics([TopicSpec(topic, partitions=1)])
        await log.produce(topic, [record(0, bytes(1000)) for _ in range(5)])
        assert len(await log.read(topic, 0, 0, max_bytes=1)) == 1
        assert len(await log.read(topic, 0, 0, max_bytes=2500)) in (2, 3)
        assert [r.offset for r in await log.read(topic, 0, 3)] == [3, 4]
        assert await log.read(topic, 0, 5) == []

    async def test_concurrent_calls_keep_their_order(self, message_log_factory: MessageLogFactory) -> None:
        log = await message_log_factory()
        topic = fresh_topic()
        await log.ensure_topics([TopicSpec(topic, partitions=4)])
        calls = [
            asyncio.create_task(log.produce(topic, [record(n % 4, b"%d" % n), record(n % 4, b"%d+" % n)]))
            for n in range(200)
        ]
        for n, offsets in enumerate(await asyncio.gather(*calls)):
            assert offsets == [n // 4 * 2, n // 4 * 2 + 1]

    async def test_several_processes_write_one_sequence(self, message_log_factory: MessageLogFactory) -> None:
        logs = [await message_log_factory() for _ in range(3)]
        topic = fresh_topic()
        for log in logs:
            await log.ensure_topics([TopicSpec(topic, partitions=2)])

        async def write(log: MessageLog, name: bytes) -> dict[int, bytes]:
            written = {}
            for n in range(30):
                value = b"%s-%d" % (name, n)
                (offset,) = await log.produce(topic, [record(0, value)])
                written[offset] = value
            return written

        written: dict[int, bytes] = {}
        for part in await asyncio.gather(*(write(log, b"%d" % n) for n, log in enumerate(logs))):
            assert not written.keys() & part.keys()
            written |= part
        found = await logs[0].read(topic, 0, 0)
        assert [r.offset for r in found] == list(range(90))
        assert {r.offset: bytes(r.value) for r in found} == written

    async def test_what_was_written_is_there_after_reopening(
        self, message_log_factory: MessageLogFactory
    ) -> None:
        log = await message_log_factory()
        topic = fresh_topic()
        await log.ensure_topics([TopicSpec(topic, partitions=1)])
        await log.produce(topic, [record(0, b"a"), record(0, b"b")])
        await log.close()
        again = await message_log_factory()
        await again.ensure_topics([TopicSpec(topic, partitions=1)])
        assert values(await again.read(topic, 0, 0)) == [b"a", b"b"]
        assert await again.produce(topic, [record(0, b"c")]) == [2]

    async def test_closing_finishes_what_produce_has_taken(
        self, message_log_factory: MessageLogFactory
    ) -> None:
        log, other = await message_log_factory(), await message_log_factory()
        topic = fresh_topic()
        for each in (log, other):
            await each.ensure_topics([TopicSpec(topic, partitions=1)])
        calls = [asyncio.create_task(log.produce(topic, [record(0, b"x")])) for _ in range(50)]
        await asyncio.sleep(0)
        await log.close()
        assert sorted(offset for offsets in await asyncio.gather(*calls) for offset in offsets) == list(
            range(50)
        )
        assert await other.end_offsets(topic) == [50]
