"""The registry's parts, and how they are put together: the only module that names adapters."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tidewire.events.v1.registry_change_pb2 import RegistryChange
from tidewire.registry.v1 import registry_pb2
from tidewire_kit import service
from tidewire_kit.backend import check_given
from tidewire_kit.grpc import service_handler
from tidewire_kit.ids import new_uid
from tidewire_kit.service import ServiceContext, ServiceParts
from tidewire_kit.settings import load
from tidewire_registry.access import ACCESS
from tidewire_registry.adapters.embedded import EmbeddedStore
from tidewire_registry.adapters.log_topic import LogTopic, object_of
from tidewire_registry.adapters.platform import GrpcStorageUsage, LivePlatform, SigningTokenMaker
from tidewire_registry.application.credentials import Credentials
from tidewire_registry.application.device_creation import DeviceCreation
from tidewire_registry.application.devices import Devices
from tidewire_registry.application.publishing import Publisher
from tidewire_registry.application.tenants import Tenants
from tidewire_registry.application.tokens import Tokens
from tidewire_registry.application.topic_watch import TopicWatch
from tidewire_registry.application.upkeep import Upkeep
from tidewire_registry.bootstrap import bootstrap, read_signer
from tidewire_registry.domain.changes import SigningKey
from tidewire_registry.grpc_api import RegistryServicer, UseCases
from tidewire_registry.metrics import RegistryMetrics
from tidewire_registry.settings import Settings

if TYPE_CHECKING:
    from tidewire_registry.adapters.cassandra import CassandraStore


def build(ctx: ServiceContext[Settings]) -> ServiceParts:
    """The registry of one process. Raises FailedPrecondition or InvalidArgument when it has no signing key."""
    signer = read_signer(_signing_key_file(ctx), ctx.clock)

    metrics = RegistryMetrics(ctx.metrics)
    store = _store(ctx)
    topic = LogTopic(ctx.log, ctx.clock, metrics, seen=ctx.directory.apply)
    storage = GrpcStorageUsage(lambda: ctx.channel_to("storage"), ctx.clock)
    publisher = Publisher(store, topic, ctx.clock, metrics, ctx.settings.sweep_seconds)
    watch = TopicWatch(store, ctx.clock)
    upkeep = Upkeep(store, topic, watch, ctx.clock, SigningKey(signer.key_id, signer.public_key_pem))
    servicer = RegistryServicer(
        UseCases(
            Tenants(store, publisher, storage, ctx.clock, new_uid, upkeep.purge_soon),
            Devices(store, publisher, ctx.clock),
            DeviceCreation(store, publisher, ctx.clock, new_uid),
            Credentials(store, publisher, ctx.clock, new_uid),
            Tokens(store, SigningTokenMaker(signer)),
            LivePlatform(ctx.log, ctx.data_dir),
        )
    )

    def saw(change: RegistryChange) -> None:
        found = object_of(change)
        if found is not None:
            watch.saw(*found, change.revision, ctx.directory.revision_of(change))

    async def start() -> None:
        await store.start()
        ctx.directory.on_topic(saw)
        await publisher.start()
        await upkeep.start()

    async def close() -> None:
        await upkeep.close()
        await publisher.close()
        await storage.close()
        await store.close()

    async def check_publishing() -> str | None:
        return f"publishing fails: {publisher.failing}" if publisher.failing else None

    descriptor = registry_pb2.DESCRIPTOR.services_by_name["RegistryService"]
    handler = service_handler(descriptor, servicer, ACCESS, ctx.guard)
    return ServiceParts(
        [handler],
        start=start,
        close=close,
        checks={"publishing": check_publishing},
        lifelines={"publishing": publisher.ended, "upkeep": upkeep.ended},
    )


def _signing_key_file(ctx: ServiceContext[Settings]) -> Path:
    """On one machine the key and the first tokens are made where they are missing; several machines must share one."""
    key_file = ctx.common.signing_key_file
    if ctx.common.backend == "distributed":
        return check_given("TIDEWIRE_SIGNING_KEY_FILE", key_file, "the platform's signing key")
    return bootstrap(ctx.data_dir.root, signing_key_file=key_file, clock=ctx.clock).signing_key_file


def _store(ctx: ServiceContext[Settings]) -> "EmbeddedStore | CassandraStore":
    if ctx.common.backend == "embedded":
        return EmbeddedStore(ctx.data_dir.registry)
    # Here, since an embedded registry starts faster without the driver.
    from tidewire_kit.cassandra.settings import CassandraSettings
    from tidewire_registry.adapters.cassandra import CassandraStore

    return CassandraStore(load(CassandraSettings, ctx.environ), ctx.metrics, ctx.clock.now_us)


def run() -> None:
    """Runs the service until it is told to stop."""
    sys.exit(service.run("registry", Settings, build))
