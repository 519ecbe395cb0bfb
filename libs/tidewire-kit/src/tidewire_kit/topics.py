"""The platform's topics: their names, and how each is kept. Each is an API: see docs/reference/topics.md.

Used by composition roots (`MessageLog.ensure_topics(specs(...))`) and by whoever writes to or reads from a topic.
"""

from tidewire_kit.log.port import TopicSpec

TELEMETRY = "tidewire.telemetry.v1"
"""Streams of TelemetryRecord; partition = ids.partition_of(tenant, device). Ingestion writes; storage reads."""

EVENTS = "tidewire.events.v1"
"""Streams of EventRecord; partition as for telemetry. Ingestion writes; storage reads."""

REGISTRY = "tidewire.registry.v1"
"""Compacted: the full state of each tenant, device, credential and key. The registry writes; everybody reads."""

DEAD_LETTER = "tidewire.dead-letter.v1"
"""Records that no owner could process, each with its reason. Any consumer writes; people read and replay."""

DEMAND = "tidewire.demand.v1"
"""Compacted: what each process is asked to take. Ingestion writes and reads it, to share quotas (`fairshare`)."""

MEMBERS = "tidewire.members.v1"
"""Compacted: the live processes. The log's adapter writes and reads it itself, by `announce` and `members`."""

TELEMETRY_RETENTION_SECONDS = 72 * 3600.0
EVENTS_RETENTION_SECONDS = 72 * 3600.0
DEAD_LETTER_RETENTION_SECONDS = 14 * 86400.0


def specs(partitions: int) -> list[TopicSpec]:
    """Returns what every process ensures at its start. `partitions` counts only when a topic is created."""
    return [
        TopicSpec(
            TELEMETRY,
            partitions=partitions,
            retention_seconds=TELEMETRY_RETENTION_SECONDS,
            held_for=("tidewire.storage",),
        ),
        TopicSpec(
            EVENTS,
            partitions=partitions,
            retention_seconds=EVENTS_RETENTION_SECONDS,
            held_for=("tidewire.storage.events",),
        ),
        TopicSpec(REGISTRY, partitions=1, compacted=True),
        TopicSpec(DEMAND, partitions=1, compacted=True),
        TopicSpec(
            DEAD_LETTER,
            partitions=1,
            retention_seconds=DEAD_LETTER_RETENTION_SECONDS,
            may_exceed_cap=True,
        ),
    ]
