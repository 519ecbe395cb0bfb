"""Use cases over tenants. Called by grpc_api for platform administrators, and for members of a tenant that read it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from tidewire_kit.clock import Clock
from tidewire_kit.errors import AlreadyExists, NotFound
from tidewire_kit.ids import TenantId, Uid, check_tenant_name, tenant_name
from tidewire_registry.application.publishing import Publisher
from tidewire_registry.application.requests import RequestKey, memory, remembered, settled
from tidewire_registry.domain import tenants
from tidewire_registry.domain.changes import Kind, Tombstone
from tidewire_registry.domain.tenants import Quotas, Retention, Tenant, TenantState
from tidewire_registry.domain.values import check_etag
from tidewire_registry.ports import Page, RegistryStore, StorageFigures, StorageUsage, WriteSet

NO_TENANT = TenantId(bytes(16))
"""Scope of the memory of CreateTenant requests."""


@dataclass(frozen=True, slots=True)
class TenantChanges:
    """Fields to change; None: leave as it is."""

    display_name: str | None = None
    labels: Mapping[str, str] | None = None
    quotas: Mapping[str, int] = field(default_factory=dict)
    """Name of a field of Quotas → its value; the others stay."""
    retention: Mapping[str, int | None] = field(default_factory=dict)
    """Name of a field of Retention → its value; the others stay."""

    def of(self, tenant: Tenant) -> Tenant:
        """The tenant with these fields."""
        return replace(
            tenant,
            display_name=tenant.display_name if self.display_name is None else self.display_name,
            labels=tenant.labels if self.labels is None else self.labels,
            quotas=replace(tenant.quotas, **self.quotas),
            retention=replace(tenant.retention, **self.retention),
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tenant uses. `storage` None: storage could not be asked."""

    tenant: Tenant
    devices: int
    credentials: int
    storage: StorageFigures | None


class Tenants:
    """See the RPCs of the same names for what callers are promised."""

    def __init__(
        self,
        store: RegistryStore,
        publisher: Publisher,
        storage: StorageUsage,
        clock: Clock,
        new_uid: Callable[[], Uid],
        deleted: Callable[[], None],
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._storage = storage
        self._clock = clock
        self._new_uid = new_uid
        self._deleted = deleted

    async def create(
        self, tenant_id: str, fields: TenantChanges, request: RequestKey | None, validate_only: bool
    ) -> Tenant:
        """Raises InvalidArgument, AlreadyExists."""
        check_tenant_name(tenant_id, field="tenant_id")
        now = self._clock.now_us()
        uid = TenantId(self._new_uid())
        blank = Tenant(uid, tenant_id, "", TenantState.ACTIVE, Quotas(), Retention(), {}, now, now, 1)
        tenant = fields.of(blank)
        tenant.check()

        async def decide() -> Tenant:
            replay = await remembered(self._store, NO_TENANT, request)
            if replay is not None:
                made = await self._store.tenant(TenantId(replay.object_uids[0]))
                if made is None:
                    raise NotFound(tenant_name(tenant_id))
                await self._publisher.publish([made])
                return made
            if await self._store.tenant_by_id(tenant_id) is not None:
                raise AlreadyExists(tenant_name(tenant_id))
            if not validate_only:
                kept = memory(request, [tenant_id], [tenant], now)
                await self._store.commit(uid, WriteSet(puts=[tenant], replay=kept))
                await self._publisher.publish([tenant])
            return tenant

        return await settled(decide)

    async def get(self, tenant: TenantId, tenant_id: str) -> Tenant:
        """Raises NotFound."""
        found = await self._store.tenant(tenant)
        if found is None or found.id != tenant_id:
            raise NotFound(tenant_name(tenant_id))
        return found

    async def find(self, tenant_id: str) -> Tenant:
        """The tenant that has this id now, for platform administrators. Raises NotFound."""
        found = await self._store.tenant_by_id(tenant_id)
        if found is None:
            raise NotFound(tenant_name(tenant_id))
        return found

    async def id_of(self, tenant: TenantId) -> str | None:
        """The id for people of the tenant of this uid, for services."""
        found = await self._store.tenant(tenant)
        return None if found is None else found.id

    async def list(self, after: str, limit: int) -> Page[Tenant]:
        """By id."""
        return await self._store.tenants(after, limit)

    async def update(
        self, tenant: TenantId, tenant_id: str, changes: TenantChanges, etag: str, validate_only: bool
    ) -> Tenant:
        """Raises InvalidArgument, NotFound, EtagMismatch."""

        def change(old: Tenant) -> Tenant:
            check_etag(etag, old.uid, old.revision, old.name)
            new = changes.of(old)
            new.check()
            if new == old:
                return old
            return replace(new, updated_us=self._clock.now_us(), revision=old.revision + 1)

        return await self._change(tenant, tenant_id, change, validate_only)

    async def block(self, tenant: TenantId, tenant_id: str) -> Tenant:
        """Raises NotFound. Blocking a blocked tenant changes nothing."""
        return await self._change(tenant, tenant_id, lambda old: tenants.blocked(old, self._clock.now_us()))

    async def unblock(self, tenant: TenantId, tenant_id: str) -> Tenant:
        """Raises NotFound, FailedPrecondition when it is not blocked."""
        return await self._change(tenant, tenant_id, lambda old: tenants.unblocked(old, self._clock.now_us()))

    async def delete(self, tenant: TenantId, tenant_id: str, etag: str) -> None:
        """Raises NotFound, EtagMismatch. When it returns, all replicas learn that the tenant is gone; the purge of what
        it had follows."""

        async def decide() -> None:
            old = await self.get(tenant, tenant_id)
            check_etag(etag, old.uid, old.revision, old.name)
            now = self._clock.now_us()
            tombstone = Tombstone(Kind.TENANT, old.uid, Uid(old.uid), old.id, None, old.revision + 1, now)
            await self._store.commit(tenant, WriteSet(tombstones=[tombstone]))
            await self._publisher.publish([tombstone])
            self._deleted()

        await settled(decide)

    async def usage(self, tenant: TenantId, tenant_id: str) -> Usage:
        """Raises NotFound."""
        found = await self.get(tenant, tenant_id)
        devices, credentials = await self._store.counts(tenant)
        return Usage(found, devices, credentials, await self._storage.measure(tenant, tenant_id))

    async def _change(
        self,
        tenant: TenantId,
        tenant_id: str,
        change: Callable[[Tenant], Tenant],
        validate_only: bool = False,
    ) -> Tenant:
        async def decide() -> Tenant:
            old = await self.get(tenant, tenant_id)
            new = change(old)
            if not validate_only:
                if new is not old:
                    await self._store.commit(tenant, WriteSet(puts=[new]))
                await self._publisher.publish([new])
            return new

        return await settled(decide)
