"""What the registry needs from the world: a store, the registry topic, storage's figures, addresses, a signer.

The use cases in `application` know these protocols only; `adapters` implement them and `main` chooses.

The store in one paragraph. A use case reads objects, decides, and commits a `WriteSet`: new states of objects with
their next revisions, and what must still hold of others. The store applies all of it or, when anything has changed
since it was read, nothing, and raises `Conflict`; the use case then reads again. So no lock is held between calls,
every rule lives in the use case, and a store on a cluster can do the same with conditional writes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tidewire_kit.filter.conditions import Condition
from tidewire_kit.ids import TenantId, Uid
from tidewire_registry.domain.changes import Change, ObjectRef, SigningKey, Tombstone
from tidewire_registry.domain.credentials import Credential
from tidewire_registry.domain.devices import Device
from tidewire_registry.domain.tenants import Tenant


class Conflict(Exception):
    """What a WriteSet expects does not hold (any more). Nothing was written. Read again and decide again."""


class DeviceLimit(Exception):
    """The WriteSet would raise the tenant's devices above `device_limit`. Nothing was written."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The memory of a request with a `request_id`, kept 24 hours: a retry gets what the first try made."""

    request_id: str
    fingerprint: bytes
    """Hash of the request; another one under the same id is the caller's mistake."""
    object_ids: Sequence[str]
    """Ids of the objects that were made, in the order of the answer; of credentials `{device id}/{credential id}`."""
    object_uids: Sequence[Uid]
    made_us: int


@dataclass(frozen=True, slots=True)
class Guard:
    """The device `device_id` is still this object at this revision."""

    device_id: str
    uid: Uid
    revision: int


@dataclass(frozen=True, slots=True)
class WriteSet:
    """What to write at once, within one tenant. Everything written is noted as unpublished in the same transaction."""

    puts: Sequence[Tenant | Device | Credential] = ()
    """New states. Revision 1: the object must not exist, nor another of its id. Else it must exist at revision - 1."""
    tombstones: Sequence[Tombstone] = ()
    """Objects to remove, which must exist at revision - 1. Of a tenant: it is no longer readable and its name is free,
    but its devices stay until `purge`."""
    guards: Sequence[Guard] = ()
    descendants: tuple[Uid, int] | None = None
    """The device of this uid has exactly so many descendants."""
    credentials_below: tuple[Uid, int] | None = None
    """The device of this uid has exactly so many credentials before the write."""
    device_limit: int | None = None
    """Most devices that the tenant may have afterwards; more raises DeviceLimit."""
    replay: Replay | None = None
    """Must not be known yet."""


@dataclass(frozen=True, slots=True)
class Page[T]:
    """Part of a list."""

    items: list[T]
    more: bool
    """Whether there are items after the last one."""


class RegistryStore(Protocol):
    """Keeps tenants, devices, credentials, tombstones and what is unpublished.

    Tenancy: every method but those for tenants themselves takes the tenant first, and reads and writes nothing of
    another. Consistency: a read that begins after `commit` returned sees what it wrote. Durability: what `commit`
    returned for survives a crash. Order: of commits that conflict, of whatever processes, exactly one takes place.
    Errors: `Conflict`, `DeviceLimit`, and `Unavailable` (unknown whether it was done).
    Threads: call from one event loop; nothing blocks it.
    """

    async def commit(self, tenant: TenantId, writes: WriteSet) -> None:
        """Applies all of `writes` or nothing. A write in a tenant that does not exist is a Conflict."""

    # Tenants

    async def tenant(self, tenant: TenantId) -> Tenant | None:
        """The tenant of this uid."""

    async def tenant_by_id(self, tenant_id: str) -> Tenant | None:
        """The tenant that has this id now."""

    async def tenants(self, after: str, limit: int) -> Page[Tenant]:
        """Tenants by id, from the one that follows `after`."""

    async def counts(self, tenant: TenantId) -> tuple[int, int]:
        """(devices, credentials) of the tenant."""

    # Devices

    async def devices(self, tenant: TenantId, ids: Sequence[str]) -> dict[str, Device]:
        """The devices of these ids that exist; at most 10,000 ids."""

    async def list_devices(
        self, tenant: TenantId, condition: Condition | None, after: str, limit: int
    ) -> Page[Device]:
        """Devices that the condition admits, by id (code points), from the one that follows `after`."""

    async def count_devices(self, tenant: TenantId, condition: Condition | None) -> int:
        """How many devices the condition admits."""

    async def descendants(self, tenant: TenantId, device_uid: Uid) -> list[Device]:
        """Every device below this one, in no order."""

    # Credentials

    async def credentials(
        self, tenant: TenantId, device_uid: Uid, after: str = "", limit: int = 1_000
    ) -> Page[Credential]:
        """A device's credentials by their hexadecimal id, from the one that follows `after`."""

    async def credential(self, tenant: TenantId, uid: Uid) -> Credential | None:
        """The credential of this uid."""

    # Requests

    async def replay(self, tenant: TenantId, request_id: str) -> Replay | None:
        """The memory of a request; CreateTenant's are kept under the uid of 16 zero bytes."""

    async def forget_replays(self, before_us: int) -> None:
        """Drops the memory of requests made before this moment."""

    # Publishing

    async def unpublished(self, limit: int) -> list[Change]:
        """Objects whose present revision was never marked as published, in no order."""

    async def mark_published(self, changes: Sequence[Change]) -> None:
        """Notes that these revisions are on the topic; an object that has changed since stays or becomes unpublished,
        as another process may have put the newer revision before this one."""

    async def unpublish(self, refs: Sequence[tuple[ObjectRef, str]]) -> None:
        """Notes objects as unpublished, whatever was marked: the topic has gone back to an older revision of them. Each
        with its id, of a credential its device's, as in a Tombstone."""

    async def unpublish_all(self) -> None:
        """Notes everything, tombstones included, as unpublished: the topic is new."""

    async def published_topic(self) -> bytes:
        """Incarnation of the topic on which things are published; empty at first."""

    async def set_published_topic(self, incarnation: bytes) -> None:
        """Sets that."""

    # Purge

    async def deleted_tenants(self) -> list[TenantId]:
        """Tenants with a tombstone of which something may be left."""

    async def purge_candidates(self, tenant: TenantId, limit: int) -> list[ObjectRef]:
        """Some of what is left of a deleted tenant: devices, credentials and their tombstones, not its own."""

    async def purge(self, tenant: TenantId, refs: Sequence[ObjectRef]) -> None:
        """Removes these for ever. With none: notes that nothing is left."""

    async def erase_deleted(self) -> None:
        """Sees to it that no file holds what was deleted before the call; what is in use goes at a later call."""


class ChangeTopic(Protocol):
    """The registry's compacted topic. One process writes in the order of its calls; between several nothing is
    promised, so a revision may land behind a newer one. `application.publishing` says how that is made good."""

    @property
    def incarnation(self) -> bytes:
        """16 bytes that a new topic does not share with an old one."""

    async def put(self, changes: Sequence[Change], tenant_ids: Mapping[TenantId, str]) -> None:
        """Publishes; durable when it returns. `tenant_ids`: uid → id for people, for resource names. A change of a
        tenant that is not in it is left out.

        Raises Unavailable or QuotaExceeded (the log is full); then some may be published.
        """

    async def put_signing_key(self, key: SigningKey) -> None:
        """Publishes a key that verifies tokens."""

    async def put_heartbeat(self) -> None:
        """Publishes the registry's sign of life."""

    async def remove(self, refs: Sequence[ObjectRef]) -> None:
        """Removes keys from the topic."""


@dataclass(frozen=True, slots=True)
class StorageFigures:
    """What storage says of a tenant. Counts since its creation, bytes now; `measured_us` unix µs."""

    accepted_readings: int
    stored_readings: int
    stored_bytes: int
    measured_us: int


class StorageUsage(Protocol):
    """Asks the storage service."""

    async def measure(self, tenant: TenantId, tenant_id: str) -> StorageFigures | None:
        """Figures of a tenant; None when storage cannot be reached within 2 s. Never raises."""


class Endpoints(Protocol):
    """Knows where the services listen."""

    def addresses(self) -> Mapping[str, Sequence[str]]:
        """Service → `host:port` of each of its live processes; services that have none are absent."""


class TokenMaker(Protocol):
    """Signs tokens of users and services with the platform's key."""

    def make(
        self, subject: str, tenant: TenantId | None, roles: Sequence[str], ttl_seconds: int
    ) -> tuple[str, int]:
        """A token that holds from now for `ttl_seconds`, and the unix µs of its end."""
