"""Who calls: what a verified token says, in the terms that use cases decide by.

Made by `TokenVerifier.verify`; handed to servicers as `Call.caller`. Nothing in it comes from a request's body.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import xxhash

from tidewire_kit.ids import TenantId, Uid


class Role(StrEnum):
    """What a caller may be. Values are those of the claim `roles`."""

    PLATFORM_ADMIN = "platform-admin"
    """Manages tenants; has no tenant of its own."""
    TENANT_ADMIN = "tenant-admin"
    """Everything within one tenant."""
    OPERATOR = "operator"
    """Manages the devices of one tenant."""
    READER = "reader"
    """Reads the data of one tenant."""
    SERVICE = "service"
    """A process of the platform."""
    DEVICE = "device"
    """A device or gateway. Never in a claim: it follows from the key that signed the token."""


USER_ROLES = frozenset(Role) - {Role.DEVICE}
"""The roles that a user's or service's token may name."""


@dataclass(slots=True)
class Admission:
    """What a verified token rests on, and at which generation of the directory that was last found to be there.

    Kept and updated by `TokenVerifier` only.
    """

    key_id: str
    credential: bytes | None
    """Uid of the device's credential; None: a user's or service's token."""
    generation: int


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """A verified caller. Compared by identity: one object per token for as long as the token is cached."""

    kind: Literal["user", "device", "service"]
    subject: str
    """For logs: the claim `sub`; of a device, its id."""
    roles: frozenset[Role]
    tenant: TenantId | None
    """None: a platform administrator or a service."""
    tenant_id: str
    """The tenant's id as people see it; "" when there is no tenant."""
    device_uid: Uid | None
    device_id: str
    """"" unless kind is `device`."""
    publisher_uid: bytes
    """16 bytes, the scope of batch ids: the device's uid, or a hash of tenant and subject."""
    expires_at_us: int
    """Unix µs after which the token does not hold."""
    admission: Admission | None = field(default=None, repr=False)
    """The verifier's own note. None: not made by a verifier, as in tests of use cases; then only the expiry counts."""


def publisher_uid_of(tenant: TenantId | None, subject: str) -> bytes:
    """Returns the 16-byte scope of batch ids of a publisher that is not a device: xxh3_128(tenant uid ‖ subject)."""
    return xxhash.xxh3_128_digest((tenant or b"") + subject.encode())
