"""Producers and a consumer that note what a message log acknowledged and delivered.

Each producer writes to one partition, a few records a call, each with an id of its own that is never sent again: a
call that failed may have left its records in the log or not, but not twice.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence

from tidewire_kit.errors import FailedPrecondition, Unavailable
from tidewire_kit.log.errors import LogFull
from tidewire_kit.log.port import MessageLog, Outgoing, TopicPartition
from tidewire_testkit.polling import until

GROUP = "tidewire.faults"
_RECORDS_PER_CALL = 5
_PAUSE_SECONDS = 0.01
_PAUSE_AFTER_REFUSAL_SECONDS = 0.1
_VALUE_BYTES = 200


class LogLoad:
    """The load: use `running`, disturb, then `check`."""

    def __init__(self, log: MessageLog, topic: str, *, calls_at_once: int = 2) -> None:
        """`calls_at_once`: producers of each partition."""
        self._log = log
        self._topic = topic
        self._calls_at_once = calls_at_once
        self.acknowledged: dict[bytes, tuple[int, int]] = {}
        """Id → (partition, offset) as `produce` returned it."""
        self.sent: set[bytes] = set()
        self.delivered: set[bytes] = set()
        """Ids that the consumer was given."""
        self.refused = 0
        self.last_begun = 0.0
        """Monotonic time at which the newest acknowledged call was begun."""
        self.last_delivered_begun = 0.0
        """The same for the newest call whose records the consumer was given."""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Produces and consumes until the block ends, and then until the consumer has all that was acknowledged."""
        stop, drained = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as consumers:
            consumers.create_task(self._consume(drained))
            try:
                async with asyncio.TaskGroup() as producers:
                    for partition in range(self._log.partitions(self._topic)):
                        for number in range(self._calls_at_once):
                            producers.create_task(self._produce(partition, number, stop))
                    try:
                        yield
                    finally:
                        stop.set()
                await until(
                    lambda: self.acknowledged.keys() <= self.delivered, seconds=30, message="all is consumed"
                )
            finally:
                drained.set()

    async def check(self) -> int:
        """Asserts that the log holds what was acknowledged where it was said to be, nothing twice, in order.

        Returns how many records that are.
        """
        found: dict[bytes, tuple[int, int]] = {}
        last: dict[bytes, int] = {}
        for partition, end in enumerate(await self._log.end_offsets(self._topic)):
            offset = 0
            while offset < end:
                records = await self._log.read(self._topic, partition, offset)
                assert records, f"partition {partition} ends at {offset}, said to end at {end}"
                for record in records:
                    key = bytes(record.key)
                    assert key in self.sent, f"{key!r} was never sent"
                    assert key not in found, f"{key!r} is at {found[key]} and at {(partition, record.offset)}"
                    found[key] = (partition, record.offset)
                    producer, _, number = key.rpartition(b"/")
                    assert last.get(producer, -1) < int(number), (
                        f"{key!r} comes after number {last[producer]}"
                    )
                    last[producer] = int(number)
                offset = records[-1].offset + 1
        lost = self.acknowledged.keys() - found.keys()
        assert not lost, f"{len(lost)} acknowledged records are gone, one is {min(lost)!r}"
        moved = [key for key, place in self.acknowledged.items() if found[key] != place]
        assert not moved, f"{len(moved)} records are not where produce said, one is {moved[0]!r}"
        return len(self.acknowledged)

    async def _produce(self, partition: int, producer: int, stop: asyncio.Event) -> None:
        number = 0
        while not stop.is_set():
            begun = time.monotonic()
            keys = [b"%d/%d/%d" % (partition, producer, number + step) for step in range(_RECORDS_PER_CALL)]
            number += _RECORDS_PER_CALL
            value = (b"%r|" % begun).ljust(_VALUE_BYTES, b".")
            self.sent.update(keys)
            try:
                offsets = await self._log.produce(
                    self._topic, [Outgoing(partition, key, [value]) for key in keys]
                )
            except (Unavailable, LogFull):
                self.refused += 1
                await asyncio.sleep(_PAUSE_AFTER_REFUSAL_SECONDS)
                continue
            self.acknowledged.update({key: (partition, at) for key, at in zip(keys, offsets, strict=True)})
            self.last_begun = max(self.last_begun, begun)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _consume(self, drained: asyncio.Event) -> None:
        consumer = await self._log.consume(GROUP, [self._topic], _FromTheBeginning())
        try:
            while not drained.is_set():
                try:
                    records = await consumer.poll(0.2)
                    for record in records:
                        self.delivered.add(bytes(record.key))
                        begun = float(bytes(record.value).partition(b"|")[0])
                        self.last_delivered_begun = max(self.last_delivered_begun, begun)
                    if records:
                        await consumer.commit({(r.topic, r.partition): r.offset + 1 for r in records})
                except (Unavailable, FailedPrecondition) as error:
                    # A member that was silent for too long has lost its partitions: they come back, with the records.
                    if isinstance(error, FailedPrecondition) and error.reason != "NOT_OWNER":
                        raise
                    await asyncio.sleep(_PAUSE_AFTER_REFUSAL_SECONDS)
        finally:
            await consumer.close()


class _FromTheBeginning:
    """Starts where the group has committed; gives up partitions without ado."""

    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int] | None:
        return None

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        return None
