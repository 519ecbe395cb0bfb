"""What `tidewire doctor` looks at on the distributed backend: Kafka and Cassandra, then lag and services by the log."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from tidewire_kit import topics
from tidewire_kit.cassandra import CassandraSettings
from tidewire_kit.errors import TidewireError
from tidewire_kit.log.kafka import KafkaLog, KafkaSettings
from tidewire_kit.log.port import MessageLog
from tidewire_kit.settings import CommonSettings, load
from tidewire_platform.doctor.cassandra import check_cassandra
from tidewire_platform.doctor.finding import Finding, State, wrong
from tidewire_platform.doctor.kafka import CHECK as KAFKA
from tidewire_platform.doctor.kafka import TOPIC, check_kafka
from tidewire_platform.doctor.lag import check_lag
from tidewire_platform.doctor.services import Known, check_services
from tidewire_platform.platform import ca_file_of
from tidewire_platform.specs import SERVICES

_LEAST_SECONDS: Final = 0.5
_MEMBERS_SECONDS: Final = 3.0
"""Processes announce themselves every 2 s."""


async def check_distributed(common: CommonSettings, environ: Mapping[str, str]) -> list[Finding]:
    """All findings. Raises InvalidArgument for a setting that is wrong."""
    kafka, cassandra = load(KafkaSettings, environ), load(CassandraSettings, environ)
    on_kafka, on_cassandra = await asyncio.gather(check_kafka(kafka), check_cassandra(cassandra))
    usable = all(finding.state is not State.WRONG for finding in on_kafka if finding.check in (KAFKA, TOPIC))
    through_log = await _check_through_log(kafka, common) if usable else []
    return [*on_kafka, *on_cassandra, *through_log]


async def _check_through_log(settings: KafkaSettings, common: CommonSettings) -> list[Finding]:
    log = KafkaLog(replace(settings, auto_topics=False))  # a look creates nothing
    authority = ca_file_of(common)
    try:
        await log.start()
        await log.ensure_topics(topics.specs(settings.partitions))
        lag = await check_lag(log, time.time_ns() // 1000)
        return [
            *lag,
            *await check_services(await _known(log), authority.read_bytes() if authority else None),
        ]
    except TidewireError as error:
        return [wrong("log", settings.bootstrap_servers, error.message, "correct what the message names")]
    finally:
        await log.close()


async def _known(log: MessageLog) -> Known:
    """The members, once they have been read: whoever is there has said so by then, or is none."""
    began = time.monotonic()
    while (waited := time.monotonic() - began) < _MEMBERS_SECONDS:
        if waited > _LEAST_SECONDS and {member.service for member in log.members()}.issuperset(SERVICES):
            break
        await asyncio.sleep(0.1)
    known: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for member in log.members():
        if "grpc" in member.addresses:
            known[member.service].append((member.addresses["grpc"], member.addresses.get("metrics", "")))
    return known
