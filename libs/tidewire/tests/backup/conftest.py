"""A data directory as a platform leaves it, made without one: readings, events and a registry's database."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from tidewire_cli.output import Format, Output
from tidewire_kit import topics
from tidewire_kit.clock import SystemClock
from tidewire_kit.datadir import DataDir, open_data_dir
from tidewire_kit.ids import partition_of
from tidewire_kit.log.embedded import EmbeddedLog, EmbeddedLogSettings
from tidewire_kit.owner import OwnerSettings, PartitionOwner
from tidewire_platform.backup.progress import Progress
from tidewire_registry.adapters.embedded.schema import ensure_schema
from tidewire_storage.adapters.embedded import EmbeddedEventStore, EmbeddedStore
from tidewire_storage.application.accounts import Accounts
from tidewire_storage.application.ingest import IngestLimits, IngestReadings
from tidewire_storage.consumer import telemetry_owner
from tidewire_testkit.directory import TestDevice, World
from tidewire_testkit.polling import until
from tidewire_testkit.telemetry import make_table, put_tables

PARTITIONS = 4
_FOREVER_US = 1 << 62


class Source:
    """Storage over a data directory; several may follow one another over the same."""

    def __init__(self, root: Path) -> None:
        self.data_dir: DataDir = open_data_dir(root)
        self.clock = SystemClock()
        self.store: EmbeddedStore
        self._owner: PartitionOwner | None = None

    async def open(self, *, own: bool = True) -> None:
        """Starts; `own` False: what is published stays in the log."""
        with closing(
            sqlite3.connect(self.data_dir.registry / "registry.db", isolation_level=None)
        ) as registry:
            ensure_schema(registry, "registry.db")
        self.log = EmbeddedLog(
            self.data_dir.root, EmbeddedLogSettings(min_free_bytes=0, preallocate_bytes=1 << 16)
        )
        await self.log.start()
        await self.log.ensure_topics(topics.specs(PARTITIONS))
        self.store = EmbeddedStore(self.data_dir.storage)
        await self.store.open()
        events = EmbeddedEventStore(self.data_dir.storage)
        await events.open()
        await events.close()
        incarnation = self.log.incarnation(topics.TELEMETRY)
        self._ingest = IngestReadings(
            self.store, self.clock, incarnation, IngestLimits(flush_seconds=0.02, series_seconds=0.0)
        )
        self.accounts = Accounts(
            self.store, self.log, self.clock, topics.TELEMETRY, lambda: self._ingest.in_flight_readings
        )
        if own:
            settings = OwnerSettings(poll_seconds=0.02, first_retry_seconds=0.02)
            self._owner = telemetry_owner(self.log, self.clock, self._ingest, settings)
            await self._owner.start()

    async def close(self) -> None:
        """Stops. May be called twice."""
        if self._owner is not None:
            await self._owner.close()
            self._owner = None
        await self.store.close()
        await self.log.close()

    async def publish(self, device: TestDevice, first_us: int, rows: int) -> None:
        """One record with rows of one metric, a second apart."""
        table = make_table(
            device.tenant.uid,
            ["level"],
            [(device.uid, first_us + row * 1_000_000, [float(row)]) for row in range(rows)],
            received_us=self.clock.now_us(),
        )
        await put_tables(self.log, partition_of(device.tenant.uid, device.uid, PARTITIONS), table)

    async def settled(self) -> None:
        """Returns when everything in the log is stored."""

        async def nothing_left() -> bool:
            return await self.accounts.lag_records() == 0 and self._ingest.in_flight_readings == 0

        await until(nothing_left, seconds=30)

    async def present(self) -> int:
        """Readings that are there; asserts that the ledger adds up."""
        account = await self.store.ledger(None, 0, _FOREVER_US)
        assert await self.store.difference() == 0
        return sum(line.present for line in account.lines)


@pytest.fixture
async def open_source() -> AsyncIterator[Callable[..., object]]:
    """Opens a data directory; all are closed after the test."""
    sources: list[Source] = []

    async def make(root: Path, *, own: bool = True) -> Source:
        sources.append(Source(root))
        await sources[-1].open(own=own)
        return sources[-1]

    yield make
    for source in sources:
        await source.close()


@pytest.fixture
def device() -> TestDevice:
    """A device of a tenant."""
    world = World(SystemClock(), PARTITIONS)
    return world.add_device(world.add_tenant("acme"), "pump-1")


@pytest.fixture
def progress() -> Progress:
    """Shown nowhere."""
    return Progress(Output(Format.JSON), "")
