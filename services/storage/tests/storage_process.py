"""Storage as a process that tests kill. Prints `owning` when it does.

python storage_process.py DIRECTORY [CONTACT_POINTS KEYSPACE]: the log is in the directory; so are the blocks, unless a
keyspace is given.
"""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from tidewire_kit import topics
from tidewire_kit.clock import SystemClock
from tidewire_kit.directory import Retention
from tidewire_kit.ids import TenantId, partition_of
from tidewire_kit.log.embedded import EmbeddedLog, EmbeddedLogSettings
from tidewire_kit.owner import OwnerSettings
from tidewire_storage.adapters.embedded import EmbeddedStore
from tidewire_storage.application.directories import Directories
from tidewire_storage.application.gather import EpochLimits
from tidewire_storage.application.ingest import IngestLimits, IngestReadings
from tidewire_storage.application.merge import MergeEpochs, MergeLimits
from tidewire_storage.application.rollup import Rollup
from tidewire_storage.application.seal import SealEpochs
from tidewire_storage.consumer import telemetry_owner
from tidewire_storage.domain.blocks import TopicPartitionKey


async def main(directory: Path, keyspace: Sequence[str]) -> None:
    log = EmbeddedLog(directory, EmbeddedLogSettings(min_free_bytes=0, preallocate_bytes=1 << 16))
    await log.start()
    await log.ensure_topics(topics.specs(4))
    incarnation = log.incarnation(topics.TELEMETRY)
    store = (
        cassandra_store(*keyspace, directory, incarnation)
        if keyspace
        else EmbeddedStore(directory / "storage", file_bytes=1 << 14)
    )
    await store.open()
    limits = IngestLimits(flush_seconds=0.005, series_seconds=0.02, epochs=EpochLimits(gathered_bytes=4_000))
    ingest = IngestReadings(store, SystemClock(), incarnation, limits)
    owner = telemetry_owner(log, SystemClock(), ingest, OwnerSettings(poll_seconds=0.005))
    await owner.start()
    while len(owner.partitions) < 4:
        await asyncio.sleep(0.01)
    sys.stdout.write("owning\n")
    sys.stdout.flush()
    sealing = SealEpochs(store, lambda: ingest.places, lambda: ingest.buried)
    merging = MergeEpochs(
        store,
        Rollup(store, Directories(store), SystemClock(), lambda tenant: Retention()),
        lambda: ingest.places,
        lambda: ingest.buried,
        sealing.lock,
        SystemClock(),
        MergeLimits(readings=200),
    )
    while True:
        await sealing.round()
        await merging.round()
        await store.sweep()
        await asyncio.sleep(0.02)


def cassandra_store(contact_points: str, keyspace: str, directory: Path, incarnation: bytes):
    from tidewire_kit.cassandra import CassandraSettings, connect
    from tidewire_storage.adapters.cassandra import CassandraStore

    settings = CassandraSettings(contact_points=contact_points, keyspace=keyspace)

    def place_of(tenant: TenantId, device: bytes) -> TopicPartitionKey:
        return TopicPartitionKey(incarnation, partition_of(tenant, device, 4))

    return CassandraStore(lambda: connect(settings), SystemClock(), str(directory), place_of)


asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
