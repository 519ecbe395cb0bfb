"""Use cases over devices' credentials. Called by grpc_api."""

from collections.abc import Callable

from tidewire_kit.clock import Clock
from tidewire_kit.errors import FailedPrecondition, InvalidArgument, NotFound
from tidewire_kit.ids import TenantId, Uid, credential_name, device_name, uid_hex
from tidewire_registry.application.public_keys import read_public_key
from tidewire_registry.application.publishing import Publisher
from tidewire_registry.application.requests import RequestKey, memory, remembered, settled
from tidewire_registry.domain.changes import Kind, Tombstone
from tidewire_registry.domain.credentials import MAX_CREDENTIALS_PER_DEVICE, Credential
from tidewire_registry.domain.devices import Device, given_credential
from tidewire_registry.ports import Guard, Page, RegistryStore, WriteSet


class Credentials:
    """`tenant_id` is the tenant's id for people, for names in errors."""

    def __init__(
        self, store: RegistryStore, publisher: Publisher, clock: Clock, new_uid: Callable[[], Uid]
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._clock = clock
        self._new_uid = new_uid

    async def create(
        self,
        tenant: TenantId,
        tenant_id: str,
        device_id: str,
        public_key_pem: str,
        expires_us: int | None,
        request: RequestKey | None,
    ) -> Credential:
        """Registers a key; an ENROLLED device becomes ACTIVE. Raises InvalidArgument, NotFound, FailedPrecondition."""
        pem, algorithm = read_public_key(public_key_pem)
        now = self._clock.now_us()
        uid = self._new_uid()

        async def decide() -> Credential:
            replay = await remembered(self._store, tenant, request)
            if replay is not None:
                made = await self._store.credential(tenant, replay.object_uids[0])
                if made is None:
                    raise NotFound(credential_name(tenant_id, device_id, uid_hex(replay.object_uids[0])))
                await self._publisher.publish([made])
                return made
            if expires_us is not None and expires_us <= now:
                raise InvalidArgument(
                    "credential.expire_time", "is not in the future; leave it out for no expiry"
                )
            device = await self._device(tenant, tenant_id, device_id)
            others = (await self._store.credentials(tenant, device.uid)).items
            if len(others) >= MAX_CREDENTIALS_PER_DEVICE:
                name = device_name(tenant_id, device_id)
                why = f"{name} has {len(others)} credentials, the most there may be; delete one first"
                raise FailedPrecondition(why, reason="TOO_MANY_CREDENTIALS", subject=name)
            credential = Credential(tenant, device.uid, device.id, uid, pem, algorithm, expires_us, now)
            activated = given_credential(device, now)
            puts: list[Device | Credential] = [credential] if activated is None else [activated, credential]
            writes = WriteSet(
                puts=puts,
                guards=[Guard(device.id, device.uid, device.revision)],
                credentials_below=(device.uid, len(others)),
                replay=memory(request, [credential.id], [credential], now),
            )
            await self._store.commit(tenant, writes)
            await self._publisher.publish(puts)
            return credential

        return await settled(decide)

    async def list(
        self, tenant: TenantId, tenant_id: str, device_id: str, after: str, limit: int
    ) -> Page[Credential]:
        """By id. Raises NotFound for the device."""
        device = await self._device(tenant, tenant_id, device_id)
        return await self._store.credentials(tenant, device.uid, after, limit)

    async def delete(self, tenant: TenantId, tenant_id: str, device_id: str, uid: Uid) -> None:
        """Raises NotFound."""

        async def decide() -> None:
            found = await self._store.credential(tenant, uid)
            if found is None or found.device_id != device_id:
                raise NotFound(credential_name(tenant_id, device_id, uid_hex(uid)))
            now = self._clock.now_us()
            tombstone = Tombstone(
                Kind.CREDENTIAL, tenant, uid, device_id, found.device_uid, found.revision + 1, now
            )
            await self._store.commit(tenant, WriteSet(tombstones=[tombstone]))
            await self._publisher.publish([tombstone])

        await settled(decide)

    async def _device(self, tenant: TenantId, tenant_id: str, device_id: str) -> Device:
        device = (await self._store.devices(tenant, [device_id])).get(device_id)
        if device is None:
            raise NotFound(device_name(tenant_id, device_id))
        return device
