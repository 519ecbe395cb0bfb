"""The message log on Kafka: the port's methods, put together from the parts of this package.

Chosen in composition roots. One per process: it has one producer, and a client per consumer and per table reader.
"""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from tidewire_kit.log.kafka.settings import KafkaSettings
from tidewire_kit.log.port import (
    Consumer,
    LogRecord,
    Member,
    MemberProfile,
    Outgoing,
    RebalanceHandler,
    TableItem,
    TableReader,
    TopicSpec,
)


class KafkaLog:
    """`MessageLog` over a Kafka cluster."""

    def __init__(
        self, settings: KafkaSettings | None = None, *, registry: CollectorRegistry | None = None
    ) -> None:
        """`registry` takes the client library's statistics as metrics; None: they are not kept."""
        self._settings = settings or KafkaSettings()
        self._registry = registry

    async def start(self) -> None:
        """See the port. Raises FailedPrecondition (a setting is wrong) or Unavailable within 10 s."""
        raise NotImplementedError

    async def close(self) -> None:
        """See the port."""
        raise NotImplementedError

    async def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        """See the port."""
        raise NotImplementedError

    def partitions(self, topic: str) -> int:
        """See the port."""
        raise NotImplementedError

    def incarnation(self, topic: str) -> bytes:
        """See the port."""
        raise NotImplementedError

    async def produce(self, topic: str, records: Sequence[Outgoing]) -> list[int]:
        """See the port."""
        raise NotImplementedError

    async def read(
        self, topic: str, partition: int, offset: int, max_bytes: int = 8 << 20
    ) -> list[LogRecord]:
        """See the port."""
        raise NotImplementedError

    async def consume(self, group: str, topics: Sequence[str], handler: RebalanceHandler) -> Consumer:
        """See the port."""
        raise NotImplementedError

    async def begin_offsets(self, topic: str) -> list[int]:
        """See the port."""
        raise NotImplementedError

    async def end_offsets(self, topic: str) -> list[int]:
        """See the port."""
        raise NotImplementedError

    async def committed(self, group: str, topic: str) -> dict[int, int]:
        """See the port."""
        raise NotImplementedError

    async def lag(self, group: str, topic: str) -> dict[int, int]:
        """See the port."""
        raise NotImplementedError

    async def put(self, topic: str, items: Sequence[TableItem]) -> None:
        """See the port."""
        raise NotImplementedError

    def table(self, topic: str) -> TableReader:
        """See the port."""
        raise NotImplementedError

    async def announce(self, profile: MemberProfile) -> None:
        """See the port."""
        raise NotImplementedError

    def members(self, service: str | None = None) -> list[Member]:
        """See the port."""
        raise NotImplementedError
