"""How readers of the embedded log are woken by other processes: at once, and without what dead ones have left."""

import asyncio
import os
import socket
from pathlib import Path

from tidewire_kit.log import Outgoing, TopicSpec
from tidewire_kit.log.embedded import EmbeddedLog, EmbeddedLogSettings
from tidewire_testkit.log_contract import RecordingHandler
from tidewire_testkit.polling import until

TOPIC = "waking.v1"
GROUP = "tidewire.storage"


async def test_readers_are_woken_without_their_fallback(tmp_path: Path) -> None:
    settings = EmbeddedLogSettings(min_free_bytes=0, fallback_poll_seconds=3600)
    deep = tmp_path / ("a-long-name-" * 10)  # longer than the path of a socket may be
    logs = [EmbeddedLog(deep, settings) for _ in range(2)]
    for each in logs:
        await each.start()
        await each.ensure_topics([TopicSpec(TOPIC, partitions=1)])
    consumer = await logs[1].consume(GROUP, [TOPIC], RecordingHandler())
    assert await consumer.poll(0) == []
    for n in range(20):
        polling = asyncio.create_task(consumer.poll(30))
        await asyncio.sleep(0)
        await logs[0].produce(TOPIC, [Outgoing(0, b"", [b"%d" % n])])
        async with asyncio.timeout(10):
            assert [bytes(r.value) for r in await polling] == [b"%d" % n]
    for each in logs:
        await each.close()


async def test_sockets_of_dead_processes_are_removed(tmp_path: Path) -> None:
    settings = EmbeddedLogSettings(min_free_bytes=0, fallback_poll_seconds=0.02)
    log = EmbeddedLog(tmp_path, settings)
    await log.start()
    await log.ensure_topics([TopicSpec(TOPIC, partitions=1)])
    directory = tmp_path / "run" / "wake" / TOPIC
    directory.mkdir(parents=True, exist_ok=True)
    killed = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    descriptor = os.open(directory, os.O_RDONLY)
    killed.bind(f"/proc/self/fd/{descriptor}/killed")
    killed.close()
    os.close(descriptor)
    os.link(directory / "killed", directory.parent / "killed")
    await log.produce(TOPIC, [Outgoing(0, b"", [b"x"])])
    await until(lambda: not (directory / "killed").exists(), message="by whoever sends to it")
    again = EmbeddedLog(tmp_path, settings)
    await again.start()
    assert not (directory.parent / "killed").exists(), "by whoever starts"
    await asyncio.gather(log.close(), again.close())
    assert [path for path in directory.parent.rglob("*") if path.is_socket()] == []
