"""Storage as a process that tests kill: `python storage_process.py DIRECTORY`. Prints `owning` when it does."""

import asyncio
import sys
from pathlib import Path

from tidewire_kit import topics
from tidewire_kit.clock import SystemClock
from tidewire_kit.log.embedded import EmbeddedLog, EmbeddedLogSettings
from tidewire_kit.owner import OwnerSettings
from tidewire_storage.adapters.embedded import EmbeddedStore
from tidewire_storage.application.gather import EpochLimits
from tidewire_storage.application.ingest import IngestLimits, IngestReadings
from tidewire_storage.consumer import telemetry_owner


async def main(directory: Path) -> None:
    log = EmbeddedLog(directory, EmbeddedLogSettings(min_free_bytes=0, preallocate_bytes=1 << 16))
    await log.start()
    await log.ensure_topics(topics.specs(4))
    store = EmbeddedStore(directory / "storage", file_bytes=1 << 14)
    await store.open()
    limits = IngestLimits(flush_seconds=0.005, series_seconds=0.02, epochs=EpochLimits(gathered_bytes=4_000))
    ingest = IngestReadings(store, SystemClock(), log.incarnation(topics.TELEMETRY), limits)
    owner = telemetry_owner(log, SystemClock(), ingest, OwnerSettings(poll_seconds=0.005))
    await owner.start()
    while len(owner.partitions) < 4:
        await asyncio.sleep(0.01)
    sys.stdout.write("owning\n")
    sys.stdout.flush()
    while True:
        await store.sweep()
        await asyncio.sleep(0.05)


asyncio.run(main(Path(sys.argv[1])))
