"""Use cases over devices that read or change one or list many. Called by grpc_api; creation is in device_creation."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from tidewire_kit.clock import Clock
from tidewire_kit.errors import FailedPrecondition, NotFound
from tidewire_kit.filter import parse
from tidewire_kit.ids import TenantId, device_name
from tidewire_registry.application.publishing import Publisher
from tidewire_registry.application.requests import settled
from tidewire_registry.domain import devices
from tidewire_registry.domain.changes import Kind, Tombstone
from tidewire_registry.domain.devices import Device, Location
from tidewire_registry.domain.hierarchy import below, check_no_cycle, moved_tree, unknown_parent
from tidewire_registry.domain.values import check_etag
from tidewire_registry.ports import Guard, Page, RegistryStore, WriteSet


@dataclass(frozen=True, slots=True)
class Clear:
    """Says that a field is to be emptied, where None says that it stays."""


CLEAR = Clear()


@dataclass(frozen=True, slots=True)
class DeviceChanges:
    """Fields to change; None: leave as it is."""

    display_name: str | None = None
    type: str | None = None
    labels: Mapping[str, str] | None = None
    parent_id: str | None = None
    """Empty: no parent."""
    location: Location | Clear | None = None

    def of(self, device: Device) -> Device:
        """The device with these fields; its ancestors are the use case's."""
        location = device.location
        if self.location is not None:
            location = None if isinstance(self.location, Clear) else self.location
        return replace(
            device,
            display_name=device.display_name if self.display_name is None else self.display_name,
            type=device.type if self.type is None else self.type,
            labels=device.labels if self.labels is None else self.labels,
            parent_id=device.parent_id if self.parent_id is None else self.parent_id,
            location=location,
        )


class Devices:
    """`tenant_id` is the tenant's id for people, for names in errors and filters."""

    def __init__(self, store: RegistryStore, publisher: Publisher, clock: Clock) -> None:
        self._store = store
        self._publisher = publisher
        self._clock = clock

    async def get(self, tenant: TenantId, tenant_id: str, device_id: str) -> Device:
        """Raises NotFound."""
        device = (await self._store.devices(tenant, [device_id])).get(device_id)
        if device is None:
            raise NotFound(device_name(tenant_id, device_id))
        return device

    async def resolve(self, tenant: TenantId, device_ids: list[str]) -> list[Device]:
        """Those of these devices that exist, in no order."""
        return list((await self._store.devices(tenant, device_ids)).values())

    async def list(
        self, tenant: TenantId, tenant_id: str, filter_text: str, after: str, limit: int, count: bool
    ) -> tuple[Page[Device], int]:
        """A page of what the filter admits, by id, and (if `count`) how many that are in all. InvalidArgument."""
        condition = parse(filter_text, tenant_id)
        page = await self._store.list_devices(tenant, condition, after, limit)
        return page, await self._store.count_devices(tenant, condition) if count else 0

    async def update(
        self,
        tenant: TenantId,
        tenant_id: str,
        device_id: str,
        changes: DeviceChanges,
        etag: str,
        validate_only: bool,
    ) -> Device:
        """Raises InvalidArgument, NotFound, EtagMismatch; FailedPrecondition when the tree below gets too deep."""

        async def decide() -> Device:
            old = await self.get(tenant, tenant_id, device_id)
            check_etag(etag, old.uid, old.revision, device_name(tenant_id, device_id))
            new = changes.of(old)
            new.check()
            if new == old:
                if not validate_only:
                    await self._publisher.publish([old])
                return old
            new.updated_us, new.revision = self._clock.now_us(), old.revision + 1
            writes = WriteSet(puts=[new])
            if new.parent_id != old.parent_id:
                writes = await self._moved(tenant, old, new)
            if not validate_only:
                await self._store.commit(tenant, writes)
                await self._publisher.publish(writes.puts)
            return new

        return await settled(decide)

    async def block(self, tenant: TenantId, tenant_id: str, device_id: str) -> Device:
        """Raises NotFound, FailedPrecondition when it is out of use. Blocking a blocked device changes nothing."""

        async def change(old: Device) -> Device:
            return devices.blocked(old, self._clock.now_us())

        return await self._change(tenant, tenant_id, device_id, change)

    async def unblock(self, tenant: TenantId, tenant_id: str, device_id: str) -> Device:
        """Raises NotFound, FailedPrecondition when it is neither blocked nor quarantined."""

        async def change(old: Device) -> Device:
            has_credential = bool((await self._store.credentials(tenant, old.uid, limit=1)).items)
            return devices.unblocked(old, has_credential, self._clock.now_us())

        return await self._change(tenant, tenant_id, device_id, change)

    async def delete(self, tenant: TenantId, tenant_id: str, device_id: str, etag: str) -> None:
        """Deletes it with its credentials. Raises NotFound, EtagMismatch, FailedPrecondition while it has children."""

        async def decide() -> None:
            old = await self.get(tenant, tenant_id, device_id)
            name = device_name(tenant_id, device_id)
            check_etag(etag, old.uid, old.revision, name)
            descendants = await self._store.descendants(tenant, old.uid)
            if descendants:
                some = f"{len(descendants)} devices below it, such as {descendants[0].id}"
                why = f"{name} has {some}; move or delete them first"
                raise FailedPrecondition(why, reason="DEVICE_HAS_CHILDREN", subject=name)
            credentials = (await self._store.credentials(tenant, old.uid)).items
            now = self._clock.now_us()
            tombstones = [Tombstone(Kind.DEVICE, tenant, old.uid, old.id, None, old.revision + 1, now)]
            for credential in credentials:
                revision = credential.revision + 1
                tombstones.append(
                    Tombstone(Kind.CREDENTIAL, tenant, credential.uid, old.id, old.uid, revision, now)
                )
            writes = WriteSet(
                tombstones=tombstones,
                descendants=(old.uid, 0),
                credentials_below=(old.uid, len(credentials)),
            )
            await self._store.commit(tenant, writes)
            await self._publisher.publish(tombstones)

        await settled(decide)

    async def _moved(self, tenant: TenantId, old: Device, new: Device) -> WriteSet:
        """Sets the ancestors of `new`; with it every descendant changes."""
        guards = []
        new.ancestors = ()
        if new.parent_id:
            parent = (await self._store.devices(tenant, [new.parent_id])).get(new.parent_id)
            if parent is None:
                raise unknown_parent(new.parent_id, "device.parent")
            check_no_cycle(old, parent)
            new.ancestors = below(parent, "device.parent")
            guards.append(Guard(parent.id, parent.uid, parent.revision))
        descendants = await self._store.descendants(tenant, old.uid)
        puts = [new, *moved_tree(old, new.ancestors, descendants)]
        return WriteSet(puts=puts, guards=guards, descendants=(old.uid, len(descendants)))

    async def _change(
        self, tenant: TenantId, tenant_id: str, device_id: str, change: Callable[[Device], Awaitable[Device]]
    ) -> Device:
        async def decide() -> Device:
            old = await self.get(tenant, tenant_id, device_id)
            new = await change(old)
            if new is not old:
                await self._store.commit(tenant, WriteSet(puts=[new]))
            await self._publisher.publish([new])
            return new

        return await settled(decide)
