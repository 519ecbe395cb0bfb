"""Names of its own on shared servers for a platform that shall leave nothing behind; `demo --temporary` uses it."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tidewire_kit.cassandra import CassandraSettings, connect
from tidewire_kit.errors import Unavailable
from tidewire_kit.log.kafka import KafkaSettings, config
from tidewire_kit.settings import load
from tidewire_platform.topology import kafka_specs

_SECONDS = 30.0


@contextlib.asynccontextmanager
async def temporary_names(environ: Mapping[str, str]) -> AsyncIterator[Mapping[str, str]]:
    """Yields settings with a new topic prefix and keyspace; removes both when the block has ended, and the platform."""
    name = f"demo_{secrets.token_hex(6)}"
    prefix = environ.get("TIDEWIRE_KAFKA_TOPIC_PREFIX", "") + f"{name.replace('_', '-')}."
    own = {**environ, "TIDEWIRE_KAFKA_TOPIC_PREFIX": prefix, "TIDEWIRE_CASSANDRA_KEYSPACE": name}
    kafka, cassandra = load(KafkaSettings, own), load(CassandraSettings, own)
    try:
        yield own
    finally:
        await asyncio.shield(_remove(kafka, cassandra))


async def _remove(kafka: KafkaSettings, cassandra: CassandraSettings) -> None:
    session = await connect(cassandra, keyspace=None)
    try:
        await session.execute_cql(f"DROP KEYSPACE IF EXISTS {cassandra.checked_keyspace()}")
    finally:
        await session.close()
    await asyncio.to_thread(_delete_topics, kafka)


def _delete_topics(settings: KafkaSettings) -> None:
    client = AdminClient(config.base(settings, "demo"))
    names = [settings.topic_prefix + spec.name for spec in kafka_specs(settings)]
    try:
        known = client.list_topics(timeout=_SECONDS).topics
        found = [name for name in names if name in known]
        for done in client.delete_topics(found, operation_timeout=_SECONDS).values() if found else ():
            done.result()
    except KafkaException as error:
        raise Unavailable(
            "kafka", f"the topics {settings.topic_prefix}* could not be removed ({error})"
        ) from error
