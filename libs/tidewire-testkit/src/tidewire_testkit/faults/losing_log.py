"""A message log that loses the replies to `produce`, `put` and `commit`, as its schedule says. For tests of consumers.

    log = LosingLog(real, Every(Fault.LOST_REPLY))

Everything else passes through. It knows the port only, so it goes over every adapter.
"""

from collections.abc import Mapping, Sequence

from tidewire_kit.errors import Unavailable
from tidewire_kit.log.port import (
    Consumer,
    LogRecord,
    Member,
    MemberProfile,
    MessageLog,
    Outgoing,
    RebalanceHandler,
    TableItem,
    TableReader,
    TopicPartition,
    TopicSpec,
)
from tidewire_testkit.faults.injection import Schedule, Suffering


def _unknown() -> Unavailable:
    return Unavailable("log", "the reply was lost, says the test", retry_delay_seconds=0.05)


class LosingConsumer:
    """A consumer whose commits suffer."""

    def __init__(self, inner: Consumer, suffering: Suffering) -> None:
        self._inner = inner
        self._suffering = suffering

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """As of the real one; so are all below but `commit`."""
        return self._inner.assignment

    async def poll(self, max_wait_seconds: float, max_bytes: int = 8 << 20) -> list[LogRecord]:
        """Ends with the process."""
        self._suffering.alive()
        return await self._inner.poll(max_wait_seconds, max_bytes)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Suffers."""
        await self._suffering.call("commit", lambda: self._inner.commit(offsets), _unknown())

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """As of the real one."""
        self._inner.seek(topic, partition, offset)

    def position(self, topic: str, partition: int) -> int:
        """As of the real one."""
        return self._inner.position(topic, partition)

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """As of the real one."""
        self._inner.pause(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """As of the real one."""
        self._inner.resume(partitions)

    async def close(self) -> None:
        """As of the real one."""
        await self._inner.close()


class LosingLog:
    """A `MessageLog` over another. The real one stays the caller's."""

    def __init__(self, log: MessageLog, schedule: Schedule) -> None:
        self._inner = log
        self._suffering = Suffering(schedule)

    @property
    def dead(self) -> bool:
        """Whether a crash has struck."""
        return self._suffering.dead

    async def drain(self) -> None:
        """Waits for requests that are carried out late."""
        await self._suffering.drain()

    async def start(self) -> None:
        """As of the real log; so are all below but `produce`, `put` and the consumers' `commit`."""
        await self._inner.start()

    async def close(self) -> None:
        """As of the real log."""
        await self.drain()
        await self._inner.close()

    def ended(self) -> str | None:
        """As of the real log."""
        return self._inner.ended()

    async def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        """As of the real log."""
        await self._inner.ensure_topics(specs)

    def partitions(self, topic: str) -> int:
        """As of the real log."""
        return self._inner.partitions(topic)

    def incarnation(self, topic: str) -> bytes:
        """As of the real log."""
        return self._inner.incarnation(topic)

    async def produce(self, topic: str, records: Sequence[Outgoing]) -> list[int]:
        """Suffers."""
        return await self._suffering.call(
            f"produce {topic}", lambda: self._inner.produce(topic, records), _unknown()
        )

    async def read(
        self, topic: str, partition: int, offset: int, max_bytes: int = 8 << 20
    ) -> list[LogRecord]:
        """As of the real log."""
        return await self._inner.read(topic, partition, offset, max_bytes)

    async def consume(self, group: str, topics: Sequence[str], handler: RebalanceHandler) -> LosingConsumer:
        """As of the real log, with commits that suffer."""
        return LosingConsumer(await self._inner.consume(group, topics, handler), self._suffering)

    async def begin_offsets(self, topic: str) -> list[int]:
        """As of the real log."""
        return await self._inner.begin_offsets(topic)

    async def end_offsets(self, topic: str) -> list[int]:
        """As of the real log."""
        return await self._inner.end_offsets(topic)

    async def committed(self, group: str, topic: str) -> dict[int, int]:
        """As of the real log."""
        return await self._inner.committed(group, topic)

    async def lag(self, group: str, topic: str) -> dict[int, int]:
        """As of the real log."""
        return await self._inner.lag(group, topic)

    async def put(self, topic: str, items: Sequence[TableItem]) -> None:
        """Suffers."""
        await self._suffering.call(f"put {topic}", lambda: self._inner.put(topic, items), _unknown())

    def table(self, topic: str) -> TableReader:
        """As of the real log."""
        return self._inner.table(topic)

    async def announce(self, profile: MemberProfile) -> None:
        """As of the real log."""
        await self._inner.announce(profile)

    def members(self, service: str | None = None) -> list[Member]:
        """As of the real log."""
        return self._inner.members(service)
