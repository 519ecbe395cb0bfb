"""The message log that loses replies: what it does to calls, over the embedded log."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tidewire_kit.errors import Unavailable
from tidewire_kit.log.embedded import EmbeddedLog, EmbeddedLogSettings
from tidewire_kit.log.port import MessageLog, Outgoing, TopicSpec
from tidewire_testkit.faults.injection import At, Crash, Every, Fault
from tidewire_testkit.faults.losing_log import LosingLog

RECORDS = [Outgoing(0, b"k", [b"v"])]


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[MessageLog]:
    log = EmbeddedLog(tmp_path, EmbeddedLogSettings())
    await log.start()
    await log.ensure_topics([TopicSpec("t", partitions=1), TopicSpec("c", compacted=True)])
    yield log
    await log.close()


@pytest.mark.parametrize(
    ("fault", "error", "written"),
    [
        (Fault.LOST_REQUEST, Unavailable, 0),
        (Fault.LOST_REPLY, Unavailable, 1),
        (Fault.LATE_REQUEST, Unavailable, 1),
        (Fault.CRASH_BEFORE, Crash, 0),
        (Fault.CRASH_AFTER, Crash, 1),
        (Fault.CRASH_DURING, Crash, 1),
    ],
)
async def test_a_fault_does_what_it_says(
    real: MessageLog, fault: Fault, error: type[Exception], written: int
) -> None:
    log = LosingLog(real, At(0, fault))
    with pytest.raises(error):
        await log.produce("t", RECORDS)
    await log.drain()
    assert await real.end_offsets("t") == [written]
    if error is Crash:
        with pytest.raises(Crash):
            await log.produce("t", RECORDS)
    else:
        assert await log.produce("t", RECORDS) == [written]


async def test_it_is_a_message_log_and_loses_the_first_reply_of_everything(real: MessageLog) -> None:
    log: MessageLog = LosingLog(real, Every(Fault.LOST_REPLY))
    with pytest.raises(Unavailable):
        await log.put("c", [(b"a", b"1")])
    await log.put("c", [(b"a", b"2")])
    with pytest.raises(Unavailable):
        await log.produce("t", RECORDS)
    await log.produce("t", RECORDS)

    class Handler:
        async def assigned(self, partitions: object) -> None:
            return None

        async def revoked(self, partitions: object) -> None:
            return None

        async def lost(self, partitions: object) -> None:
            return None

    consumer = await log.consume("tidewire.test", ["t"], Handler())  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        while not (records := await consumer.poll(1.0)):
            pass
    assert [record.offset for record in records] == [0, 1]
    with pytest.raises(Unavailable):
        await consumer.commit({("t", 0): 2})
    assert await log.committed("tidewire.test", "t") == {0: 2}
    await consumer.commit({("t", 0): 2})
    await consumer.close()
