"""The message log on Kafka: the port's methods, put together from the parts of this package.

Chosen in composition roots. One per process: it has one producer, and a client per consumer and per table reader.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from tidewire_kit.errors import FailedPrecondition, InvalidArgument, TidewireError, Unavailable
from tidewire_kit.lasting import ended, first
from tidewire_kit.log.errors import UnknownTopic
from tidewire_kit.log.kafka import topics
from tidewire_kit.log.kafka.admin import Admin
from tidewire_kit.log.kafka.backlog import Backlog, Held
from tidewire_kit.log.kafka.consumer import KafkaConsumer
from tidewire_kit.log.kafka.errors import DEPENDENCY
from tidewire_kit.log.kafka.members import MEMBERS_SPEC, Membership
from tidewire_kit.log.kafka.plain_reader import PlainReader
from tidewire_kit.log.kafka.producer import KafkaProducer
from tidewire_kit.log.kafka.settings import KafkaSettings
from tidewire_kit.log.kafka.statistics import Statistics
from tidewire_kit.log.kafka.tables import KafkaTable, unique
from tidewire_kit.log.port import (
    LogRecord,
    Member,
    MemberProfile,
    Outgoing,
    RebalanceHandler,
    TableItem,
    TopicSpec,
)

_TOPIC_NAME = re.compile(r"[a-z][a-z0-9.-]{0,199}")
_PREFIX = re.compile(r"[A-Za-z0-9.-]{0,40}")
_MOST_PARTITIONS = 1024
_HOUSEKEEPING_SECONDS = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Topic:
    """What this process knows of a topic that it ensured."""

    name: str  # the cluster's
    partitions: int
    compacted: bool
    incarnation: bytes


class KafkaLog:
    """`MessageLog` over a Kafka cluster."""

    def __init__(
        self, settings: KafkaSettings | None = None, *, registry: CollectorRegistry | None = None
    ) -> None:
        """`registry` takes the client library's statistics as metrics; None: they are not kept."""
        self._settings = settings or KafkaSettings()
        if not _PREFIX.fullmatch(self._settings.topic_prefix):
            why = f"{self._settings.topic_prefix!r} does not match {_PREFIX.pattern}; change it"
            raise InvalidArgument("TIDEWIRE_KAFKA_TOPIC_PREFIX", why)
        self._prefix = self._settings.topic_prefix
        self._statistics = Statistics(registry, self._prefix) if registry is not None else None
        self._topics: dict[str, _Topic] = {}
        self._consumers: list[KafkaConsumer] = []
        self._tables: list[KafkaTable] = []
        self._reader: PlainReader | None = None
        self._closing = False
        self._started = False

    async def start(self) -> None:
        """See the port. Raises FailedPrecondition (a setting is wrong) or Unavailable within 10 s."""
        self._closing = False
        self._admin = Admin(self._settings)
        await self._admin.connect()
        self._producer = KafkaProducer(self._settings, self._on_statistics("producer"))
        self._backlog = Backlog(self._admin)
        self._started = True
        try:
            await self.ensure_topics([MEMBERS_SPEC])
            self._membership = Membership(self.put, self.table(MEMBERS_SPEC.name))
            await self._membership.start()
        except BaseException:
            self._closing = True
            await self._close_parts()
            raise
        self._housekeeping = asyncio.create_task(self._keep_house(), name="kafka housekeeping")

    async def close(self) -> None:
        """See the port."""
        if not self._started or self._closing:
            return
        self._closing = True
        self._housekeeping.cancel()
        await asyncio.gather(self._housekeeping, return_exceptions=True)
        for consumer in tuple(self._consumers):
            try:
                await consumer.close()
            except Exception:  # noqa: BLE001 - whatever a handler raised, the rest is closed
                _log.exception("a consumer of group %s did not close in order", consumer.group)
        await self._membership.close()
        await self._close_parts()

    def ended(self) -> str | None:
        """See the port."""
        if not self._started or self._closing:
            return None
        lifelines = [self._membership.ended, self._producer.ended, self._backlog.ended]
        lifelines += [consumer.ended for consumer in self._consumers]
        lifelines += [table.ended for table in self._tables]
        if self._reader is not None:
            lifelines.append(self._reader.ended)
        return ended(self._housekeeping) or first(lifelines)

    # Topics

    async def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        """See the port. Also raises TopicMismatch for too few copies and for configurations that matter,
        FailedPrecondition TOO_FEW_BROKERS, and TOPIC_MISSING where `auto_topics` is off."""
        for spec in specs:
            if not _TOPIC_NAME.fullmatch(spec.name):
                raise InvalidArgument("topic", f"{spec.name!r} does not match {_TOPIC_NAME.pattern}")
            if not 1 <= spec.partitions <= _MOST_PARTITIONS:
                why = f"{spec.partitions} for topic {spec.name}; a topic has 1 to {_MOST_PARTITIONS}"
                raise InvalidArgument("partitions", why)
        _, facts = await topics.bring_about(
            self._admin, self._settings, specs, create=self._settings.auto_topics
        )
        for spec in specs:
            name = self._prefix + spec.name
            found = facts[name]
            self._topics[spec.name] = _Topic(name, found.partitions, spec.compacted, found.uuid)
            if spec.held_for and not spec.compacted:
                groups = tuple(self._prefix + group for group in spec.held_for)
                self._backlog.hold(Held(name, found.partitions, spec.retention_seconds, groups))

    def partitions(self, topic: str) -> int:
        """See the port."""
        return self._topic(topic).partitions

    def incarnation(self, topic: str) -> bytes:
        """See the port: the id that Kafka gave the topic."""
        return self._topic(topic).incarnation

    # Streams

    async def produce(self, topic: str, records: Sequence[Outgoing]) -> list[int]:
        """See the port."""
        stream = self._stream(topic)
        self._backlog.check(stream.name)
        return await self._producer.produce(stream.name, stream.partitions, records)

    async def read(
        self, topic: str, partition: int, offset: int, max_bytes: int = 8 << 20
    ) -> list[LogRecord]:
        """See the port."""
        stream = self._stream(topic)
        if not 0 <= partition < stream.partitions:
            raise InvalidArgument("partition", f"is {partition}; {topic} has {stream.partitions} partitions")
        begins, ends = await asyncio.gather(
            self._admin.begin_offsets(stream.name, [partition]),
            self._admin.end_offsets(stream.name, [partition]),
        )
        offset = max(offset, begins[partition])
        if offset >= ends[partition]:
            return []
        if self._closing:
            raise Unavailable(DEPENDENCY, "the process is stopping")
        if self._reader is None:
            self._reader = PlainReader(self._settings)
        return await self._reader.read(topic, partition, offset, ends[partition], max_bytes)

    async def consume(self, group: str, topics: Sequence[str], handler: RebalanceHandler) -> KafkaConsumer:
        """See the port."""
        if any(consumer.group == group for consumer in self._consumers):
            raise FailedPrecondition(
                f"this process consumes in group {group} already; close that consumer first",
                reason="ALREADY_CONSUMING",
                subject=group,
            )
        for topic in topics:
            self._stream(topic)
        consumer = KafkaConsumer(
            group,
            topics,
            handler,
            self._settings,
            self._admin,
            self._on_statistics(group),
            self._consumers.remove,
        )
        self._consumers.append(consumer)
        try:
            await consumer.start()
        except BaseException:
            with contextlib.suppress(TidewireError):
                await consumer.close()
            raise
        return consumer

    async def begin_offsets(self, topic: str) -> list[int]:
        """See the port."""
        stream = self._stream(topic)
        found = await self._admin.begin_offsets(stream.name, range(stream.partitions))
        return [found[partition] for partition in range(stream.partitions)]

    async def end_offsets(self, topic: str) -> list[int]:
        """See the port."""
        stream = self._stream(topic)
        found = await self._admin.end_offsets(stream.name, range(stream.partitions))
        return [found[partition] for partition in range(stream.partitions)]

    async def committed(self, group: str, topic: str) -> dict[int, int]:
        """See the port."""
        stream = self._stream(topic)
        return await self._admin.committed(self._prefix + group, stream.name, range(stream.partitions))

    async def lag(self, group: str, topic: str) -> dict[int, int]:
        """See the port."""
        committed, begins, ends = await asyncio.gather(
            self.committed(group, topic), self.begin_offsets(topic), self.end_offsets(topic)
        )
        return {
            partition: max(0, end - max(committed.get(partition, 0), begins[partition]))
            for partition, end in enumerate(ends)
        }

    # Compacted topics

    async def put(self, topic: str, items: Sequence[TableItem]) -> None:
        """See the port; but of a call that raised, any first part of the items may have been set (ADR 9)."""
        await self._producer.put(self._compacted(topic).name, unique(items))

    def table(self, topic: str) -> KafkaTable:
        """See the port."""
        self._compacted(topic)
        table = KafkaTable(topic, self._settings, self._tables.remove)
        self._tables.append(table)
        return table

    # Members

    async def announce(self, profile: MemberProfile) -> None:
        """See the port."""
        await self._membership.announce(profile)

    def members(self, service: str | None = None) -> list[Member]:
        """See the port."""
        return self._membership.members(service)

    # Inside

    def _topic(self, topic: str) -> _Topic:
        found = self._topics.get(topic)
        if found is None:
            raise UnknownTopic(f"topic {topic}")
        return found

    def _stream(self, topic: str) -> _Topic:
        found = self._topic(topic)
        if found.compacted:
            raise InvalidArgument("topic", f"{topic} is compacted: use `put` and `table`")
        return found

    def _compacted(self, topic: str) -> _Topic:
        found = self._topic(topic)
        if not found.compacted:
            raise InvalidArgument("topic", f"{topic} is a stream: use `produce` and `consume`")
        return found

    def _on_statistics(self, client: str) -> Callable[[str], None] | None:
        return None if self._statistics is None else self._statistics.of(client)

    async def _keep_house(self) -> None:
        while True:
            self._admin.poll()
            await asyncio.sleep(_HOUSEKEEPING_SECONDS)

    async def _close_parts(self) -> None:
        await self._backlog.close()
        await self._producer.close()
        await asyncio.gather(*(table.close() for table in tuple(self._tables)))
        if self._reader is not None:
            await self._reader.close()
        await self._admin.close()
