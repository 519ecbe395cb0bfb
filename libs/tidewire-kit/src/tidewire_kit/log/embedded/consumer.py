"""A consumer of the embedded log: polls the owned partitions, and rebalances between two polls. See the port.

Everything runs on the event loop; long reads (catching up from disk) go to a worker thread, short ones at the tail,
which lie in the page cache, are done at once.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence

from tidewire_kit.errors import Unavailable
from tidewire_kit.log.embedded import meta
from tidewire_kit.log.embedded.members import Membership
from tidewire_kit.log.embedded.meta_thread import MetaThread
from tidewire_kit.log.embedded.ownership import Ownership
from tidewire_kit.log.embedded.reader import TopicCursor
from tidewire_kit.log.embedded.settings import EmbeddedLogSettings
from tidewire_kit.log.embedded.wake import WakeReceiver
from tidewire_kit.log.errors import NotOwner
from tidewire_kit.log.port import LogRecord, RebalanceHandler, TopicPartition

_INLINE_BYTES = 1 << 20
_LOCK_RETRY_SECONDS = 0.05
_log = logging.getLogger(__name__)


class EmbeddedConsumer:
    """One member of a group in this process."""

    def __init__(
        self,
        group: str,
        cursors: Mapping[str, TopicCursor],
        topic_ids: Mapping[str, int],
        handler: RebalanceHandler,
        ownership: Ownership,
        membership: Membership,
        meta_thread: MetaThread,
        wake: WakeReceiver,
        settings: EmbeddedLogSettings,
        on_close: "Callable[[EmbeddedConsumer], None]",
    ) -> None:
        self.group = group
        self._cursors = dict(cursors)
        self._topic_ids = topic_ids
        self._handler = handler
        self._ownership = ownership
        self._membership = membership
        self._meta = meta_thread
        self._wake = wake
        self._settings = settings
        self._on_close = on_close
        self._assigned: set[TopicPartition] = set()
        self._paused: dict[TopicPartition, int] = {}
        self._epoch = -1
        self._incomplete = False
        self._closed = False
        self._news = False
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        membership.on_change(self._woken)
        for topic in self._cursors:
            wake.subscribe(topic, self._woken)

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """See the port."""
        return frozenset(self._assigned)

    async def poll(self, max_wait_seconds: float, max_bytes: int = 8 << 20) -> list[LogRecord]:
        """See the port."""
        deadline = self._loop.time() + max_wait_seconds
        while True:
            if self._closed:
                raise Unavailable("message log", "the consumer is closed")
            if self._epoch != self._membership.epoch or self._incomplete:
                await self._rebalance()
            self._news = False
            records = await self._read(max_bytes)
            if records:
                return records
            remaining = deadline - self._loop.time()
            if remaining <= 0:
                return []
            most = _LOCK_RETRY_SECONDS if self._incomplete else self._settings.fallback_poll_seconds
            await self._wait(min(remaining, most))

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """See the port."""
        for topic, partition in offsets:
            self._check_owned(topic, partition)
        rows = [(self._topic_ids[topic], partition, offset) for (topic, partition), offset in offsets.items()]
        await self._meta.write(lambda connection: meta.commit(connection, self.group, rows))

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """See the port."""
        self._check_owned(topic, partition)
        if (topic, partition) in self._paused:
            self._paused[topic, partition] = offset
        else:
            self._cursors[topic].want(partition, offset)

    def position(self, topic: str, partition: int) -> int:
        """See the port."""
        self._check_owned(topic, partition)
        paused_at = self._paused.get((topic, partition))
        return self._cursors[topic].wanted[partition] if paused_at is None else paused_at

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """See the port."""
        for topic, partition in partitions:
            if (topic, partition) in self._assigned and (topic, partition) not in self._paused:
                self._paused[topic, partition] = self._cursors[topic].wanted[partition]
                self._cursors[topic].unwant(partition)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """See the port."""
        for topic, partition in partitions:
            offset = self._paused.pop((topic, partition), None)
            if offset is not None:
                self._cursors[topic].want(partition, offset)

    async def close(self) -> None:
        """See the port."""
        if self._closed:
            return
        self._closed = True
        self._membership.off_change(self._woken)
        for topic in self._cursors:
            self._wake.unsubscribe(topic, self._woken)
        self._woken()
        try:
            await self._give_up(self._assigned)
        finally:
            self._ownership.release(self._ownership.owned)
            self._on_close(self)
            await self._membership.set_group(self.group, frozenset())

    async def _rebalance(self) -> None:
        self._epoch = self._membership.epoch
        self._incomplete = True  # whatever fails below is tried again with the next poll
        desired = self._ownership.desired()
        await self._give_up(self._assigned - desired)
        missing = desired - self._ownership.owned
        got = self._ownership.acquire(missing)
        # Locked but not assigned: something failed last time.
        fresh = sorted(self._ownership.owned - self._assigned)
        if fresh:
            await self._assign(fresh)
        self._incomplete = len(got) < len(missing)

    async def _assign(self, fresh: Sequence[TopicPartition]) -> None:
        committed = await self._meta.read(self._committed)
        known = await self._handler.assigned(fresh) or {}
        for topic, partition in fresh:
            start = known.get((topic, partition), committed[topic].get(partition, 0))
            self._cursors[topic].want(partition, start)
            self._assigned.add((topic, partition))
        _log.info("group %s: %d partitions assigned, %d owned", self.group, len(fresh), len(self._assigned))

    def _committed(self, connection: sqlite3.Connection) -> dict[str, dict[int, int]]:
        return {
            topic: meta.committed(connection, self.group, topic_id)
            for topic, topic_id in self._topic_ids.items()
        }

    async def _give_up(self, partitions: set[TopicPartition]) -> None:
        leaving = sorted(partitions)
        if not leaving:
            return
        try:
            await self._handler.revoked(leaving)
        finally:
            for topic, partition in leaving:
                self._cursors[topic].unwant(partition)
                self._paused.pop((topic, partition), None)
                self._assigned.discard((topic, partition))
            self._ownership.release(leaving)
            _log.info(
                "group %s: %d partitions revoked, %d left", self.group, len(leaving), len(self._assigned)
            )

    async def _read(self, max_bytes: int) -> list[LogRecord]:
        """Reads from the topics in turn; the one that was read from goes to the end of the queue."""
        for topic, cursor in tuple(self._cursors.items()):
            backlog = cursor.backlog_bytes()
            if not backlog:
                continue
            try:
                if backlog <= _INLINE_BYTES:
                    records = cursor.read(max_bytes)
                else:
                    records = await _read_in_thread(cursor, max_bytes)
            except OSError as error:
                raise Unavailable("message log", f"cannot read topic {topic}: {error}") from error
            if records:
                self._cursors[topic] = self._cursors.pop(topic)
                return records
        return []

    async def _wait(self, seconds: float) -> None:
        if self._news:
            return
        self._waiter = self._loop.create_future()
        handle = self._loop.call_at(self._loop.time() + seconds, self._woken)
        try:
            await self._waiter
        finally:
            handle.cancel()
            self._waiter = None

    def _woken(self) -> None:
        self._news = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _check_owned(self, topic: str, partition: int) -> None:
        if (topic, partition) not in self._assigned:
            raise NotOwner(topic, partition)


async def _read_in_thread(cursor: TopicCursor, max_bytes: int) -> list[LogRecord]:
    reading = asyncio.ensure_future(asyncio.to_thread(cursor.read, max_bytes))
    try:
        return await asyncio.shield(reading)
    except asyncio.CancelledError:
        # The caller gave up, the thread did not: what it read was not delivered, so it is to be read again.
        for record in reversed(await reading):
            cursor.want(record.partition, record.offset)
        raise
