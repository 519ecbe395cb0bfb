"""Kafka: reached, its version, the platform's topics against the plan, copies of what is acknowledged, its clock."""

import asyncio
import time
from collections import defaultdict
from typing import Any, Final

from confluent_kafka import KafkaException, Producer

from tidewire_kit import topics
from tidewire_kit.errors import TidewireError
from tidewire_kit.log.kafka import KafkaSettings, config
from tidewire_kit.log.kafka import topics as kafka_topics
from tidewire_kit.log.kafka.admin import Admin
from tidewire_kit.log.kafka.topics import Action
from tidewire_platform.doctor.clocks import check_clock
from tidewire_platform.doctor.finding import Finding, ok, warning, wrong
from tidewire_platform.doctor.kafka_version import kafka_version
from tidewire_platform.topology import kafka_specs

CHECK: Final = "kafka"
TOPIC: Final = "topic"
COPIES: Final = "copies"
_PROBE_KEY: Final = b"doctor"
"""Written to the table of members without a value: it removes a key that nobody has."""
_PROBE_SECONDS: Final = 10.0


async def check_kafka(settings: KafkaSettings) -> list[Finding]:
    """Looks at the cluster. What depends on a connection is left out when there is none."""
    subject = settings.bootstrap_servers
    try:
        admin = Admin(settings)
        await admin.connect()
        cluster = await admin.cluster()
    except TidewireError as error:
        return [wrong(CHECK, subject, error.message, "correct what the message names, then look again")]
    reached = ok(CHECK, subject, f"{cluster.brokers} brokers, cluster {cluster.cluster_id}")
    findings = [reached, await _version(settings), *await _topics(admin, settings)]
    if all(finding.state != "wrong" for finding in findings):
        findings.append(await _clock(settings))
    return findings


async def _version(settings: KafkaSettings) -> Finding:
    subject = settings.bootstrap_servers
    try:
        version = await asyncio.to_thread(kafka_version, settings)
    except (OSError, ValueError) as error:
        return warning(
            CHECK, subject, f"its version cannot be asked ({error})", "see whether it is 4.0 or newer"
        )
    if version == "older than 3.0":
        return wrong(
            CHECK, subject, f"Kafka is {version}: its topics have no ids", "upgrade it to 4.0 or newer"
        )
    if version == "3.x":
        return warning(
            CHECK,
            subject,
            "Kafka is 3.x, with which this version is not tested",
            "upgrade it to 4.0 or newer",
        )
    return ok(CHECK, subject, f"Kafka {version}")


async def _topics(admin: Admin, settings: KafkaSettings) -> list[Finding]:
    specs = kafka_specs(settings)
    try:
        plan = await kafka_topics.plan(settings, specs)
        facts = await admin.describe(step.topic for step in plan.steps)
    except TidewireError as error:
        return [wrong(TOPIC, settings.topic_prefix or "all", error.message, "correct what the message names")]
    findings, refused = [], defaultdict[str, list[str]](list)
    for step in plan.steps:
        text = "; ".join(step.details)
        if step.action is Action.REFUSE:
            refused[text].append(step.topic)
        elif step.action is Action.CREATE:
            findings.append(wrong(TOPIC, step.topic, "is missing", "create it with `tidewire topic apply`"))
        elif step.action is Action.ALTER:
            findings.append(
                warning(TOPIC, step.topic, f"differs: {text}", "change it with `tidewire topic apply`")
            )
        else:
            found = facts[step.topic]
            partitions = found.partitions if found else 0
            findings.append(ok(TOPIC, step.topic, f"as planned, {partitions} partitions"))
    for text, names in refused.items():  # too few brokers is one fault, not one a topic
        findings.append(wrong(TOPIC, ", ".join(names), text, "do as it says, then look again"))
    leaderless = [name for name, found in facts.items() if found is not None and not found.ready]
    if leaderless:
        remedy = "bring the brokers back that hold them; `kafka-topics --describe --unavailable-partitions` names them"
        findings.append(wrong(TOPIC, ", ".join(leaderless), "partitions without a leader", remedy))
    single = [name for name, found in facts.items() if found is not None and found.replication == 1]
    if single:
        findings.append(
            warning(
                COPIES,
                f"{len(single)} topics",
                "have one copy: what was acknowledged is lost with its broker's disk",
                "for production three brokers, TIDEWIRE_KAFKA_REPLICATION_FACTOR=3 and "
                "TIDEWIRE_KAFKA_MIN_INSYNC_REPLICAS=2, and new topics (another TIDEWIRE_KAFKA_TOPIC_PREFIX)",
            )
        )
    return findings


async def _clock(settings: KafkaSettings) -> Finding:
    async def ask() -> float:
        return await asyncio.to_thread(_append_time, settings)

    try:
        return await check_clock(settings.bootstrap_servers, ask)
    except TidewireError as error:
        return wrong(CHECK, settings.bootstrap_servers, error.message, "correct what the message names")
    except (KafkaException, TimeoutError) as error:
        return wrong(
            CHECK,
            settings.bootstrap_servers,
            f"a record written to {settings.topic_prefix}{topics.MEMBERS} was not acknowledged ({error})",
            "see whether enough brokers are alive for min.insync.replicas, and whether the user may write",
        )


def _append_time(settings: KafkaSettings) -> float:
    """Writes a record that changes nothing and returns the broker's time stamp of it, in unix seconds. Blocks."""
    acknowledged: list[tuple[Any, Any]] = []
    producer = Producer(config.producer(settings, lambda error: None))
    producer.produce(
        settings.topic_prefix + topics.MEMBERS,
        key=_PROBE_KEY,
        partition=0,
        on_delivery=lambda error, message: acknowledged.append((error, message)),
    )
    deadline = time.monotonic() + _PROBE_SECONDS
    while not acknowledged and time.monotonic() < deadline:
        producer.poll(0.01)
    if not acknowledged:
        producer.purge()
        raise TimeoutError(f"no answer within {_PROBE_SECONDS:.0f} s")
    error, message = acknowledged[0]
    if error is not None:
        raise KafkaException(error)
    return float(message.timestamp()[1]) / 1000
