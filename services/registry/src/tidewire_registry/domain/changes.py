"""What the registry tells the other services: the state of an object, or that it is gone.

A change is an object with its revision. Stores note it as unpublished in the same transaction that writes the object;
`application.publishing` puts it on the registry topic.
"""

from dataclasses import dataclass
from enum import StrEnum

from tidewire_kit.ids import TenantId, Uid, uid_hex
from tidewire_registry.domain.credentials import Credential
from tidewire_registry.domain.devices import Device
from tidewire_registry.domain.tenants import Tenant


class Kind(StrEnum):
    """Kind of object, as in the keys of the topic."""

    TENANT = "tenant"
    DEVICE = "device"
    CREDENTIAL = "credential"


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Says that an object is deleted. Kept, so that its uid stays known as gone and its data is purged everywhere."""

    kind: Kind
    tenant: TenantId
    uid: Uid
    id: str
    """Id for people of the tenant or device; for a credential its device's."""
    device_uid: Uid | None
    """Device of a credential; None otherwise."""
    revision: int
    deleted_us: int


Change = Tenant | Device | Credential | Tombstone


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """Names an object for ever: the key of the topic."""

    kind: Kind
    tenant: TenantId
    uid: Uid

    @property
    def key(self) -> bytes:
        """Key on the registry topic."""
        return f"{uid_hex(self.tenant)}/{self.kind}/{uid_hex(self.uid)}".encode()


def ref_of(change: Change) -> ObjectRef:
    """The object that a change is about."""
    if isinstance(change, Device):
        kind = Kind.DEVICE
    elif isinstance(change, Tombstone):
        kind = change.kind
    else:
        kind = Kind.TENANT if isinstance(change, Tenant) else Kind.CREDENTIAL
    return ObjectRef(kind, change.tenant, Uid(change.uid))


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key that verifies the platform's tokens."""

    key_id: str
    public_key_pem: str
    algorithm: str = "ES256"
