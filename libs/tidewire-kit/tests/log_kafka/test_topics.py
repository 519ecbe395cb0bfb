"""Topics are planned, created and refused as their page says."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from tidewire_kit.errors import FailedPrecondition
from tidewire_kit.log import TopicSpec
from tidewire_kit.log.kafka import KafkaLog, KafkaSettings, topics
from tidewire_kit.log.kafka.admin import Admin
from tidewire_kit.log.kafka.topics import Action
from tidewire_testkit.polling import until

pytestmark = pytest.mark.servers

MakeLog = Callable[..., Awaitable[KafkaLog]]
STREAM = TopicSpec("stream.v1", partitions=3, retention_seconds=86_400)
TABLE = TopicSpec("table.v1", compacted=True)


@pytest.fixture(autouse=True)
async def _cleaned_up(message_log_factory: MakeLog) -> None:
    """So that the topics made here are removed too."""


async def create(settings: KafkaSettings, name: str, partitions: int, **configs: str) -> None:
    """As a cluster's administrator might have done it."""
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers})
    topic = NewTopic(settings.topic_prefix + name, partitions, 1, config=configs)
    for done in admin.create_topics([topic]).values():
        done.result()
    asking = Admin(settings)

    async def known() -> bool:
        found = (await asking.describe([topic.topic]))[topic.topic]
        return found is not None and found.ready and configs.items() <= found.configs.items()

    await until(known)


async def test_a_plan_changes_nothing_and_apply_does_what_it_says(kafka_settings: KafkaSettings) -> None:
    for _ in range(2):
        planned = await topics.plan(kafka_settings, [STREAM, TABLE])
        assert [step.action for step in planned.steps] == [Action.CREATE, Action.CREATE]
    assert "3 partitions, 1 copies" in planned.steps[0].details
    assert await topics.apply(kafka_settings, [STREAM, TABLE]) == planned
    after = await topics.plan(kafka_settings, [STREAM, TABLE])
    assert [step.action for step in after.steps] == [Action.NONE, Action.NONE]

    facts = await Admin(kafka_settings).describe([step.topic for step in after.steps])
    stream, table = (facts[step.topic] for step in after.steps)
    assert stream is not None
    assert table is not None
    assert (stream.partitions, stream.replication, len(stream.uuid)) == (3, 1, 16)
    assert stream.configs["message.timestamp.type"] == "LogAppendTime"
    assert stream.configs["retention.ms"] == "86400000"
    assert (table.partitions, table.configs["cleanup.policy"]) == (1, "compact")


async def test_another_retention_is_changed_in_place(kafka_settings: KafkaSettings) -> None:
    await topics.apply(kafka_settings, [STREAM])
    longer = replace(STREAM, retention_seconds=172_800)
    (step,) = (await topics.plan(kafka_settings, [longer])).changes
    assert step.action is Action.ALTER
    assert step.details == ("retention.ms: 86400000 → 172800000",)
    await topics.apply(kafka_settings, [longer])

    async def settled() -> bool:
        return not (await topics.plan(kafka_settings, [longer])).changes

    await until(settled)


async def test_more_copies_than_brokers_name_the_setting(kafka_settings: KafkaSettings) -> None:
    three = replace(kafka_settings, replication_factor=3)
    (step,) = (await topics.plan(three, [STREAM])).refusals
    assert "TIDEWIRE_KAFKA_REPLICATION_FACTOR=1" in step.details[0]
    with pytest.raises(FailedPrecondition, match="TIDEWIRE_KAFKA_REPLICATION_FACTOR=1") as refused:
        await topics.apply(three, [STREAM])
    assert refused.value.reason == "TOO_FEW_BROKERS"
    log = KafkaLog(three)
    with pytest.raises(FailedPrecondition) as refused:
        await log.start()
    assert refused.value.reason == "TOO_FEW_BROKERS"


@pytest.mark.parametrize(
    ("spec", "partitions", "configs", "remedy"),
    [
        (STREAM, 2, {}, "TIDEWIRE_KAFKA_PARTITIONS=2"),
        (TABLE, 2, {"cleanup.policy": "compact"}, "a table has one partition"),
        (STREAM, 3, {"cleanup.policy": "compact"}, "--add-config cleanup.policy=delete"),
        (STREAM, 3, {"message.timestamp.type": "CreateTime"}, "message.timestamp.type=LogAppendTime"),
        (STREAM, 3, {"max.message.bytes": "1000"}, "max.message.bytes=1048588"),
    ],
)
async def test_a_mismatch_is_refused_with_the_remedy(
    kafka_settings: KafkaSettings, spec: TopicSpec, partitions: int, configs: dict[str, str], remedy: str
) -> None:
    await create(
        kafka_settings, spec.name, partitions, **{"message.timestamp.type": "LogAppendTime"} | configs
    )
    (step,) = (await topics.plan(kafka_settings, [spec])).refusals
    assert any(remedy in detail for detail in step.details), step.details
    with pytest.raises(FailedPrecondition) as refused:
        await topics.apply(kafka_settings, [spec, replace(STREAM, name="other.v1")])
    assert refused.value.reason == "TOPIC_MISMATCH"
    assert remedy in refused.value.message
    other = kafka_settings.topic_prefix + "other.v1"
    assert await Admin(kafka_settings).describe([other]) == {other: None}, "nothing was changed"


async def test_too_few_in_sync_replicas_and_copies_are_refused(kafka_settings: KafkaSettings) -> None:
    await create(
        kafka_settings,
        STREAM.name,
        3,
        **{"message.timestamp.type": "LogAppendTime", "min.insync.replicas": "1"},
    )
    strict = replace(kafka_settings, replication_factor=3, min_insync_replicas=2)
    (step,) = (await topics.plan(strict, [STREAM])).refusals
    why = "; ".join(step.details)
    assert "TIDEWIRE_KAFKA_REPLICATION_FACTOR=1" in why
    assert "min.insync.replicas=2" in why
    assert "TIDEWIRE_KAFKA_MIN_INSYNC_REPLICAS=1" in why


async def test_without_auto_topics_what_is_missing_is_named(
    kafka_settings: KafkaSettings, message_log_factory: MakeLog
) -> None:
    log = KafkaLog(replace(kafka_settings, auto_topics=False))
    with pytest.raises(FailedPrecondition, match="tidewire topic apply") as refused:
        await log.start()
    assert refused.value.reason == "TOPIC_MISSING"
    await message_log_factory()
    again = await message_log_factory(auto_topics=False)
    assert again.members() == []


async def test_a_topic_made_again_is_another_one(
    kafka_settings: KafkaSettings, message_log_factory: MakeLog
) -> None:
    log = await message_log_factory()
    await log.ensure_topics([STREAM])
    before = log.incarnation(STREAM.name)
    name = kafka_settings.topic_prefix + STREAM.name
    client = AdminClient({"bootstrap.servers": kafka_settings.bootstrap_servers})
    client.delete_topics([name])[name].result()
    admin = Admin(kafka_settings)

    async def gone() -> bool:
        return await admin.describe([name]) == {name: None}

    await until(gone)
    other = await message_log_factory()
    await other.ensure_topics([STREAM])
    assert other.incarnation(STREAM.name) != before
