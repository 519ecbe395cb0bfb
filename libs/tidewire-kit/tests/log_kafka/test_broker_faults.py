"""A broker dies or hangs: what was acknowledged is there once, what was not is there at most once, and all goes on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tidewire_kit import settings as kit_settings
from tidewire_kit.errors import TidewireError, Unavailable
from tidewire_kit.log import Consumer, LogRecord, MemberProfile, Outgoing, TopicSpec
from tidewire_kit.log.kafka import KafkaLog, KafkaSettings
from tidewire_testkit.faults.progress import PROGRESS_SECONDS
from tidewire_testkit.log_contract import RecordingHandler
from tidewire_testkit.log_contract.support import Followed
from tidewire_testkit.polling import until
from tidewire_testkit.servers.kafka import KafkaCluster
from tidewire_testkit.servers.shared import FaultServers

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300, func_only=True)]
TOPIC = TopicSpec("faults.v1", partitions=3)
TABLE = TopicSpec("table.v1", compacted=True)
RECOVERY_SECONDS = 90


@pytest.fixture
def lone_broker(fault_servers: FaultServers) -> KafkaCluster:
    return fault_servers.kafka(1)


class Writer:
    """Writes numbered values, one lane per partition, and notes what was acknowledged."""

    def __init__(self, log: KafkaLog) -> None:
        self.log = log
        self.acknowledged: dict[bytes, tuple[int, int]] = {}
        self.unknown: set[bytes] = set()
        self.errors: list[TidewireError] = []
        self._tasks = [asyncio.create_task(self._write(lane)) for lane in range(TOPIC.partitions)]

    async def _write(self, lane: int) -> None:
        number = 0
        while True:
            number += 1
            value = b"%d/%08d" % (lane, number)
            try:
                (offset,) = await self.log.produce(TOPIC.name, [Outgoing(lane, b"", [value])])
            except TidewireError as error:
                self.errors.append(error)
                self.unknown.add(value)
            else:
                self.acknowledged[value] = (lane, offset)
            await asyncio.sleep(0.002)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def following(consumer: Consumer, failures: list[Unavailable]) -> AsyncIterator[list[LogRecord]]:
    """Polls in the background and tries again, as an owner does; yields what came, growing."""
    found: list[LogRecord] = []

    async def run() -> None:
        while True:
            try:
                found.extend(await consumer.poll(0.1))
            except Unavailable as error:
                failures.append(error)
                await asyncio.sleep(0.5)

    task = asyncio.create_task(run())
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("fault", ["killed", "hung"])
async def test_a_lone_broker_that_comes_back(lone_broker: KafkaCluster, fault: str) -> None:
    settings = kit_settings.load(
        KafkaSettings,
        lone_broker.environ()
        | {"TIDEWIRE_KAFKA_TOPIC_PREFIX": f"{fault}.", "TIDEWIRE_KAFKA_DELIVERY_TIMEOUT_MS": "8000"},
    )
    log, reader = KafkaLog(settings), KafkaLog(settings)
    for each in (log, reader):
        await each.start()
        await each.ensure_topics([TOPIC, TABLE])
    await log.announce(MemberProfile("ingestion"))
    table = Followed(reader.table(TABLE.name))
    consumer = await reader.consume("tidewire.storage", [TOPIC.name], RecordingHandler())
    try:
        failures: list[Unavailable] = []
        async with following(consumer, failures) as found:
            writer = Writer(log)
            await until(lambda: len(writer.acknowledged) > 100, seconds=RECOVERY_SECONDS)
            if fault == "killed":
                lone_broker.kill()
            else:
                lone_broker.suspend()
            await until(lambda: len(writer.errors) >= TOPIC.partitions, seconds=RECOVERY_SECONDS)
            assert all(isinstance(error, Unavailable) for error in writer.errors), writer.errors
            assert [member.service for member in reader.members()] == ["ingestion"], "silence is the log's"
            if fault == "killed":
                # An empty poll would look like an empty topic.
                await until(lambda: failures, seconds=RECOVERY_SECONDS)
            before = len(writer.acknowledged)
            if fault == "killed":
                await asyncio.to_thread(
                    lone_broker.restart
                )  # how long a broker takes to start is not the matter
            else:
                lone_broker.resume()
            await until(lambda: len(writer.acknowledged) > before, seconds=PROGRESS_SECONDS)
            await until(lambda: len(writer.acknowledged) > before + 100, seconds=RECOVERY_SECONDS)
            await writer.stop()
            ends = await log.end_offsets(TOPIC.name)
            # Whoever lost its session with the broker reads again from what was committed: nothing.
            await until(
                lambda: len({(r.partition, r.offset) for r in found}) == sum(ends), seconds=RECOVERY_SECONDS
            )
        records = {(r.partition, r.offset): bytes(r.value) for r in found}
        in_log = {value: place for place, value in records.items()}
        assert len(in_log) == len(records), "something is in the log twice"
        assert writer.acknowledged.items() <= in_log.items()
        for partition in range(TOPIC.partitions):
            mine = [value for place, value in sorted(records.items()) if place[0] == partition]
            assert mine == sorted(mine), "the order of a writer was changed"
        await consumer.commit({(TOPIC.name, p): end for p, end in enumerate(ends)})
        await log.put(TABLE.name, [(b"key", b"after")])
        await until(lambda: table.state == {b"key": b"after"}, seconds=RECOVERY_SECONDS)
        await until(lambda: [m.service for m in reader.members()] == ["ingestion"])
    finally:
        await table.close()
        for each in (reader, log):
            await each.close()
