"""Credentials: public keys with which devices sign their tokens. Used by application.credentials."""

from dataclasses import dataclass
from enum import IntEnum

from tidewire_kit.ids import TenantId, Uid, credential_name, uid_hex

MAX_CREDENTIALS_PER_DEVICE = 16
"""Enough to rotate keys many times over; bounds what every replica keeps."""


class Algorithm(IntEnum):
    """Kind of key; the numbers are those of the API."""

    ED25519 = 1
    ES256 = 2


@dataclass(frozen=True, slots=True)
class Credential:
    """A public key of a device. It is never changed, so its revision is 1; its tombstone's is 2. Times are unix µs."""

    tenant: TenantId
    device_uid: Uid
    device_id: str
    uid: Uid
    """Its hexadecimal form is the credential's id and the `kid` of the device's tokens."""
    public_key_pem: str
    algorithm: Algorithm
    expires_us: int | None
    created_us: int
    revision: int = 1

    @property
    def id(self) -> str:
        """Last segment of the resource name."""
        return uid_hex(self.uid)

    def name(self, tenant_id: str) -> str:
        """Resource name; `tenant_id` is the tenant's id for people."""
        return credential_name(tenant_id, self.device_id, self.id)
