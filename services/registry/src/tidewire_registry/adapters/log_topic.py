"""Writes the registry topic through the message log: the port ChangeTopic.

Keys are `{tenant uid hex}/{kind}/{object uid hex}`, `-/key/{kid}` and `-/heartbeat/registry`; values, RegistryChange.
"""

from collections.abc import Callable, Mapping, Sequence

from tidewire.events.v1.registry_change_pb2 import (
    CredentialState,
    DeviceState,
    RegistryChange,
    RegistryHeartbeat,
    SigningKey,
)
from tidewire.registry.v1 import resources_pb2
from tidewire_kit.clock import Clock
from tidewire_kit.ids import TenantId, Uid, credential_name, device_name, uid_hex
from tidewire_kit.log.port import MessageLog, TableItem
from tidewire_kit.topics import REGISTRY
from tidewire_registry.conversions.resources import (
    bare_tenant,
    credential_to_proto,
    device_to_proto,
    tenant_to_proto,
    timestamp,
)
from tidewire_registry.domain import changes
from tidewire_registry.domain.changes import Change, Kind, ObjectRef, Tombstone, ref_of
from tidewire_registry.domain.devices import Device
from tidewire_registry.domain.tenants import Tenant
from tidewire_registry.metrics import RegistryMetrics

HEARTBEAT_KEY = b"-/heartbeat/registry"
_FEW = 100


class LogTopic:
    """`seen` is told of changes as soon as they are on the topic: this process's own replica then knows a tenant before
    its creator can ask for anything in it. Large loads are left to the replica's own reading."""

    def __init__(
        self,
        log: MessageLog,
        clock: Clock,
        metrics: RegistryMetrics,
        seen: Callable[[RegistryChange], object] | None = None,
    ) -> None:
        self._log = log
        self._clock = clock
        self._metrics = metrics
        self._seen = seen

    @property
    def incarnation(self) -> bytes:
        """The log's."""
        return self._log.incarnation(REGISTRY)

    async def put(self, changes: Sequence[Change], tenant_ids: Mapping[TenantId, str]) -> None:
        """One `put` of the log for all."""
        now = timestamp(self._clock.now_us())
        messages: list[RegistryChange] = []
        items: list[TableItem] = []
        for change in changes:
            tenant_id = tenant_ids.get(change.tenant)
            if tenant_id is None:
                if not (isinstance(change, Tombstone) and change.kind is Kind.TENANT):
                    continue
                tenant_id = change.id
            message = _message(change, tenant_id)
            message.publish_time.CopyFrom(now)
            messages.append(message)
            items.append((ref_of(change).key, message.SerializeToString()))
        if not items:
            return
        await self._log.put(REGISTRY, items)
        if self._seen is not None and len(messages) <= _FEW:
            for message in messages:
                self._seen(message)

    async def put_signing_key(self, key: changes.SigningKey) -> None:
        """Under `-/key/{kid}`; its revision is always 1, since another key has another kid."""
        message = RegistryChange(
            revision=1,
            publish_time=timestamp(self._clock.now_us()),
            signing_key=SigningKey(
                key_id=key.key_id, public_key_pem=key.public_key_pem, algorithm=key.algorithm
            ),
        )
        await self._log.put(REGISTRY, [(f"-/key/{key.key_id}".encode(), message.SerializeToString())])
        if self._seen is not None:
            self._seen(message)

    async def put_heartbeat(self) -> None:
        """Under `-/heartbeat/registry`."""
        now_us = self._clock.now_us()
        moment = timestamp(now_us)
        message = RegistryChange(publish_time=moment, heartbeat=RegistryHeartbeat(write_time=moment))
        await self._log.put(REGISTRY, [(HEARTBEAT_KEY, message.SerializeToString())])
        self._metrics.heartbeat.set(now_us / 1e6)

    async def remove(self, refs: Sequence[ObjectRef]) -> None:
        """Puts None under their keys."""
        await self._log.put(REGISTRY, [(ref.key, None) for ref in refs])


def object_of(change: RegistryChange) -> tuple[ObjectRef, str] | None:
    """The object that a value of the topic is about, and its id (of a credential, its device's); None for others."""
    match change.WhichOneof("object"):
        case "tenant":
            uid = bytes.fromhex(change.tenant.uid)
            return ObjectRef(Kind.TENANT, TenantId(uid), Uid(uid)), change.tenant.name.rpartition("/")[2]
        case "device":
            device = change.device
            ref = ObjectRef(Kind.DEVICE, TenantId(device.tenant_uid), Uid(device.device_uid))
            return ref, device.device.name.rpartition("/")[2]
        case "credential":
            key = change.credential
            ref = ObjectRef(Kind.CREDENTIAL, TenantId(key.tenant_uid), Uid(key.credential_uid))
            return ref, key.credential.name.split("/")[3]
    return None


def _message(change: Change, tenant_id: str) -> RegistryChange:
    if isinstance(change, Device):
        # Filled in place: as arguments of constructors the parts would be copied once more each.
        message = RegistryChange(revision=change.revision)
        state = message.device
        state.tenant_uid, state.device_uid = change.tenant, change.uid
        state.ancestor_uids.extend(change.ancestors)
        state.device.CopyFrom(device_to_proto(change, tenant_id))
        return message
    if isinstance(change, Tenant):
        return RegistryChange(revision=change.revision, tenant=tenant_to_proto(change))
    if isinstance(change, Tombstone):
        return _tombstone(change, tenant_id)
    return RegistryChange(
        revision=change.revision,
        credential=CredentialState(
            tenant_uid=change.tenant,
            device_uid=change.device_uid,
            credential_uid=change.uid,
            credential=credential_to_proto(change, tenant_id),
        ),
    )


def _tombstone(tombstone: Tombstone, tenant_id: str) -> RegistryChange:
    message = RegistryChange(revision=tombstone.revision, deleted=True)
    if tombstone.kind is Kind.TENANT:
        message.tenant.CopyFrom(bare_tenant(tombstone.uid, tenant_id))
    elif tombstone.kind is Kind.DEVICE:
        name = device_name(tenant_id, tombstone.id)
        device = resources_pb2.Device(name=name, uid=uid_hex(tombstone.uid))
        state = DeviceState(tenant_uid=tombstone.tenant, device_uid=tombstone.uid, device=device)
        message.device.CopyFrom(state)
    else:
        name = credential_name(tenant_id, tombstone.id, uid_hex(tombstone.uid))
        message.credential.CopyFrom(
            CredentialState(
                tenant_uid=tombstone.tenant,
                device_uid=tombstone.device_uid or b"",
                credential_uid=tombstone.uid,
                credential=resources_pb2.Credential(name=name),
            )
        )
    return message
