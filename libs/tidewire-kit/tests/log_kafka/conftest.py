"""Logs on a real cluster, each test under a prefix of its own, closed and its topics removed after the test."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
from confluent_kafka.admin import AdminClient

from tidewire_kit.log.kafka import KafkaLog, KafkaSettings

MakeLog = Callable[..., Awaitable[KafkaLog]]


@pytest.fixture
def kafka_settings(kafka_servers: str) -> KafkaSettings:
    """A lone broker, a fresh prefix."""
    return KafkaSettings(
        bootstrap_servers=kafka_servers,
        topic_prefix=f"t{uuid.uuid4().hex[:8]}.",
        replication_factor=1,
        session_timeout_ms=6000,
    )


@pytest.fixture
async def message_log_factory(kafka_settings: KafkaSettings) -> AsyncIterator[MakeLog]:
    """Starts logs; keyword arguments change the settings."""
    logs: list[KafkaLog] = []

    async def make(**changes: object) -> KafkaLog:
        log = KafkaLog(replace(kafka_settings, **changes))
        await log.start()
        logs.append(log)
        return log

    yield make
    for log in logs:
        await log.close()
    admin = AdminClient({"bootstrap.servers": kafka_settings.bootstrap_servers})
    names = [
        name for name in admin.list_topics(timeout=10).topics if name.startswith(kafka_settings.topic_prefix)
    ]
    if names:
        for done in admin.delete_topics(names).values():
            done.result()
