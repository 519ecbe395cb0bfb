"""Topics as they are and as they shall be: the plan, and carrying it out. `tidewire topic plan|apply` and
`KafkaLog.ensure_topics` use it."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from confluent_kafka import KafkaError

from tidewire_kit.errors import FailedPrecondition, TidewireError, Unavailable
from tidewire_kit.log.errors import TopicMismatch
from tidewire_kit.log.kafka.admin import Admin, TopicFacts
from tidewire_kit.log.kafka.config import BROKER_RECORD_BYTES
from tidewire_kit.log.kafka.errors import DEPENDENCY, mapped
from tidewire_kit.log.kafka.settings import KafkaSettings
from tidewire_kit.log.port import TopicSpec

_HOUR_MS = 3_600_000
_READY_SECONDS = 15.0
_READY_LOOK_SECONDS = 0.05


class Action(StrEnum):
    """What is to be done about a topic."""

    NONE = "none"
    """It is as it shall be."""
    CREATE = "create"
    ALTER = "alter"
    """A setting that can be changed in place differs."""
    REFUSE = "refuse"
    """It differs in what cannot be changed; the reason names the remedy."""


@dataclass(frozen=True, slots=True)
class TopicStep:
    """What the plan says of one topic."""

    topic: str
    """Its name in the cluster, with the prefix."""
    action: Action
    details: tuple[str, ...]
    """For people: what will be set or changed, or why it is refused and what to do."""


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """One step per topic asked for, in that order."""

    steps: tuple[TopicStep, ...]

    @property
    def changes(self) -> tuple[TopicStep, ...]:
        """What `apply` would do."""
        return tuple(step for step in self.steps if step.action in (Action.CREATE, Action.ALTER))

    @property
    def refusals(self) -> tuple[TopicStep, ...]:
        """What stands in the way: `apply` does nothing while there is any."""
        return tuple(step for step in self.steps if step.action is Action.REFUSE)


async def plan(settings: KafkaSettings, specs: Sequence[TopicSpec]) -> TopicPlan:
    """Compares the cluster's topics with `specs`; changes nothing. Raises what `KafkaLog.start` raises."""
    admin = Admin(settings)
    await admin.connect()
    return await _plan(admin, settings, specs, await _described(admin, settings, _names(settings, specs)))


async def apply(settings: KafkaSettings, specs: Sequence[TopicSpec]) -> TopicPlan:
    """Creates what is missing and alters what differs; returns the plan that was carried out.

    Raises TopicMismatch with all refusals and then has changed nothing; FailedPrecondition (TOO_FEW_BROKERS).
    """
    admin = Admin(settings)
    await admin.connect()
    made, _ = await bring_about(admin, settings, specs)
    return made


async def bring_about(
    admin: Admin, settings: KafkaSettings, specs: Sequence[TopicSpec], *, create: bool = True
) -> tuple[TopicPlan, dict[str, TopicFacts]]:
    """Does as `apply`, with an admin client that is connected; also returns the facts, by the cluster's names.

    `create=False` refuses what is missing (FailedPrecondition, TOPIC_MISSING) instead of creating it.
    """
    names = _names(settings, specs)
    facts = await _described(admin, settings, names)
    made = await _plan(admin, settings, specs, facts)
    if made.refusals:
        raise _refusal(made)
    missing = [(spec, name) for spec, name in zip(specs, names, strict=True) if facts[name] is None]
    if missing and not create:
        listed = ", ".join(name for _, name in missing)
        why = f"missing topics: {listed}; run `tidewire topic apply`, or set TIDEWIRE_KAFKA_AUTO_TOPICS=true"
        raise FailedPrecondition(why, reason="TOPIC_MISSING", subject=missing[0][1])
    if missing:
        await _create(admin, settings, {name: spec for spec, name in missing})
        facts |= await _ready(admin, settings, [name for _, name in missing])
        # Another process may have been quicker, and of another opinion.
        refused = await _plan(admin, settings, specs, facts)
        if refused.refusals:
            raise _refusal(refused)
    for spec, name in zip(specs, names, strict=True):
        found = facts[name]
        if found is not None and (changes := _changes(spec, found)):
            await admin.alter(name, changes)
    return made, {name: found for name, found in facts.items() if found is not None}


def create_configs(settings: KafkaSettings, spec: TopicSpec) -> dict[str, str]:
    """The configuration that a topic is created with."""
    configs = {
        "cleanup.policy": "compact" if spec.compacted else "delete",
        "message.timestamp.type": "LogAppendTime",
        "min.insync.replicas": str(min_insync(settings)),
        "unclean.leader.election.enable": "false",
        "max.message.bytes": str(BROKER_RECORD_BYTES),
    }
    if spec.compacted:
        # The open segment is never compacted: keep it small, so that a replay reads little more than the live keys.
        configs |= {
            "segment.ms": str(_HOUR_MS),
            "segment.bytes": str(32 << 20),
            "min.cleanable.dirty.ratio": "0.1",
            "max.compaction.lag.ms": str(6 * _HOUR_MS),
        }
    else:
        # Whole segments are removed: a twelfth of the retention keeps the log near what was asked for.
        retention_ms = _retention_ms(spec)
        segment_ms = max(10 * 60_000, min(retention_ms // 12, 6 * _HOUR_MS))
        configs |= {"retention.ms": str(retention_ms), "retention.bytes": "-1", "segment.ms": str(segment_ms)}
    return configs


def min_insync(settings: KafkaSettings) -> int:
    """At most all copies can be in sync, so a single broker needs one setting, not two."""
    return min(settings.min_insync_replicas, settings.replication_factor)


def _names(settings: KafkaSettings, specs: Sequence[TopicSpec]) -> list[str]:
    return [settings.topic_prefix + spec.name for spec in specs]


async def _described(
    admin: Admin, settings: KafkaSettings, names: Sequence[str]
) -> dict[str, TopicFacts | None]:
    """The topics as they are. Raises FailedPrecondition when the brokers are too old to give topics ids."""
    facts = await admin.describe(names)
    for name, found in facts.items():
        if found is not None and not found.uuid:
            raise FailedPrecondition(
                f"the brokers at {settings.bootstrap_servers} give topic {name} no id, so they are older than Kafka "
                "3.0; upgrade them, or name newer ones in TIDEWIRE_KAFKA_BOOTSTRAP_SERVERS",
                reason="KAFKA_TOO_OLD",
                subject="TIDEWIRE_KAFKA_BOOTSTRAP_SERVERS",
            )
    return facts


async def _plan(
    admin: Admin, settings: KafkaSettings, specs: Sequence[TopicSpec], facts: dict[str, TopicFacts | None]
) -> TopicPlan:
    steps = []
    brokers: int | None = None
    for spec, name in zip(specs, _names(settings, specs), strict=True):
        found = facts[name]
        if found is not None:
            steps.append(_step(settings, spec, name, found))
            continue
        if brokers is None:
            brokers = (await admin.cluster()).brokers
        if brokers < settings.replication_factor:
            steps.append(TopicStep(name, Action.REFUSE, (_too_few_brokers(settings, brokers),)))
        else:
            shape = f"{_partitions(spec)} partitions, {settings.replication_factor} copies"
            configs = (f"{key}={value}" for key, value in create_configs(settings, spec).items())
            steps.append(TopicStep(name, Action.CREATE, (shape, *configs)))
    return TopicPlan(tuple(steps))


def _step(settings: KafkaSettings, spec: TopicSpec, name: str, found: TopicFacts) -> TopicStep:
    refusals = _mismatches(settings, spec, name, found)
    if refusals:
        return TopicStep(name, Action.REFUSE, tuple(refusals))
    changes = _changes(spec, found)
    if changes:
        details = (f"{key}: {found.configs.get(key)} → {value}" for key, value in changes.items())
        return TopicStep(name, Action.ALTER, tuple(details))
    return TopicStep(name, Action.NONE, ())


def _mismatches(settings: KafkaSettings, spec: TopicSpec, name: str, found: TopicFacts) -> list[str]:
    """Everything about a topic that is refused, each with its remedy."""
    configs = found.configs
    why = []
    policy, wanted = configs.get("cleanup.policy", ""), "compact" if spec.compacted else "delete"
    if policy != wanted:
        why.append(
            f"topic {name} has cleanup.policy={policy}, {wanted} is asked for; set TIDEWIRE_KAFKA_TOPIC_PREFIX if it "
            f"belongs to somebody else, or delete it, or: {_alter(name, 'cleanup.policy', wanted)}"
        )
    if found.partitions != _partitions(spec):
        remedy = (
            "a table has one partition: delete the topic, and its state will be published again"
            if spec.compacted
            else f"set TIDEWIRE_KAFKA_PARTITIONS={found.partitions}, or set TIDEWIRE_KAFKA_TOPIC_PREFIX for a new topic"
        )
        why.append(
            f"topic {name} has {found.partitions} partitions, {_partitions(spec)} are asked for, and the number never "
            f"changes; {remedy}"
        )
    if found.replication < settings.replication_factor:
        why.append(
            f"topic {name} has {found.replication} copies of a partition, {settings.replication_factor} are asked for; "
            f"set TIDEWIRE_KAFKA_REPLICATION_FACTOR={found.replication}, or add copies with kafka-reassign-partitions"
        )
    insync = int(configs.get("min.insync.replicas", "1"))
    if insync < min_insync(settings):
        why.append(
            f"topic {name} has min.insync.replicas={insync}, {min_insync(settings)} is asked for; "
            f"{_alter(name, 'min.insync.replicas', str(min_insync(settings)))}, or set "
            f"TIDEWIRE_KAFKA_MIN_INSYNC_REPLICAS={insync}"
        )
    if configs.get("message.timestamp.type") != "LogAppendTime":
        why.append(
            f"topic {name} takes its time stamps from the writers; "
            f"{_alter(name, 'message.timestamp.type', 'LogAppendTime')}"
        )
    if int(configs.get("max.message.bytes", BROKER_RECORD_BYTES)) < BROKER_RECORD_BYTES:
        why.append(
            f"topic {name} takes records of {configs['max.message.bytes']} bytes at most, {BROKER_RECORD_BYTES} are "
            f"needed; {_alter(name, 'max.message.bytes', str(BROKER_RECORD_BYTES))}"
        )
    return why


def _changes(spec: TopicSpec, found: TopicFacts) -> dict[str, str]:
    """What differs and is changed in place: the retention."""
    wanted = str(_retention_ms(spec))
    if spec.compacted or found.configs.get("retention.ms") == wanted:
        return {}
    return {"retention.ms": wanted}


async def _create(admin: Admin, settings: KafkaSettings, specs: dict[str, TopicSpec]) -> None:
    failures = await admin.create(
        {
            name: (_partitions(spec), settings.replication_factor, create_configs(settings, spec))
            for name, spec in specs.items()
        }
    )
    for name, error in failures.items():
        raise await _creation_failed(admin, settings, name, error)


async def _creation_failed(
    admin: Admin, settings: KafkaSettings, name: str, error: KafkaError
) -> TidewireError:
    if error.code() in (KafkaError.INVALID_REPLICATION_FACTOR, KafkaError.NOT_ENOUGH_REPLICAS):
        why = _too_few_brokers(settings, (await admin.cluster()).brokers)
        return FailedPrecondition(
            f"cannot create topic {name}: {why}", reason="TOO_FEW_BROKERS", subject=name
        )
    if error.code() == KafkaError.POLICY_VIOLATION:
        why = (
            f"cannot create topic {name}: the cluster's policy forbids it ({error.str()}); create it yourself"
        )
        return FailedPrecondition(why, reason="KAFKA_NOT_AUTHORIZED", subject=name)
    return mapped(error, f"cannot create topic {name}")


async def _ready(admin: Admin, settings: KafkaSettings, names: list[str]) -> dict[str, TopicFacts | None]:
    """Waits until the cluster shows the new topics with a leader for each partition."""
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        facts = await _described(admin, settings, names)
        if all(found is not None and found.ready for found in facts.values()):
            return facts
        if time.monotonic() > deadline:
            slow = [name for name, found in facts.items() if found is None or not found.ready]
            raise Unavailable(DEPENDENCY, f"new topics have no leaders yet: {', '.join(slow)}")
        await asyncio.sleep(_READY_LOOK_SECONDS)


def _refusal(made: TopicPlan) -> FailedPrecondition:
    first = made.refusals[0]
    why = "; ".join(detail for step in made.refusals for detail in step.details)
    if all("TIDEWIRE_KAFKA_REPLICATION_FACTOR asks" in step.details[0] for step in made.refusals):
        return FailedPrecondition(f"cannot create topic {first.topic}: {why}", reason="TOO_FEW_BROKERS")
    return TopicMismatch(why, topic=first.topic)


def _too_few_brokers(settings: KafkaSettings, brokers: int) -> str:
    return (
        f"the cluster has {brokers} brokers, TIDEWIRE_KAFKA_REPLICATION_FACTOR asks for {settings.replication_factor} "
        f"copies; start more brokers, or set TIDEWIRE_KAFKA_REPLICATION_FACTOR={brokers}"
    )


def _alter(name: str, key: str, value: str) -> str:
    return f"run: kafka-configs --alter --topic {name} --add-config {key}={value}"


def _partitions(spec: TopicSpec) -> int:
    return 1 if spec.compacted else spec.partitions


def _retention_ms(spec: TopicSpec) -> int:
    return max(1, int(spec.retention_seconds * 1000))
