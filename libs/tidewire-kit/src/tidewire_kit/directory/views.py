"""What the directory knows of tenants, credentials and keys, as values that other parts read."""

from dataclasses import dataclass, field
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tidewire_kit.directory.table import DeviceTable
from tidewire_kit.ids import TenantId, Uid

PublicKey = EllipticCurvePublicKey | Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class Quotas:
    """Limits of a tenant, as the registry's `TenantQuotas`. 0: the platform's default."""

    readings_per_second: int = 0
    burst_readings: int = 0
    batches_per_second: int = 0
    device_readings_per_second: int = 0
    devices: int = 0
    metrics_per_device: int = 0
    stored_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Retention:
    """How long a tenant's data is kept, in seconds. None: for ever."""

    raw_seconds: float | None = None
    rollup_seconds: float | None = None


class TenantView:
    """A tenant as last seen on the registry's topic. One object per tenant, updated in place, so it may be kept."""

    __slots__ = ("active", "deleted", "devices", "id", "quotas", "retention", "revision", "uid")

    def __init__(self, uid: TenantId, partitions: int) -> None:
        self.uid = uid
        self.id = ""
        """The tenant's id as people see it; "" while only its devices were seen."""
        self.active = False
        """Whether anything is taken in or served for it: not blocked, not being deleted, not unknown."""
        self.deleted = False
        """Deleted or being deleted: its name is free and its data is to be purged."""
        self.quotas = Quotas()
        self.retention = Retention()
        self.revision = -1
        self.devices = DeviceTable(uid, partitions)


@dataclass(slots=True)
class SigningKeyView:
    """A public key that verifies users' and services' tokens."""

    key_id: str
    algorithm: str
    """JOSE name; `ES256`."""
    revision: int
    public_key: PublicKey


@dataclass(slots=True)
class CredentialView:
    """A public key that verifies the tokens of one device."""

    uid: Uid
    tenant: TenantId
    device_uid: Uid
    expires_at_us: int | None
    """Unix µs; None: it does not expire."""
    revision: int
    public_key_pem: str
    _key: PublicKey | None = field(default=None, repr=False)

    @property
    def public_key(self) -> PublicKey:
        """The key; parsed at first use, as most of 100,000 credentials are not used between two changes."""
        if self._key is None:
            self._key = load_public_key(self.public_key_pem)
        return self._key


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A deleted object, for the services that must purge what they keep of it."""

    kind: Literal["tenant", "device", "credential"]
    tenant: TenantId
    uid: Uid
    name: str
    """Resource name that it had."""
    revision: int


def load_public_key(pem: str) -> PublicKey:
    """Returns the Ed25519 or P-256 key of a PEM SubjectPublicKeyInfo; ValueError for anything else."""
    key = load_pem_public_key(pem.encode())
    if isinstance(key, Ed25519PublicKey):
        return key
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name == "secp256r1":
        return key
    raise ValueError("the key is neither Ed25519 nor ECDSA over P-256")
