"""A rig: embedded log, store, owner and queries, wired as `main` wires them, which a test can stop and start again.

Tests that use `backend` (the rig does) run on the embedded store and, marked `servers`, on Cassandra. Those which by
nature are about files, SQLite or a full disk say so by parametrizing `backend` with `embedded` alone.
"""

import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sql_rig import Sql
from storage_api import Api, serving

from tidewire_kit import topics
from tidewire_kit.cassandra import CassandraSettings
from tidewire_kit.clock import SystemClock
from tidewire_kit.directory import Retention
from tidewire_kit.ids import TenantId, partition_of
from tidewire_kit.log.embedded import EmbeddedLog, EmbeddedLogSettings
from tidewire_kit.owner import OwnerSettings, PartitionOwner
from tidewire_storage.adapters.cold import DirectoryColdStore
from tidewire_storage.adapters.embedded import EmbeddedStore
from tidewire_storage.application.accounts import Accounts
from tidewire_storage.application.aggregate import Aggregate
from tidewire_storage.application.buckets import Buckets
from tidewire_storage.application.cold import ColdLimits, ColdTier
from tidewire_storage.application.directories import Directories
from tidewire_storage.application.housekeeping import Housekeeping
from tidewire_storage.application.ingest import IngestLimits, IngestReadings
from tidewire_storage.application.latest import SeriesDirectory
from tidewire_storage.application.merge import MergeEpochs, MergeLimits
from tidewire_storage.application.names import Names, device_names
from tidewire_storage.application.read_series import ReadSeries
from tidewire_storage.application.rollup import Rollup
from tidewire_storage.application.seal import SealEpochs
from tidewire_storage.consumer import telemetry_owner
from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_storage.domain.rollups import DAY_US
from tidewire_storage.ports import ColdStore
from tidewire_testkit.directory import TestDevice, TestTenant, World
from tidewire_testkit.polling import until
from tidewire_testkit.telemetry import make_table, put_tables

PARTITIONS = 4
FOREVER_US = 1 << 62
FAST_OWNER = OwnerSettings(poll_seconds=0.02, first_retry_seconds=0.02, longest_retry_seconds=0.1)
Readings = dict[tuple[int, str], float]
"""(event time, metric) → value."""


@pytest.fixture(scope="session")
def storage_keyspace(cassandra_contact_points: str) -> Iterator[CassandraSettings]:
    """A keyspace with storage's tables. All tests share it, each with topics and tenants of its own."""
    from tidewire_kit.cassandra.steps import SchemaSet
    from tidewire_storage.adapters.cassandra import SCHEMA_DIRECTORY
    from tidewire_testkit.cassandra import fresh_keyspace

    with fresh_keyspace(cassandra_contact_points, [SchemaSet("storage", SCHEMA_DIRECTORY)]) as settings:
        yield settings


# The time limit is for the test itself: the first one makes the tables, and starts a server when none is given.
_ON_CASSANDRA = [pytest.mark.servers, pytest.mark.timeout(120, func_only=True)]


@pytest.fixture(params=["embedded", pytest.param("cassandra", marks=_ON_CASSANDRA)])
def backend(request: pytest.FixtureRequest) -> CassandraSettings | None:
    """Where blocks go: None for a directory, else a keyspace."""
    if request.param == "embedded":
        return None
    settings: CassandraSettings = request.getfixturevalue("storage_keyspace")
    return settings


class DaysAhead(SystemClock):
    """To it every day of log time has ended."""

    def now_us(self) -> int:
        return super().now_us() + 2 * DAY_US


class Rig:
    """Storage in a directory, its blocks in a keyspace if one is given. `start` and `stop` may alternate."""

    def __init__(self, path: Path, keyspace: CassandraSettings | None = None) -> None:
        self.path = path
        self.keyspace = keyspace
        self.clock = SystemClock()
        self.world = World(self.clock, PARTITIONS, device_facts=True)
        self.limits = IngestLimits(flush_seconds=0.05, series_seconds=0.0)
        self.free_bytes = 1 << 40
        self.file_bytes = 1 << 20
        self.merge_limits = MergeLimits()
        self.cold_limits = ColdLimits(after_us=0, fold_us=0)
        self.log: EmbeddedLog
        self.ingest: IngestReadings
        self.owner: PartitionOwner
        self.running = False

    async def start(self, *, own: bool = True) -> None:
        """Opens everything; `own` False: without reading the log."""
        assert not self.running, "it is started already, and what it has opened would stay open"
        self.running = True
        self.log = self.new_log()
        await self.open(self.log)
        self.store = self.new_store()
        await self.store.open()
        incarnation = self.log.incarnation(topics.TELEMETRY)
        self.ingest = IngestReadings(self.store, self.clock, incarnation, self.limits)
        self.owner = telemetry_owner(self.log, self.clock, self.ingest, FAST_OWNER)
        names = Names(self.world.directory)
        self.cold_store = self.new_cold_store()
        directories = self.directories = Directories(self.store, cold=self.cold_store)
        self.read_series = ReadSeries(self.store, directories, names, incarnation)
        self.rollup = rollup = Rollup(self.store, directories, self.clock, self._retention)
        self.buckets = Buckets(self.store, directories, rollup, worth_device_days=0)
        self.aggregate = Aggregate(self.store, directories, self.buckets, names, incarnation)
        self.series = SeriesDirectory(self.store, names)
        self.accounts = Accounts(
            self.store, self.log, self.clock, topics.TELEMETRY, lambda: self.ingest.in_flight_readings
        )
        self.sealing = SealEpochs(self.store, lambda: self.ingest.places, lambda: self.ingest.buried)
        self.merging = MergeEpochs(
            self.store,
            rollup,
            lambda: self.ingest.places,
            lambda: self.ingest.buried,
            self.sealing.lock,
            DaysAhead(),
            self.merge_limits,
        )
        self.cold = ColdTier(
            self.store,
            directories,
            self.cold_store,
            lambda: self.ingest.places,
            lambda: self.ingest.buried,
            self.sealing.lock,
            self.clock,
            lambda: [view.uid for view in self.world.directory.tenants()],
            device_names(self.world.directory),
            self.cold_limits,
        )
        self.housekeeping = Housekeeping(
            self.store,
            self.ingest,
            self.sealing,
            self.merging,
            self.world.directory,
            self.clock,
            self.accounts,
            seal_seconds=3600,
            purge_seconds=3600,
            expire_seconds=3600,
            recount_seconds=3600,
            purge_cold=self.cold.purge,
        )
        if own:
            await self.owner.start()

    def _retention(self, tenant: TenantId) -> Retention:
        view = self.world.directory.tenant(tenant)
        return Retention() if view is None else view.retention

    def new_cold_store(self) -> ColdStore:
        """The place of the cold tier."""
        return DirectoryColdStore(self.path / "cold")

    def new_store(self):
        """A store over the same data, as another process would open it."""
        if self.keyspace is not None:
            return cassandra_store(self.keyspace, self.path, self.log.incarnation(topics.TELEMETRY))
        return EmbeddedStore(
            self.path / "storage",
            file_bytes=self.file_bytes,
            min_free_bytes=1 << 20,
            free=lambda _: self.free_bytes,
        )

    def new_log(self) -> EmbeddedLog:
        settings = EmbeddedLogSettings(min_free_bytes=0, segment_bytes=1 << 22, preallocate_bytes=1 << 16)
        return EmbeddedLog(self.path, settings)

    @staticmethod
    async def open(log: EmbeddedLog) -> EmbeddedLog:
        await log.start()
        await log.ensure_topics(topics.specs(PARTITIONS))
        return log

    async def open_log(self) -> EmbeddedLog:
        """The log, as another process would open it."""
        return await self.open(self.new_log())

    async def stop(self) -> None:
        """Drains and closes."""
        if self.running:
            self.running = False
            # Also when starting ended half way, or one cannot be closed.
            async with AsyncExitStack() as opened:
                for name in ("log", "store", "cold_store", "owner"):
                    if hasattr(self, name):
                        opened.push_async_callback(getattr(self, name).close)

    def partition(self, device: TestDevice) -> int:
        """The device's partition."""
        return partition_of(device.tenant.uid, device.uid, PARTITIONS)

    async def publish(
        self,
        device: TestDevice,
        metrics: Sequence[str],
        rows: Sequence[tuple[int, Sequence[float]]],
        batch_id: bytes | None = None,
    ) -> None:
        """Appends rows of (time, values) as one record."""
        table = make_table(
            device.tenant.uid,
            metrics,
            [(device.uid, time, values) for time, values in rows],
            batch_id=batch_id,
            received_us=self.clock.now_us(),
        )
        await put_tables(self.log, self.partition(device), table)

    async def settled(self) -> None:
        """Returns when everything in the log is stored."""

        async def nothing_left() -> bool:
            return await self.accounts.lag_records() == 0 and self.ingest.in_flight_readings == 0

        await until(nothing_left, seconds=30)

    async def read(
        self,
        device: TestDevice,
        metrics: Sequence[str] = (),
        start_us: int | None = None,
        end_us: int | None = None,
    ) -> Readings:
        """All readings of a device; asserts that times rise and that no row is empty."""
        found: Readings = {}
        last = None
        async for part in self.read_series.read(
            device.tenant.uid, device.id, metrics, start_us, end_us, 0, ""
        ):
            times = part.time_unix_us.tolist()
            assert last is None or times[0] > last
            assert all(a < b for a, b in itertools.pairwise(times))
            last = times[-1]
            columns = np.array(part.values)
            assert (~np.isnan(columns)).any(axis=0).all()
            for name, column in zip(part.metrics, part.values, strict=True):
                for time, value in zip(times, column.tolist(), strict=True):
                    if value == value:
                        found[time, name] = value
        return found

    async def difference(self, tenant: TestTenant | None = None) -> int:
        """What the ledger's metric would show."""
        answer = await self.accounts.ledger(tenant.uid if tenant else None, 0, FOREVER_US)
        return answer.account.difference

    async def lose_epoch(self, place: TopicPartitionKey, epoch: int) -> None:
        """Removes what is known of an epoch's blocks, behind the store's back."""
        if self.keyspace is None:
            catalog = sqlite3.connect(self.path / "storage" / "catalog.db", isolation_level=None)
            catalog.execute("DELETE FROM blocks WHERE partition = ? AND epoch = ?", (place.partition, epoch))
            catalog.close()
            return
        await self.cql(
            "DELETE FROM storage_epoch_blocks WHERE incarnation = ? AND log_partition = ? AND epoch = ?",
            place.incarnation,
            place.partition,
            epoch,
        )

    async def cql(self, text: str, *params: object) -> list[Any]:
        """Executes a statement in the keyspace."""
        assert self.keyspace is not None
        from tidewire_testkit.cassandra import connected

        async with connected(self.keyspace) as session:
            return await session.execute(await session.prepare(text), params)

    def block_files(self) -> list[Path]:
        """The files that are there."""
        return sorted((self.path / "storage" / "blocks").glob("*.blk"))


def cassandra_store(keyspace: CassandraSettings, path: Path, incarnation: bytes):
    """A store in a keyspace for the log in a directory. Every look at the ledger looks at every block."""
    from tidewire_kit.cassandra import connect
    from tidewire_storage.adapters.cassandra import CassandraStore

    def place_of(tenant: TenantId, device: bytes) -> TopicPartitionKey:
        return TopicPartitionKey(incarnation, partition_of(tenant, device, PARTITIONS))

    return CassandraStore(lambda: connect(keyspace), SystemClock(), str(path), place_of, verify_seconds=0)


@pytest.fixture(scope="session")
def rig_type() -> type[Rig]:
    """The class, for tests that make directories of their own."""
    return Rig


@pytest.fixture
async def new_rig(tmp_path: Path, backend: CassandraSettings | None) -> AsyncIterator[Callable[[], Rig]]:
    """Makes rigs that are not started; all are stopped after the test."""
    rigs: list[Rig] = []

    def make() -> Rig:
        rigs.append(Rig(tmp_path / f"rig{len(rigs)}", backend))
        return rigs[-1]

    yield make
    for rig in rigs:
        await rig.stop()


@pytest.fixture
async def rig(new_rig: Callable[[], Rig]) -> Rig:
    """A rig that runs."""
    rig = new_rig()
    await rig.start()
    return rig


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """A running service."""
    async with serving(tmp_path) as api:
        yield api


@pytest.fixture
def acme(api: Api) -> TestTenant:
    return api.world.add_tenant("acme")


@pytest.fixture
async def sql(rig: Rig) -> AsyncIterator[Sql]:
    sql = Sql(rig)
    await sql.fill()
    yield sql
    assert sql.none_left()
