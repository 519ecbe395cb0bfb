"""A directory without a registry: a test says which tenants, devices and keys there are.

    world = World(ManualClock())
    tenant = world.add_tenant("acme")
    device = world.add_device(tenant, "pump-1")
    caller = world.verifier.verify(world.token(tenant, Role.OPERATOR))

Changes go through `Directory.apply`, as those of the topic do, with rising revisions. The messages are also built by
functions of their own (`tenant_change`, ...) for tests that put them on a log.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from tidewire.events.v1.registry_change_pb2 import (
    CredentialState,
    DeviceState,
    RegistryChange,
    RegistryHeartbeat,
    SigningKey,
)
from tidewire.registry.v1.resources_pb2 import Credential, Device, Tenant, TenantQuotas
from tidewire_kit.clock import Clock
from tidewire_kit.directory import Directory, TableSource
from tidewire_kit.identity import Role, TokenSigner, TokenVerifier
from tidewire_kit.ids import TenantId, Uid, credential_name, device_name, new_uid, tenant_name
from tidewire_kit.log.port import TableItem
from tidewire_testkit.tokens import (
    PrivateKey,
    device_token,
    new_device_key,
    new_signer,
    public_pem,
    user_token,
)


@dataclass(slots=True)
class TestTenant:
    """A tenant of a `World`."""

    __test__ = False
    uid: TenantId
    id: str
    revision: int = 1


@dataclass(slots=True)
class TestDevice:
    """A device of a `World`."""

    __test__ = False
    tenant: TestTenant
    uid: Uid
    id: str
    revision: int = 1
    ancestors: tuple[Uid, ...] = ()
    type: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    parent_id: str = ""
    location: tuple[float, float] | None = None
    """Degrees: latitude, longitude."""


@dataclass(slots=True)
class TestCredential:
    """A credential of a device, with the private key that only tests have."""

    __test__ = False
    device: TestDevice
    uid: Uid
    key: PrivateKey
    revision: int = 1


class World:
    """A directory with what a test put into it, fresh, and the keys to make tokens."""

    def __init__(
        self,
        clock: Clock,
        partitions: int = 16,
        log: TableSource | None = None,
        *,
        device_facts: bool = False,
    ) -> None:
        self.clock = clock
        self.directory = Directory(log or _SilentLog(), clock, partitions, device_facts=device_facts)
        self.verifier = TokenVerifier(self.directory, clock)
        self.signer: TokenSigner = new_signer(clock)
        self.directory.apply(key_change(self.signer))
        self.heartbeat()

    def heartbeat(self) -> None:
        """Makes the directory fresh for 8 s of the clock."""
        self.directory.apply(heartbeat_change(self.clock))

    def add_tenant(self, tenant_id: str, quotas: TenantQuotas | None = None) -> TestTenant:
        """Adds an active tenant of a new uid."""
        tenant = TestTenant(TenantId(new_uid()), tenant_id)
        self.directory.apply(tenant_change(tenant, quotas=quotas))
        return tenant

    def set_tenant_state(self, tenant: TestTenant, state: "Tenant.State.ValueType") -> None:
        """Blocks or unblocks a tenant, or begins its deletion."""
        tenant.revision += 1
        self.directory.apply(tenant_change(tenant, state=state))

    def delete_tenant(self, tenant: TestTenant) -> None:
        """Deletes a tenant: its tombstone arrives."""
        tenant.revision += 1
        self.directory.apply(tenant_change(tenant, state=Tenant.DELETING, deleted=True))

    def add_device(
        self,
        tenant: TestTenant,
        device_id: str,
        *,
        ancestors: Sequence[Uid] = (),
        state: "Device.State.ValueType" = Device.ACTIVE,
        **facts: Any,
    ) -> TestDevice:
        """Adds a device of a new uid. `facts`: type, labels, parent_id, location."""
        device = TestDevice(tenant, new_uid(), device_id, ancestors=tuple(ancestors), **facts)
        self.directory.apply(device_change(device, self.clock, state=state))
        return device

    def set_device_state(self, device: TestDevice, state: "Device.State.ValueType") -> None:
        """Blocks or unblocks a device."""
        device.revision += 1
        self.directory.apply(device_change(device, self.clock, state=state))

    def delete_device(self, device: TestDevice) -> None:
        """Deletes a device: its tombstone arrives."""
        device.revision += 1
        self.directory.apply(device_change(device, self.clock, state=Device.ERASED, deleted=True))

    def add_credential(
        self, device: TestDevice, algorithm: str = "EdDSA", *, expires_at_us: int | None = None
    ) -> TestCredential:
        """Adds a credential of a new uid with a new key."""
        credential = TestCredential(device, new_uid(), new_device_key(algorithm))
        self.directory.apply(credential_change(credential, expires_at_us=expires_at_us))
        return credential

    def delete_credential(self, credential: TestCredential) -> None:
        """Deletes a credential: its tombstone arrives."""
        credential.revision += 1
        self.directory.apply(credential_change(credential, deleted=True))

    def token(self, tenant: TestTenant | None, *roles: Role, ttl_seconds: float = 3600) -> str:
        """Returns a user's token."""
        return user_token(self.signer, tenant.uid if tenant else None, *roles, ttl_seconds=ttl_seconds)

    def device_token(self, credential: TestCredential, **claims: Any) -> str:
        """Returns a token that the credential's device signed."""
        return device_token(credential.key, credential.uid, credential.device.id, self.clock, claims=claims)


def key_change(signer: TokenSigner, *, revision: int = 1, deleted: bool = False) -> RegistryChange:
    """Returns the topic's value for a signing key."""
    key = SigningKey(key_id=signer.key_id, public_key_pem=signer.public_key_pem, algorithm="ES256")
    return RegistryChange(revision=revision, deleted=deleted, signing_key=key)


def heartbeat_change(clock: Clock) -> RegistryChange:
    """Returns the topic's value for a heartbeat written now."""
    return RegistryChange(heartbeat=RegistryHeartbeat(write_time=_timestamp(clock.now_us())))


def tenant_change(
    tenant: TestTenant,
    *,
    state: "Tenant.State.ValueType" = Tenant.ACTIVE,
    deleted: bool = False,
    quotas: TenantQuotas | None = None,
) -> RegistryChange:
    """Returns the topic's value for a tenant at its present revision."""
    message = Tenant(name=tenant_name(tenant.id), uid=tenant.uid.hex(), state=state, quotas=quotas)
    return RegistryChange(revision=tenant.revision, deleted=deleted, tenant=message)


def device_change(
    device: TestDevice,
    clock: Clock,
    *,
    state: "Device.State.ValueType" = Device.ACTIVE,
    deleted: bool = False,
) -> RegistryChange:
    """Returns the topic's value for a device at its present revision."""
    message = Device(
        name=device_name(device.tenant.id, device.id),
        uid=device.uid.hex(),
        type=device.type,
        labels=device.labels,
        parent=device_name(device.tenant.id, device.parent_id) if device.parent_id else "",
        state=state,
        create_time=_timestamp(clock.now_us()),
        update_time=_timestamp(clock.now_us()),
    )
    if device.location is not None:
        message.location.latitude, message.location.longitude = device.location
    shown = DeviceState(
        tenant_uid=device.tenant.uid, device_uid=device.uid, ancestor_uids=device.ancestors, device=message
    )
    return RegistryChange(revision=device.revision, deleted=deleted, device=shown)


def credential_change(
    credential: TestCredential, *, expires_at_us: int | None = None, deleted: bool = False
) -> RegistryChange:
    """Returns the topic's value for a credential at its present revision."""
    device = credential.device
    message = Credential(
        name=credential_name(device.tenant.id, device.id, credential.uid.hex()),
        public_key_pem=public_pem(credential.key),
        expire_time=_timestamp(expires_at_us) if expires_at_us is not None else None,
    )
    shown = CredentialState(
        tenant_uid=device.tenant.uid,
        device_uid=device.uid,
        credential_uid=credential.uid,
        credential=message,
    )
    return RegistryChange(revision=credential.revision, deleted=deleted, credential=shown)


def _timestamp(us: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(us)
    return stamp


class _SilentTable:
    """A table without entries that never changes."""

    def __init__(self) -> None:
        self.caught_up = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[list[TableItem]]:
        self.caught_up.set()
        yield []
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Nothing is open."""


class _SilentLog:
    """The least of a log that a directory needs; a `World` applies changes itself."""

    def table(self, topic: str) -> _SilentTable:
        """Returns an empty table."""
        return _SilentTable()
