"""Topics and schema as this version needs them: planned, applied and shown, for `topic`, `schema`, `up` and `doctor`.

The work is done by the adapters of the kit; here stands which topics and which tables make up the platform.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import tidewire_registry
import tidewire_storage
from tidewire_cli.output import Column, Output
from tidewire_kit import topics
from tidewire_kit.cassandra import CassandraSession, CassandraSettings, connect, schema
from tidewire_kit.cassandra.schema import SchemaPlan
from tidewire_kit.cassandra.steps import SchemaSet
from tidewire_kit.log.kafka import KafkaSettings
from tidewire_kit.log.kafka import topics as kafka_topics
from tidewire_kit.log.kafka.topics import TopicPlan
from tidewire_kit.log.port import TopicSpec
from tidewire_kit.settings import load

DONE, REFUSED = 0, 4

_TOPIC_COLUMNS = (
    Column("topic", "TOPIC"),
    Column("action", "ACTION"),
    Column("details", "DETAILS", "; ".join),
)
_SCHEMA_COLUMNS = (Column("component", "COMPONENT"), Column("step", "STEP"), Column("action", "ACTION"))


def kafka_specs(settings: KafkaSettings) -> list[TopicSpec]:
    """Every topic of the platform, also the one by which processes know one another."""
    return [*topics.specs(settings.partitions), TopicSpec(topics.MEMBERS, partitions=1, compacted=True)]


async def apply_topics(settings: KafkaSettings) -> TopicPlan:
    """Brings the topics up to date; raises what `tidewire_kit.log.kafka.topics.apply` raises."""
    return await kafka_topics.apply(settings, kafka_specs(settings))


async def show_topics(environ: Mapping[str, str], out: Output, *, apply: bool) -> int:
    """Plans, and if told applies; returns the exit status 0 or 4 (refused). Raises TidewireError."""
    settings = load(KafkaSettings, environ)
    plan = await kafka_topics.plan(settings, kafka_specs(settings))
    refused = bool(plan.refusals)
    if apply and plan.changes and not refused:
        out.note(
            f"Bringing {len(plan.changes)} of {len(plan.steps)} topics up to date on {settings.bootstrap_servers}"
        )
        plan = await apply_topics(settings)
    applied = apply and not refused
    rows = [
        {"topic": step.topic, "action": step.action.value, "details": list(step.details)}
        for step in plan.steps
    ]
    if out.for_people:
        out.rows(rows, _TOPIC_COLUMNS)
        out.text(f"\n{_verdict(len(plan.changes), len(plan.refusals), 'topics', applied=applied)}")
    else:
        out.data(
            {"topics": rows, "changes": len(plan.changes), "refusals": len(plan.refusals), "applied": applied}
        )
    return REFUSED if refused else DONE


def schema_sets() -> list[SchemaSet]:
    """The steps of every service that keeps tables."""
    owners = {"registry": tidewire_registry, "storage": tidewire_storage}
    return [
        SchemaSet(name, Path(str(package.__file__)).parent / "adapters" / "cassandra" / "schema")
        for name, package in owners.items()
    ]


async def plan_schema(settings: CassandraSettings) -> SchemaPlan:
    """What `apply_schema` would do; raises what `tidewire_kit.cassandra.schema.plan` raises."""
    async with _without_keyspace(settings) as session:
        return await schema.plan(session, schema_sets())


async def apply_schema(settings: CassandraSettings) -> SchemaPlan:
    """Brings keyspace and tables up to date and returns what was done here; raises what `schema.apply` raises."""
    async with _without_keyspace(settings) as session:
        return await schema.apply(session, schema_sets())


async def show_schema(environ: Mapping[str, str], out: Output, *, apply: bool) -> int:
    """Plans, and if told applies; returns the exit status 0. Raises TidewireError."""
    settings = load(CassandraSettings, environ)
    async with _without_keyspace(settings) as session:
        plan = await schema.plan(session, schema_sets())
        if apply and not plan.empty:
            out.note(
                f"Applying {len(plan.steps)} steps to keyspace {plan.keyspace} on {settings.contact_points}"
            )
            await schema.apply(session, schema_sets())
    missing = {(step.component, step.version) for step in plan.steps}
    to_do = "applied" if apply else "apply"
    rows = [
        {
            "component": step.component,
            "step": f"{step.version:04d}_{step.name}",
            "action": to_do if (step.component, step.version) in missing else "none",
        }
        for one in schema_sets()
        for step in one.steps()
    ]
    if out.for_people:
        if plan.create_keyspace is not None:
            out.text(
                f"Keyspace {plan.keyspace} is {'made' if apply else 'to be made'}: {plan.create_keyspace}\n"
            )
        out.rows(rows, _SCHEMA_COLUMNS)
        out.text(f"\n{_verdict(len(plan.steps), 0, 'steps', applied=apply)}")
    else:
        out.data(
            {
                "keyspace": plan.keyspace,
                "create_keyspace": plan.create_keyspace is not None,
                "steps": rows,
                "changes": len(plan.steps),
                "applied": apply,
            }
        )
    return DONE


@asynccontextmanager
async def _without_keyspace(settings: CassandraSettings) -> AsyncIterator[CassandraSession]:
    session = await connect(settings, keyspace=None)
    try:
        yield session
    finally:
        await session.close()


def _verdict(changes: int, refusals: int, what: str, *, applied: bool) -> str:
    if refusals:
        return f"Refused: {refusals} {what} differ in what cannot be changed; nothing was done."
    if not changes:
        return f"Nothing to do: the {what} are as they shall be."
    return f"Done: {changes} {what}." if applied else f"To do: {changes} {what}."
