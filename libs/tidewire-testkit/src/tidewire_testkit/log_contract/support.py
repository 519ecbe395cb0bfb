"""What the cases of the log's contract share: handlers, pollers, fresh names."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from tidewire_kit.log import (
    Consumer,
    LogRecord,
    MessageLog,
    Outgoing,
    TableItem,
    TableReader,
    TopicPartition,
)

MessageLogFactory = Callable[[], Awaitable[MessageLog]]

DEADLINE_SECONDS = 20.0
"""For what must happen at all; how fast is measured elsewhere."""


class RecordingHandler:
    """Notes what it is told; starts where `starts` says."""

    def __init__(self, starts: Mapping[TopicPartition, int] | None = None) -> None:
        self.starts = dict(starts or {})
        self.owned: set[TopicPartition] = set()
        self.calls: list[tuple[str, tuple[TopicPartition, ...]]] = []
        self.on_revoked: Callable[[Sequence[TopicPartition]], Awaitable[None]] | None = None

    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int] | None:
        """Notes the partitions as owned."""
        assert not self.owned & set(partitions), "assigned twice"
        self.owned |= set(partitions)
        self.calls.append(("assigned", tuple(partitions)))
        return {partition: self.starts[partition] for partition in partitions if partition in self.starts}

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Notes the partitions as gone."""
        if self.on_revoked is not None:
            await self.on_revoked(partitions)
        assert self.owned >= set(partitions), "revoked without being assigned"
        self.owned -= set(partitions)
        self.calls.append(("revoked", tuple(partitions)))


def fresh_topic() -> str:
    """A topic name that nobody else uses."""
    return f"contract.{uuid.uuid4().hex[:12]}.v1"


def fresh_group() -> str:
    """A group name that nobody else uses."""
    return f"contract.{uuid.uuid4().hex[:12]}"


def record(partition: int, value: bytes, key: bytes = b"") -> Outgoing:
    """A record of one piece."""
    return Outgoing(partition, key, [value])


async def poll_until(consumer: Consumer, enough: Callable[[list[LogRecord]], bool]) -> list[LogRecord]:
    """Polls until `enough` of what came; fails after the deadline."""
    found: list[LogRecord] = []
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not enough(found):
            found += await consumer.poll(0.1)
    return found


async def poll_many(consumer: Consumer, count: int) -> list[LogRecord]:
    """Polls until at least `count` records came."""
    return await poll_until(consumer, lambda found: len(found) >= count)


@contextlib.asynccontextmanager
async def polling(*consumers: Consumer) -> AsyncIterator[list[list[LogRecord]]]:
    """Keeps polling consumers in the background, as their processes would; yields what each got, growing."""
    found: list[list[LogRecord]] = [[] for _ in consumers]

    async def run(consumer: Consumer, into: list[LogRecord]) -> None:
        while True:
            into.extend(await consumer.poll(0.1))

    tasks = [
        asyncio.create_task(run(consumer, into)) for consumer, into in zip(consumers, found, strict=True)
    ]
    try:
        yield found
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


def values(records: Sequence[LogRecord]) -> list[bytes]:
    """The values, in the order given."""
    return [bytes(found.value) for found in records]


class Followed:
    """A table reader's items, applied to a dict by a task."""

    def __init__(self, reader: TableReader) -> None:
        self.reader = reader
        self.state: dict[bytes, bytes] = {}
        self.batches: list[list[TableItem]] = []
        self.task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async for batch in self.reader:
            self.batches.append(batch)
            for key, value in batch:
                if value is None:
                    self.state.pop(key, None)
                else:
                    self.state[key] = value

    async def caught_up(self) -> None:
        """Waits for the mark."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self.reader.caught_up.wait()

    async def close(self) -> None:
        """Ends the following."""
        await self.reader.close()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self.task
