"""Committed offsets of groups, asked for without being a member. Used by `admin`.

A consumer asks, not the admin client: `list_consumer_group_offsets` of librdkafka 2.x never answers, or ends the
process by a failed assertion, when the group's coordinator dies while it is asked.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tidewire_kit.log.kafka import config
from tidewire_kit.log.kafka.settings import KafkaSettings


class GroupOffsets:
    """One client per group, made when it is first asked for. One question at a time."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._clients: dict[str, Any] = {}
        self._asking = asyncio.Lock()

    async def committed(self, group: str, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Partition → committed offset; those never committed are absent. Names are the cluster's. Raises
        KafkaException."""
        wanted = [TopicPartition(topic, partition) for partition in partitions]
        async with self._asking:
            return await asyncio.to_thread(self._committed, group, wanted)

    async def close(self) -> None:
        """Gives up the clients."""
        async with self._asking:
            clients, self._clients = self._clients, {}
            for client in clients.values():
                with contextlib.suppress(KafkaException):
                    await asyncio.to_thread(client.close)

    def _committed(self, group: str, wanted: list[Any]) -> dict[int, int]:
        client = self._clients.get(group)
        if client is None:
            settings = config.base(self._settings, "groups") | {
                "group.id": group,
                "enable.auto.commit": False,
            }
            client = self._clients[group] = Consumer(settings)
        answer = client.committed(wanted, timeout=self._settings.request_timeout_seconds)
        for found in answer:
            if found.error is not None:
                raise KafkaException(found.error)
        return {found.partition: found.offset for found in answer if found.offset >= 0}
