"""The front end towards the log: the partition owners that feed `IngestReadings` and `StoreEvents`."""

from tidewire_kit import topics
from tidewire_kit.clock import Clock
from tidewire_kit.log.port import MessageLog
from tidewire_kit.owner import OwnerSettings, PartitionOwner
from tidewire_kit.owner.events import EventOwner
from tidewire_storage.application.ingest import IngestReadings
from tidewire_storage.application.store_events import StoreEvents

GROUP = "tidewire.storage"
EVENTS_GROUP = "tidewire.storage.events"
"""A group of its own, as the members of one group all read the same topics."""


def telemetry_owner(
    log: MessageLog, clock: Clock, ingest: IngestReadings, settings: OwnerSettings | None = None
) -> PartitionOwner:
    """The owner of this process's partitions of the telemetry topic."""
    return PartitionOwner(log, clock, ingest, group=GROUP, topic=topics.TELEMETRY, settings=settings)


def event_owner(
    log: MessageLog, clock: Clock, sink: StoreEvents, settings: OwnerSettings | None = None
) -> EventOwner:
    """The owner of this process's partitions of the events topic."""
    return EventOwner(log, clock, sink, group=EVENTS_GROUP, topic=topics.EVENTS, settings=settings)
