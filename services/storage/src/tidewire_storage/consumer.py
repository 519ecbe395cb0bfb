"""The front end towards the log: the partition owner that feeds `IngestReadings`."""

from tidewire_kit import topics
from tidewire_kit.clock import Clock
from tidewire_kit.log.port import MessageLog
from tidewire_kit.owner import OwnerSettings, PartitionOwner
from tidewire_storage.application.ingest import IngestReadings

GROUP = "tidewire.storage"


def telemetry_owner(
    log: MessageLog, clock: Clock, ingest: IngestReadings, settings: OwnerSettings | None = None
) -> PartitionOwner:
    """The owner of this process's partitions of the telemetry topic."""
    return PartitionOwner(log, clock, ingest, group=GROUP, topic=topics.TELEMETRY, settings=settings)
