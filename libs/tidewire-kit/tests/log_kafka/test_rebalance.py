"""Partitions move between processes: flushed before they go, and nobody commits what is not his."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient

from tidewire_kit.errors import FailedPrecondition
from tidewire_kit.log import Outgoing, TopicPartition, TopicSpec
from tidewire_kit.log.kafka import KafkaLog, KafkaSettings
from tidewire_testkit.log_contract import RecordingHandler
from tidewire_testkit.log_contract.support import poll_many, polling
from tidewire_testkit.polling import until

pytestmark = pytest.mark.servers

MakeLog = Callable[..., Awaitable[KafkaLog]]
TOPIC = TopicSpec("rebalance.v1", partitions=4)
GROUP = "tidewire.storage"
PROCESS = Path(__file__).with_name("consuming_process.py")


class Process:
    """A consumer in a process of its own, and what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[str] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.lines.append(line.decode().strip())

    def said(self, word: str) -> list[str]:
        return [line for line in self.lines if line.startswith(word)]

    def signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    async def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reading


@contextlib.asynccontextmanager
async def consuming(settings: KafkaSettings, protocol: str) -> AsyncIterator[Process]:
    process = Process(
        await asyncio.create_subprocess_exec(
            sys.executable,
            str(PROCESS),
            settings.bootstrap_servers,
            settings.topic_prefix,
            protocol,
            stdout=asyncio.subprocess.PIPE,
        )
    )
    try:
        yield process
    finally:
        await process.end()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_an_owner_that_slept_through_the_loss_commits_nothing(
    kafka_settings: KafkaSettings, message_log_factory: MakeLog, protocol: str
) -> None:
    log = await message_log_factory(group_protocol=protocol)
    await log.ensure_topics([TOPIC])
    await log.produce(TOPIC.name, [Outgoing(n % 4, b"", [b"x"]) for n in range(8)])
    async with consuming(kafka_settings, protocol) as sleeper:
        await until(lambda: len(sleeper.said("committed")) > 8, seconds=40)
        sleeper.signal(signal.SIGSTOP)
        handler = RecordingHandler()
        consumer = await log.consume(GROUP, [TOPIC.name], handler)
        async with polling(consumer):
            # The brokers notice after the session timeout: 6 s of ours, 10 s of theirs with the new protocol.
            await until(lambda: len(handler.owned) == 4, seconds=40)
            await log.produce(TOPIC.name, [Outgoing(n, b"", [b"y"]) for n in range(4)])
            await until(lambda: all(consumer.position(*place) == 3 for place in handler.owned))
            await consumer.commit(dict.fromkeys(handler.owned, 3))
            before = len(sleeper.lines)
            sleeper.signal(signal.SIGCONT)
            # Its first commit is of what it had processed before; only then does it learn of its loss.
            await until(lambda: sleeper.said("refused") or sleeper.said("revoked"), seconds=20)
            await until(lambda: len(sleeper.said("revoked")) == 4, seconds=20)
        woken = sleeper.lines[before:]
        lost = woken[: next(n for n, line in enumerate(woken) if line.startswith("revoked"))]
        # The first may have been answered before it fell asleep; the offsets below say that it did no harm.
        assert set(lost[1:]) <= {"refused NOT_OWNER"}
        committed = await log.committed(GROUP, TOPIC.name)
        assert all(offset >= 3 for offset in committed.values()), committed


async def test_a_flush_under_way_ends_before_the_partition_goes(message_log_factory: MakeLog) -> None:
    one, two = await message_log_factory(), await message_log_factory()
    for log in (one, two):
        await log.ensure_topics([TOPIC])
    await one.produce(TOPIC.name, [Outgoing(n % 4, b"", [b"x"]) for n in range(8)])
    first, second = RecordingHandler(), RecordingHandler()
    consumer_one = await one.consume(GROUP, [TOPIC.name], first)
    flushing, flushed = asyncio.Event(), asyncio.Event()

    async def flush(partitions: Sequence[TopicPartition]) -> None:
        flushing.set()
        assert consumer_one.assignment >= set(partitions), "still owned while it flushes"
        await asyncio.wait_for(flushed.wait(), 20)
        await consumer_one.commit(dict.fromkeys(partitions, 2))

    async with polling(consumer_one):
        await until(lambda: len(first.owned) == 4)
        await until(lambda: all(consumer_one.position(*place) == 2 for place in first.owned))
    first.on_revoked = flush
    consumer_two = await two.consume(GROUP, [TOPIC.name], second)
    async with polling(consumer_one, consumer_two) as found:
        await until(flushing.is_set)
        assert len(first.owned) == 4
        assert not second.owned, "nobody starts before the flush has ended"
        flushed.set()
        await until(lambda: len(first.owned) == len(second.owned) == 2)
        await one.produce(TOPIC.name, [Outgoing(n, b"", [b"new"]) for n in range(4)])
        await until(lambda: len(found[0]) + len(found[1]) == 4)
    assert {bytes(r.value) for r in found[1]} == {b"new"}, "what was flushed and committed was read again"
    first.on_revoked = None
    with pytest.raises(FailedPrecondition) as refused:
        await consumer_one.commit(dict.fromkeys(second.owned, 2))
    assert refused.value.reason == "NOT_OWNER"


async def test_a_failing_flush_gives_the_partition_up_all_the_same(message_log_factory: MakeLog) -> None:
    one, two = await message_log_factory(), await message_log_factory()
    for log in (one, two):
        await log.ensure_topics([TOPIC])
    first, second = RecordingHandler(), RecordingHandler()
    consumer_one = await one.consume(GROUP, [TOPIC.name], first)
    async with polling(consumer_one):
        await until(lambda: len(first.owned) == 4)

    async def fail(_: Sequence[TopicPartition]) -> None:
        raise RuntimeError("the store is away")

    first.on_revoked = fail
    consumer_two = await two.consume(GROUP, [TOPIC.name], second)
    async with polling(consumer_two):
        with pytest.raises(RuntimeError, match="the store is away"):
            await poll_many(consumer_one, 1)
        first.on_revoked = None
        first.owned = set(consumer_one.assignment)
        async with polling(consumer_one):
            await until(lambda: len(first.owned) == len(second.owned) == 2)


async def test_retention_that_overtakes_a_consumer_shows_as_a_gap(
    kafka_settings: KafkaSettings, message_log_factory: MakeLog
) -> None:
    log = await message_log_factory()
    await log.ensure_topics([TOPIC])
    await log.produce(TOPIC.name, [Outgoing(0, b"", [b"%d" % n]) for n in range(10)])
    consumer = await log.consume(GROUP, [TOPIC.name], RecordingHandler())
    async with polling(consumer) as found:
        await until(lambda: len(found[0]) == 10)
    consumer.seek(TOPIC.name, 0, 2)
    admin = AdminClient({"bootstrap.servers": kafka_settings.bootstrap_servers})
    for done in admin.delete_records([Place(kafka_settings.topic_prefix + TOPIC.name, 0, 7)]).values():
        done.result()
    async with polling(consumer) as found:
        await until(lambda: len(found[0]) == 3)
    assert [record.offset for record in found[0]] == [7, 8, 9]
    assert await log.begin_offsets(TOPIC.name) == [7, 0, 0, 0]
