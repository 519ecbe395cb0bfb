"""The composition root of ingestion: what it is made of, and which concrete parts are chosen."""

from tidewire.events.v1.registry_change_pb2 import RegistryChange
from tidewire.ingestion.v1 import ingestion_pb2
from tidewire_ingestion.access import ACCESS
from tidewire_ingestion.adapters.registry import RegistryResolver
from tidewire_ingestion.application.events import PublishEvents
from tidewire_ingestion.application.publish import PublishTelemetry
from tidewire_ingestion.application.quota_shares import QuotaShares
from tidewire_ingestion.application.resolution import Resolution
from tidewire_ingestion.application.tenants import Tenants
from tidewire_ingestion.grpc_api import IngestionApi
from tidewire_ingestion.metrics import IngestionMetrics
from tidewire_ingestion.settings import Settings
from tidewire_kit import service, topics
from tidewire_kit.events import EventWriter
from tidewire_kit.fairshare import DemandExchange
from tidewire_kit.grpc import service_handler
from tidewire_kit.ids import TenantId
from tidewire_kit.service import ServiceContext, ServiceParts
from tidewire_kit.telemetry.producer import ProducerLimits, TelemetryProducer


def build(ctx: ServiceContext[Settings]) -> ServiceParts:
    """The parts of the service."""
    settings, directory = ctx.settings, ctx.directory

    def tenant_name(tenant: TenantId) -> str:
        view = directory.tenant(tenant)
        return view.id if view is not None else ""

    metrics = IngestionMetrics(ctx.metrics, ctx.clock, tenant_name)
    limits = ProducerLimits(
        gather_seconds=settings.gather_seconds,
        calm_gather_seconds=settings.calm_gather_seconds,
        busy_gather_seconds=settings.busy_gather_seconds,
        pending_bytes=settings.pending_bytes,
    )
    producer = TelemetryProducer(ctx.log, topics.TELEMETRY, ctx.clock, limits=limits, observer=metrics)
    metrics.watch_pending(lambda: producer.pending_bytes)
    resolver = RegistryResolver(directory, lambda: ctx.channel_to("registry"), settings.resolve_seconds)
    exchange = DemandExchange(ctx.log, ctx.clock, ctx.name)
    tenants = Tenants()
    shares = QuotaShares(exchange.board, tenants.shared, metrics, ctx.clock.monotonic)
    tenants.on_new(shares.begin)
    resolution = Resolution(resolver, ctx.clock)
    use_case = PublishTelemetry(directory, producer, resolution, ctx.clock, metrics, tenants)

    events = PublishEvents(
        directory,
        EventWriter(ctx.log, topics.EVENTS),
        resolution,
        ctx.clock,
        metrics,
        tenants,
        pending_bytes=settings.pending_bytes,
    )

    def on_change(change: RegistryChange) -> None:
        if change.deleted and change.WhichOneof("object") == "tenant":
            use_case.forget(TenantId(bytes.fromhex(change.tenant.uid)))

    directory.on_change(on_change)

    async def writable() -> str | None:
        return metrics.commit_fault()

    async def start() -> None:
        await exchange.start(shares)

    async def close() -> None:
        await exchange.close()
        await resolver.close()

    api = IngestionApi(use_case, events, settings.stream_window)
    service_descriptor = ingestion_pb2.DESCRIPTOR.services_by_name["IngestionService"]
    return ServiceParts(
        handlers=[service_handler(service_descriptor, api, ACCESS, ctx.guard, raw=IngestionApi.RAW)],
        start=start,
        drain=producer.close,
        close=close,
        checks={"log-writable": writable, "registry-replica": directory.check},
        lifelines={"quota-shares": exchange.ended},
    )


def run() -> int:
    """Runs the service until it is told to stop; returns the exit status."""
    return service.run("ingestion", Settings, build)
