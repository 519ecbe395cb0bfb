"""The storage service's parts list. Names the adapters; nothing else does."""

import asyncio
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from tidewire.storage.v1 import storage_pb2
from tidewire_kit import service, topics
from tidewire_kit.directory import Retention
from tidewire_kit.errors import InvalidArgument
from tidewire_kit.grpc import service_handler
from tidewire_kit.ids import TenantId, partition_of
from tidewire_kit.log.lag import LagWatch
from tidewire_kit.owner import OwnerSettings
from tidewire_kit.service import ServiceContext, ServiceParts
from tidewire_kit.settings import load
from tidewire_storage.access import ACCESS
from tidewire_storage.adapters import sql_process
from tidewire_storage.adapters.cold import cold_store_at
from tidewire_storage.adapters.embedded import EmbeddedEventStore, EmbeddedStore
from tidewire_storage.application.accounts import Accounts
from tidewire_storage.application.aggregate import Aggregate
from tidewire_storage.application.buckets import Buckets
from tidewire_storage.application.cold import ColdLimits, ColdTier
from tidewire_storage.application.cold_upkeep import ColdAudit, ColdUpkeep, audit
from tidewire_storage.application.daily import Daily
from tidewire_storage.application.directories import Directories
from tidewire_storage.application.event_housekeeping import EventHousekeeping
from tidewire_storage.application.gather import EpochLimits
from tidewire_storage.application.housekeeping import Housekeeping
from tidewire_storage.application.ingest import IngestLimits, IngestReadings
from tidewire_storage.application.latest import SeriesDirectory
from tidewire_storage.application.list_events import ListEvents
from tidewire_storage.application.merge import MergeEpochs, MergeLimits
from tidewire_storage.application.names import Names, device_names
from tidewire_storage.application.read_series import ReadSeries
from tidewire_storage.application.report import Report
from tidewire_storage.application.rollup import Rollup
from tidewire_storage.application.run_sql import RunSql, SqlLimits
from tidewire_storage.application.seal import SealEpochs
from tidewire_storage.application.sql_tables import SqlTables
from tidewire_storage.application.store_events import StoreEvents
from tidewire_storage.consumer import EVENTS_GROUP, GROUP, event_owner, telemetry_owner
from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_storage.domain.rollups import DAY_US
from tidewire_storage.grpc_api import StorageServicer
from tidewire_storage.metrics import StorageMetrics
from tidewire_storage.ports import ColdStore, EventStore, Store
from tidewire_storage.settings import Settings

if TYPE_CHECKING:
    from tidewire_kit.cassandra import CassandraSession

_HOUR_SECONDS = 3600
_DAY_SECONDS = 86400


def build(ctx: ServiceContext[Settings]) -> ServiceParts:
    """Puts the service together."""
    settings = ctx.settings
    incarnation = ctx.log.incarnation(topics.TELEMETRY)
    cassandra = None if ctx.common.backend == "embedded" else _Cassandra(ctx)
    store = _store(ctx, incarnation, cassandra)
    metrics = StorageMetrics(ctx.metrics, ctx.clock, ctx.directory)
    ingest = IngestReadings(store, ctx.clock, incarnation, _limits(settings), metrics.flushed)
    owner = telemetry_owner(
        ctx.log,
        ctx.clock,
        ingest,
        OwnerSettings(gather_seconds=settings.poll_seconds, window_seconds=settings.dedup_window_seconds),
    )
    metrics.watch_owner(owner.stats, ctx.metrics)
    lag = LagWatch(ctx.log, ctx.clock.now_us, GROUP, topics.TELEMETRY, ctx.metrics)
    event_store = _event_store(ctx, cassandra)
    event_sink = StoreEvents(event_store, ctx.log.incarnation(topics.EVENTS), metrics.events_stored)
    events = event_owner(ctx.log, ctx.clock, event_sink)
    event_lag = LagWatch(ctx.log, ctx.clock.now_us, EVENTS_GROUP, topics.EVENTS, ctx.metrics)
    event_housekeeping = EventHousekeeping(
        event_store,
        ctx.directory,
        ctx.clock,
        purge_seconds=settings.purge_seconds,
        expire_seconds=settings.expire_seconds,
        recount_seconds=settings.recount_seconds,
        on_recount=metrics.events_recounted,
        on_removed=metrics.events_removed,
    )
    accounts = Accounts(store, ctx.log, ctx.clock, topics.TELEMETRY, lambda: ingest.in_flight_readings)
    sealing = SealEpochs(
        store, lambda: ingest.places, lambda: ingest.buried, lambda: ingest.pressed, metrics.sealed
    )
    cold_store = cold_store_at(settings.cold_url, ctx.environ) if settings.cold_url else None
    directories = Directories(store, cold=cold_store)
    rollup = Rollup(store, directories, ctx.clock, _retention_of(ctx))
    buckets = Buckets(store, directories, rollup)
    merging = MergeEpochs(
        store,
        rollup,
        lambda: ingest.places,
        lambda: ingest.buried,
        sealing.lock,
        ctx.clock,
        _merge_limits(settings),
        lambda: ingest.pressed or sealing.busy,
        metrics.merged,
    )
    cold = (
        None
        if cold_store is None
        else _cold_tier(ctx, store, directories, cold_store, ingest, sealing, metrics)
    )
    cold_upkeep = (
        None
        if cold is None or cold_store is None
        else _cold_upkeep(ctx, store, directories, cold_store, cold, ingest, metrics)
    )
    housekeeping = Housekeeping(
        store,
        ingest,
        sealing,
        merging,
        ctx.directory,
        ctx.clock,
        accounts,
        seal_seconds=settings.seal_seconds,
        purge_seconds=settings.purge_seconds,
        expire_seconds=settings.expire_seconds,
        recount_seconds=settings.recount_seconds,
        on_recount=metrics.recounted,
        on_removed=metrics.removed,
        purge_cold=None if cold is None else cold.purge,
    )
    names = Names(ctx.directory)
    series = SeriesDirectory(store, names)
    tables = SqlTables(store, directories, names, series, incarnation)
    run_sql = RunSql(names, tables, sql_process.launch, _sql_limits(settings), metrics.statement_ended)
    servicer = StorageServicer(
        ctx.directory,
        names,
        series,
        ReadSeries(store, directories, names, incarnation),
        Aggregate(store, directories, buckets, names, incarnation),
        accounts,
        run_sql,
        ListEvents(event_store, names),
        Report(
            store,
            Daily(store, directories, buckets, rollup),
            names,
            ctx.clock,
            incarnation,
            metrics.report_ended,
        ),
    )
    descriptor = storage_pb2.DESCRIPTOR.services_by_name["StorageService"]

    async def consumer_check() -> str | None:
        return owner.check() or events.check()

    async def start() -> None:
        await store.open()
        await event_store.open()
        await owner.start()
        await events.start()
        await housekeeping.start()
        await event_housekeeping.start()
        if cold_upkeep is not None:
            await cold_upkeep.start()
        await lag.start()
        await event_lag.start()

    async def drain() -> None:
        await asyncio.gather(owner.close(), events.close())

    async def close() -> None:
        await lag.close()
        await event_lag.close()
        await housekeeping.close()
        await event_housekeeping.close()
        if cold_upkeep is not None:
            await cold_upkeep.close()
        await asyncio.gather(owner.close(), events.close())
        await event_store.close()
        await store.close()
        if cold_store is not None:
            await cold_store.close()

    lifelines = {} if cold_upkeep is None else {"cold-upkeep": cold_upkeep.ended}
    return ServiceParts(
        handlers=[service_handler(descriptor, servicer, ACCESS, ctx.guard)],
        start=start,
        drain=drain,
        close=close,
        checks={"consumer": consumer_check},
        lifelines={
            "consumer": owner.ended,
            "events": events.ended,
            "housekeeping": housekeeping.ended,
            "event-housekeeping": event_housekeeping.ended,
            "lag": lag.ended,
            "event-lag": event_lag.ended,
            **lifelines,
        },
    )


class _Cassandra:
    """The connection that both stores share."""

    def __init__(self, ctx: ServiceContext[Settings]) -> None:
        # Here, as the driver takes a while to import, and embedded platforms do not need it.
        from tidewire_kit.cassandra import CassandraSession, CassandraSettings

        self._settings = load(CassandraSettings, ctx.environ)
        self._metrics = ctx.metrics
        self._session: CassandraSession | None = None
        self._lock = asyncio.Lock()

    async def connect(self) -> "CassandraSession":
        """Opened by the first who asks, closed by the last who closes it."""
        from tidewire_kit.cassandra.schema import open_session
        from tidewire_kit.cassandra.steps import SchemaSet
        from tidewire_storage.adapters.cassandra import SCHEMA_DIRECTORY

        async with self._lock:
            if self._session is not None and self._session.open:
                return self._session.shared()
            sets = [SchemaSet("storage", SCHEMA_DIRECTORY)]
            self._session = await open_session(self._settings, sets, metrics=self._metrics)
            return self._session


def _store(ctx: ServiceContext[Settings], incarnation: bytes, cassandra: _Cassandra | None) -> Store:
    if cassandra is None:
        settings = ctx.settings
        return EmbeddedStore(
            ctx.data_dir.storage, file_bytes=settings.file_bytes, min_free_bytes=settings.min_free_bytes
        )
    from tidewire_storage.adapters.cassandra import CassandraStore

    partitions = ctx.log.partitions(topics.TELEMETRY)

    def place_of(tenant: TenantId, device: bytes) -> TopicPartitionKey:
        return TopicPartitionKey(incarnation, partition_of(tenant, device, partitions))

    retention_of = _retention_of(ctx)

    def retention(tenant: TenantId, rollups: bool) -> float | None:
        kept = retention_of(tenant)
        return kept.rollup_seconds if rollups else kept.raw_seconds

    return CassandraStore(cassandra.connect, ctx.clock, topics.TELEMETRY, place_of, retention=retention)


def _event_store(ctx: ServiceContext[Settings], cassandra: _Cassandra | None) -> EventStore:
    if cassandra is None:
        return EmbeddedEventStore(ctx.data_dir.storage, min_free_bytes=ctx.settings.min_free_bytes)
    from tidewire_storage.adapters.cassandra import CassandraEventStore

    incarnation, partitions = ctx.log.incarnation(topics.EVENTS), ctx.log.partitions(topics.EVENTS)
    places = [TopicPartitionKey(incarnation, number) for number in range(partitions)]
    retention_of = _retention_of(ctx)
    return CassandraEventStore(
        cassandra.connect, ctx.clock, places, retention=lambda tenant: retention_of(tenant).raw_seconds
    )


def _cold_tier(
    ctx: ServiceContext[Settings],
    store: Store,
    directories: Directories,
    cold_store: ColdStore,
    ingest: IngestReadings,
    sealing: SealEpochs,
    metrics: StorageMetrics,
) -> ColdTier:
    settings = ctx.settings
    return ColdTier(
        store,
        directories,
        cold_store,
        lambda: ingest.places,
        lambda: ingest.buried,
        sealing.lock,
        ctx.clock,
        lambda: [view.uid for view in ctx.directory.tenants() if not view.deleted],
        device_names(ctx.directory),
        ColdLimits(int(settings.cold_after_days * DAY_US), int(settings.cold_fold_days * DAY_US)),
        metrics.cold.rewritten,
    )


def _cold_upkeep(
    ctx: ServiceContext[Settings],
    store: Store,
    directories: Directories,
    cold_store: ColdStore,
    cold: ColdTier,
    ingest: IngestReadings,
    metrics: StorageMetrics,
) -> ColdUpkeep:
    async def look() -> ColdAudit:
        tenants = [view.uid for view in ctx.directory.tenants()]
        partitions = {place.partition for place in ingest.places}
        return await audit(store, directories, cold_store, tenants, partitions, ctx.clock.now_us())

    return ColdUpkeep(
        cold,
        look,
        ctx.clock,
        move_seconds=ctx.settings.cold_move_seconds,
        audit_seconds=ctx.settings.cold_audit_seconds,
        on_round=metrics.cold.round_ended,
        on_failure=metrics.cold.failed,
        on_audit=metrics.cold.audited,
    )


def _limits(settings: Settings) -> IngestLimits:
    if _HOUR_SECONDS % settings.epoch_seconds:
        raise InvalidArgument(
            f"{Settings.PREFIX}EPOCH_SECONDS",
            f"{settings.epoch_seconds} does not divide 3600; use one that does",
        )
    return IngestLimits(
        settings.flush_seconds,
        settings.flush_cells,
        settings.series_seconds,
        EpochLimits(settings.epoch_seconds * 1_000_000, settings.epoch_bytes),
    )


def _merge_limits(settings: Settings) -> MergeLimits:
    if _DAY_SECONDS % settings.merge_seconds:
        raise InvalidArgument(
            f"{Settings.PREFIX}MERGE_SECONDS",
            f"{settings.merge_seconds} does not divide 86400; use one that does",
        )
    return MergeLimits(settings.merge_seconds * 1_000_000, settings.merge_readings)


def _retention_of(ctx: ServiceContext[Settings]) -> Callable[[TenantId], Retention]:
    def of(tenant: TenantId) -> Retention:
        view = ctx.directory.tenant(tenant)
        return Retention() if view is None else view.retention

    return of


def _sql_limits(settings: Settings) -> SqlLimits:
    return SqlLimits(
        seconds=settings.sql_seconds,
        memory_bytes=settings.sql_memory_bytes,
        scanned_rows=settings.sql_scanned_rows,
        result_rows=settings.sql_result_rows,
        result_bytes=settings.sql_result_bytes,
        statements=settings.sql_statements,
        statements_per_tenant=settings.sql_statements_per_tenant,
    )


def run() -> None:
    """Runs the service until it is told to stop, and exits."""
    sys.exit(service.run("storage", Settings, build, device_facts=True))
