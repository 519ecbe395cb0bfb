"""Trouble that passes: a call that failed once, no descriptors left. Afterwards everything goes on by itself."""

import asyncio
import json
import os
import resource
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tidewire_kit.errors import Unavailable
from tidewire_kit.log import Outgoing, TopicSpec
from tidewire_kit.log.embedded import EmbeddedLog
from tidewire_kit.log.embedded.members import MEMBERS_TOPIC
from tidewire_kit.log.embedded.topic import StreamTopic
from tidewire_testkit.log_contract import MessageLogFactory, RecordingHandler
from tidewire_testkit.polling import until

TOPIC, TABLE = "passing.v1", "passing-table.v1"
GROUP = "tidewire.storage"


@pytest.fixture
async def log(message_log_factory: MessageLogFactory) -> EmbeddedLog:
    opened = await message_log_factory()
    assert isinstance(opened, EmbeddedLog)
    await opened.ensure_topics([TopicSpec(TOPIC, partitions=2), TopicSpec(TABLE, compacted=True)])
    return opened


def failing_once(
    call: Callable[..., Awaitable[Any]], applies: Callable[..., bool] = lambda *_: True
) -> Callable[..., Awaitable[Any]]:
    """`call`, but its first time raises Unavailable, of those to which this `applies`."""
    failed = False

    async def wrapped(*arguments: Any) -> Any:
        nonlocal failed
        if not failed and applies(*arguments):
            failed = True
            raise Unavailable("message log", "for once")
        return await call(*arguments)

    return wrapped


async def test_partitions_whose_offsets_could_not_be_read_come_with_a_later_poll(
    log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log.produce(TOPIC, [Outgoing(1, b"", [b"x"])])
    meta = log._meta
    monkeypatch.setattr(
        meta, "read", failing_once(meta.read, lambda job: getattr(job, "__name__", "") == "_committed")
    )
    consumer = await log.consume(GROUP, [TOPIC], RecordingHandler())
    with pytest.raises(Unavailable):
        await consumer.poll(0)
    async with asyncio.timeout(5):
        assert [bytes(record.value) for record in await consumer.poll(5)] == [b"x"]
    assert len(consumer.assignment) == 2


async def test_a_group_that_could_not_be_joined_can_be_joined_later(
    log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    membership = log._membership
    monkeypatch.setattr(membership, "_put", failing_once(membership._put))
    with pytest.raises(Unavailable):
        await log.consume(GROUP, [TOPIC], RecordingHandler())
    consumer = await log.consume(GROUP, [TOPIC], RecordingHandler())
    await consumer.poll(0)
    assert len(consumer.assignment) == 2


@pytest.fixture
def no_more_files() -> Iterator[Callable[[], None]]:
    """Lets every further opening of a file fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def limit() -> None:
        lowest_free = os.open(os.devnull, os.O_RDONLY)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))

    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_what_is_durable_is_acknowledged_though_readers_cannot_be_woken(
    log: EmbeddedLog, tmp_path: Path, no_more_files: Callable[[], None]
) -> None:
    await log.produce(TOPIC, [Outgoing(0, b"", [b"x"])])
    await log.put(TABLE, [(b"k", b"1")])
    for topic in (TOPIC, TABLE):  # so that the directories have to be listed again
        (tmp_path / "run" / "wake" / topic / "new").touch()
    no_more_files()
    assert await log.produce(TOPIC, [Outgoing(0, b"", [b"y"])]) == [1]
    await log.put(TABLE, [(b"k", b"2")])


async def test_a_follower_of_a_table_outlives_a_failed_read(
    log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = log._meta
    monkeypatch.setattr(
        meta, "read", failing_once(meta.read, lambda job: getattr(job, "__name__", "") == "_next")
    )
    entry = {
        "service": "ingestion",
        "announced": True,
        "addresses": {},
        "host": "elsewhere",
        "pid": 1,
        "groups": {},
        "started_at_us": 1,
        "beat_at_us": 1,
    }
    for number in range(2):  # the failure comes with the first
        await log.put(MEMBERS_TOPIC, [(b"m%d" % number, json.dumps(entry).encode())])
        await asyncio.sleep(0.05)
    await until(lambda: [member.member_id for member in log.members("ingestion")] == ["m0", "m1"])


async def test_room_is_made_while_another_process_ends_a_segment(
    log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log.produce(TOPIC, [Outgoing(0, b"", [b"x"])])
    durable = StreamTopic.durable

    def after_a_roll(self: StreamTopic) -> Any:
        self.appender.roll()
        return durable(self)

    monkeypatch.setattr(StreamTopic, "durable", after_a_roll)
    await asyncio.to_thread(log._retention.make_room, 1, 0, 0, ())
