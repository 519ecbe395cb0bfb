"""Questions to the cluster and changes of its topics, without blocking the event loop. Names here are the cluster's
(with the prefix). Used by every part of the adapter; one per log."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import (
    OFFSET_INVALID,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from tidewire_kit.errors import TidewireError
from tidewire_kit.log.kafka import config
from tidewire_kit.log.kafka.errors import MOVING_CODES, cannot_connect, incurable, kafka_error, mapped
from tidewire_kit.log.kafka.group_offsets import GroupOffsets
from tidewire_kit.log.kafka.settings import KafkaSettings

_LOOK_SECONDS = 0.2
_MOST_ERRORS = 50
_AGAIN_SECONDS = 0.1
_ATTEMPT_SECONDS = 3.0
_AGAIN_CODES = MOVING_CODES | {KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError.REQUEST_TIMED_OUT}


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """A topic as the cluster has it."""

    partitions: int
    replication: int
    """Of the partition with the fewest copies."""
    uuid: bytes
    """16 bytes; empty from brokers that give topics none."""
    ready: bool
    """Every partition has a leader."""
    configs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """The cluster itself."""

    cluster_id: str
    brokers: int
    controller: str
    """host:port."""


class Admin:
    """An admin client whose answers are awaited."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Raises what `config.base` raises."""
        self._settings = settings
        self._errors: list[KafkaError] = []
        self._groups = GroupOffsets(settings)
        self._client = AdminClient(config.base(settings, "admin") | {"error_cb": self._on_error})

    async def connect(self) -> None:
        """Returns once a broker has answered. Raises FailedPrecondition as soon as it is known that none ever will
        (password, certificates), Unavailable after `connect_timeout_seconds`; both name the setting."""
        await asyncio.to_thread(self._connect)

    def poll(self) -> None:
        """Hands on what the library logs."""
        self._client.poll(0)

    async def close(self) -> None:
        """Gives up what was opened to ask for groups."""
        await self._groups.close()

    async def cluster(self) -> ClusterFacts:
        """Asks the cluster for itself."""
        found = await self._answer(
            self._client.describe_cluster(request_timeout=self._settings.request_timeout_seconds),
            "cannot ask the cluster for its brokers",
        )
        controller = f"{found.controller.host}:{found.controller.port}" if found.controller else ""
        return ClusterFacts(found.cluster_id or "", len(found.nodes), controller)

    async def describe(self, topics: Iterable[str]) -> dict[str, TopicFacts | None]:
        """Topic → facts; None for one that is missing."""
        names = list(dict.fromkeys(topics))
        if not names:
            return {}
        seconds = self._settings.request_timeout_seconds
        asked = self._client.describe_topics(TopicCollection(names), request_timeout=seconds)
        described: dict[str, Any] = {}
        for name in names:
            try:
                described[name] = await asyncio.wrap_future(asked[name])
            except KafkaException as error:
                found = kafka_error(error)
                if found is None or found.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise mapped(error, f"cannot describe topic {name}") from error
                described[name] = None
        there = [name for name, topic in described.items() if topic is not None]
        configs = await self._configs(there)
        return {
            name: None if topic is None or name not in configs else _facts(topic, configs[name])
            for name, topic in described.items()
        }

    async def create(self, topics: Mapping[str, tuple[int, int, Mapping[str, str]]]) -> dict[str, KafkaError]:
        """Creates topics (name → partitions, replication, configs); returns what failed. One that exists by now is no
        failure: another process was quicker."""
        new = [
            NewTopic(name, num_partitions=partitions, replication_factor=replication, config=dict(configs))
            for name, (partitions, replication, configs) in topics.items()
        ]
        failures: dict[str, KafkaError] = {}
        for name, asked in self._client.create_topics(
            new, operation_timeout=self._settings.request_timeout_seconds
        ).items():
            try:
                await asyncio.wrap_future(asked)
            except KafkaException as error:
                found = kafka_error(error)
                if found is None:
                    raise mapped(error, f"cannot create topic {name}") from error
                if found.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    failures[name] = found
        return failures

    async def alter(self, topic: str, configs: Mapping[str, str]) -> None:
        """Sets configurations of a topic; all others stay."""
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
            for name, value in configs.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        for asked in self._client.incremental_alter_configs([resource]).values():
            await self._answer(asked, f"cannot change the configuration of topic {topic}")

    async def begin_offsets(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Partition → oldest offset kept."""
        return await self._offsets(topic, partitions, OffsetSpec.earliest())

    async def end_offsets(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Partition → offset after the last record that all in-sync replicas have."""
        return await self._offsets(topic, partitions, OffsetSpec.latest())

    async def offsets_at(self, topic: str, partitions: Iterable[int], time_ms: int) -> dict[int, int]:
        """Partition → offset of the first record of `time_ms` (unix) or later; -1 when there is none."""
        return await self._offsets(topic, partitions, OffsetSpec.for_timestamp(time_ms))

    async def committed(self, group: str, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Partition → committed offset; those never committed are absent."""
        numbers = list(partitions)

        async def ask() -> dict[int, int]:
            return await self._groups.committed(group, topic, numbers)

        return await self._asked(ask, topic, f"cannot ask for the committed offsets of group {group}")

    async def _offsets(self, topic: str, partitions: Iterable[int], spec: Any) -> dict[int, int]:
        wanted = {TopicPartition(topic, partition): spec for partition in partitions}

        async def ask() -> dict[int, int]:
            asked = self._client.list_offsets(wanted, request_timeout=_ATTEMPT_SECONDS)
            answers = await asyncio.gather(*map(asyncio.wrap_future, asked.values()))
            if any(found.offset == OFFSET_INVALID for found in answers):
                # No offset and no error: so the library answers when the leader died while it was asked.
                raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
            return {where.partition: found.offset for where, found in zip(asked, answers, strict=True)}

        return await self._asked(ask, topic, f"cannot ask for the offsets of topic {topic}")

    async def _configs(self, topics: list[str]) -> dict[str, dict[str, str]]:
        if not topics:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
        seconds = self._settings.request_timeout_seconds
        found: dict[str, dict[str, str]] = {}
        for resource, asked in self._client.describe_configs(resources, request_timeout=seconds).items():
            try:
                entries = await asyncio.wrap_future(asked)
            except KafkaException as error:
                cause = kafka_error(error)
                if cause is not None and cause.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    continue  # on its way: one broker knows it, this one not yet
                raise mapped(error, f"cannot read the configuration of topic {resource.name}") from error
            found[resource.name] = {name: entry.value for name, entry in entries.items()}
        return found

    async def _asked[T](self, ask: Callable[[], Awaitable[T]], topic: str, doing: str) -> T:
        """Asks again while leaders and coordinators move. After a broker's crash the library would go on asking with
        the leaders' old epochs, so it is made to look at the topic anew."""
        deadline = time.monotonic() + self._settings.request_timeout_seconds
        while True:
            try:
                return await ask()
            except KafkaException as error:
                found = kafka_error(error)
                if found is None or found.code() not in _AGAIN_CODES or time.monotonic() > deadline:
                    raise mapped(error, doing) from error
            await asyncio.sleep(_AGAIN_SECONDS)
            with contextlib.suppress(KafkaException):
                await asyncio.to_thread(self._client.list_topics, topic, _LOOK_SECONDS)

    async def _answer(self, asked: "Future[Any]", doing: str) -> Any:
        try:
            return await asyncio.wrap_future(asked)
        except KafkaException as error:
            raise mapped(error, doing) from error

    def _on_error(self, error: KafkaError) -> None:
        self._errors.append(error)
        del self._errors[:-_MOST_ERRORS]

    def _connect(self) -> None:
        self._errors.clear()
        deadline = time.monotonic() + self._settings.connect_timeout_seconds
        asked: Future[Any] | None = None
        while True:
            asked = asked or self._client.describe_cluster(
                request_timeout=self._settings.connect_timeout_seconds
            )
            try:
                asked.result(_LOOK_SECONDS)
            except TimeoutError:
                pass
            except KafkaException:
                asked = None
                time.sleep(_LOOK_SECONDS)
            else:
                return
            self._client.poll(0)
            failure = self._incurable()
            if failure is None and time.monotonic() > deadline:
                failure = cannot_connect(self._settings, self._errors)
            if failure is not None:
                raise failure

    def _incurable(self) -> TidewireError | None:
        return next((found for error in self._errors if (found := incurable(self._settings, error))), None)


def _facts(described: Any, configs: Mapping[str, str]) -> TopicFacts:
    uuid = b""
    if described.topic_id is not None:
        mask = (1 << 64) - 1
        high = described.topic_id.get_most_significant_bits() & mask
        low = described.topic_id.get_least_significant_bits() & mask
        uuid = high.to_bytes(8, "big") + low.to_bytes(8, "big") if high or low else b""
    return TopicFacts(
        partitions=len(described.partitions),
        replication=min((len(partition.replicas) for partition in described.partitions), default=0),
        uuid=uuid,
        ready=all(partition.leader is not None for partition in described.partitions),
        configs=configs,
    )
