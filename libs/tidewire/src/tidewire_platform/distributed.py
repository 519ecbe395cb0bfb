"""What `tidewire up` does before it starts services on Kafka and Cassandra: keys, topics, schema.

On a cluster an administrator decides when these change (`tidewire admin bootstrap`, `topic apply`, `schema apply`);
`up` is for a laptop, where waiting for that decision would only be in the way.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tidewire_kit.backend import check_given, check_settings
from tidewire_kit.cassandra import CassandraSettings
from tidewire_kit.datadir import DataDir
from tidewire_kit.log.kafka import KafkaSettings
from tidewire_kit.settings import CommonSettings, load
from tidewire_platform.quiet import quiet
from tidewire_platform.topology import apply_schema, apply_topics
from tidewire_registry.bootstrap import bootstrap

_KEY, _TOKEN = "TIDEWIRE_SIGNING_KEY_FILE", "TIDEWIRE_SERVICE_TOKEN_FILE"


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the services are told, and what was done for people to read."""

    environ: Mapping[str, str]
    notes: tuple[str, ...]


async def prepare(data_dir: DataDir, settings: CommonSettings, environ: Mapping[str, str]) -> Prepared:
    """Makes keys and tokens in the data directory unless the settings name others, and applies topics and schema.

    Raises InvalidArgument naming a setting, Unavailable when Kafka or Cassandra cannot be reached, FailedPrecondition
    when what is there cannot be brought up to date.
    """
    quiet()
    named = _named_keys(settings)
    keys = await asyncio.to_thread(bootstrap, data_dir.root, signing_key_file=settings.signing_key_file)
    variables = {
        **environ,
        _KEY: str(named.get(_KEY, keys.signing_key_file)),
        _TOKEN: str(named.get(_TOKEN, keys.service_token_file)),
    }
    check_settings(load(CommonSettings, variables), variables)
    kafka, cassandra = load(KafkaSettings, environ), load(CassandraSettings, environ)
    topic_plan, schema_plan = await asyncio.gather(apply_topics(kafka), apply_schema(cassandra))
    topics_done = f"{len(topic_plan.changes)} of {len(topic_plan.steps)} topics created or changed"
    steps_done = f"{len(schema_plan.steps)} schema steps applied"
    return Prepared(
        variables,
        (
            f"Kafka      {kafka.bootstrap_servers}: {topics_done}",
            f"Cassandra  {cassandra.contact_points}, keyspace {cassandra.keyspace}: {steps_done}",
        ),
    )


def _named_keys(settings: CommonSettings) -> dict[str, Path]:
    """The files that the user has named, which must be there; a token of another key would be refused by everybody."""
    named = {_KEY: settings.signing_key_file, _TOKEN: settings.service_token_file}
    for variable, path in named.items():
        if path is not None:
            check_given(variable, path, "the key or token that it is for")
    return {variable: path for variable, path in named.items() if path is not None}
