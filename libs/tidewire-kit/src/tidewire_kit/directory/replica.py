"""The directory: this process's replica of `tidewire.registry.v1`, so that no request waits for the registry.

Ingestion checks devices in it, every service verifies tokens with it, storage learns from it what to purge. It follows
the topic in a task of its own on the process's loop; all methods except `start`, `ready` and `close` are synchronous
and cheap. State is only ever replaced by state of the same or a higher revision, whatever the order of arrival.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from tidewire.events.v1.registry_change_pb2 import CredentialState, DeviceState, RegistryChange
from tidewire.registry.v1.registry_pb2 import ResolvedDevice
from tidewire.registry.v1.resources_pb2 import Device, Tenant
from tidewire_kit import topics
from tidewire_kit.clock import Clock
from tidewire_kit.directory.facts import FactsMaker
from tidewire_kit.directory.keys import SigningKeys
from tidewire_kit.directory.views import (
    CredentialView,
    Quotas,
    Retention,
    SigningKeyView,
    TenantView,
    Tombstone,
)
from tidewire_kit.errors import Unavailable
from tidewire_kit.ids import TenantId, Uid
from tidewire_kit.lasting import ended
from tidewire_kit.log.port import TableItem, TableReader
from tidewire_kit.observability.logs import get_logger

FRESH_SECONDS: Final = 8.0
"""A replica that has seen no heartbeat for this long does not vouch for what it holds."""

_ADMITTED_STATES = frozenset({Device.ACTIVE, Device.ENROLLED})
_RESTART_SECONDS = 1.0

ChangeCallback = Callable[[RegistryChange], None]

logger = get_logger(__name__)


class TableSource(Protocol):
    """What the directory needs of a `MessageLog`."""

    def table(self, topic: str) -> TableReader:
        """See `MessageLog.table`."""


class Directory:
    """The replica. Construct, `await start()`, `await ready()`, read; `await close()`."""

    def __init__(
        self, log: TableSource, clock: Clock, partitions: int, *, device_facts: bool = False
    ) -> None:
        """`partitions` is the telemetry topic's count, which devices' partitions are computed with.

        With `device_facts` each device's type, labels and so on are kept, in about 0.6 KB: for who selects by them.
        """
        self._facts = FactsMaker() if device_facts else None
        self._log = log
        self._clock = clock
        self._partitions = partitions
        self._tenants: dict[bytes, TenantView] = {}
        self._tenant_by_name: dict[str, TenantView] = {}
        self._credentials: dict[bytes, CredentialView] = {}
        self._keys = SigningKeys()
        self._tombstones: dict[bytes, Tombstone] = {}
        self._callbacks: list[ChangeCallback] = []
        self._topic_callbacks: list[ChangeCallback] = []
        self._heartbeat_at = -FRESH_SECONDS - clock.monotonic()
        self._heartbeat_seen = False
        self._caught_up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.generation = 0
        """Rises with every change that takes something away: a block, a deletion, a credential's or key's removal."""

    # Life

    async def start(self) -> None:
        """Begins to replay and then to follow the topic."""
        self._task = asyncio.create_task(self._follow(), name="directory")

    async def ready(self) -> None:
        """Returns when everything that was on the topic at `start` has been applied."""
        await self._caught_up.wait()

    async def close(self) -> None:
        """Stops following; what is held stays readable. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @property
    def caught_up(self) -> bool:
        """Whether the replay is done."""
        return self._caught_up.is_set()

    @property
    def fresh(self) -> bool:
        """Whether a heartbeat of the registry came in the last 8 s, by this process's monotonic clock."""
        return self._heartbeat_seen and self._clock.monotonic() - self._heartbeat_at < FRESH_SECONDS

    def require_fresh(self) -> None:
        """Raises Unavailable (reason REGISTRY_STALE) unless `fresh`: changes may have been missed."""
        if not self.fresh:
            raise Unavailable(
                "registry",
                f"no sign of life for {FRESH_SECONDS:g} s, so blocks may have been missed; try again shortly",
                reason="REGISTRY_STALE",
                retry_delay_seconds=2.0,
            )

    async def check(self) -> str | None:
        """A health check: None while `fresh`, otherwise why not."""
        return None if self.fresh else f"the registry has been silent for {FRESH_SECONDS:g} s or more"

    def ended(self) -> str | None:
        """Says so when nothing follows the topic any more though nobody closed it; see `tidewire_kit.lasting`."""
        return ended(self._task)

    # Reading

    def tenant(self, tenant: TenantId) -> TenantView | None:
        """Returns the tenant of this uid, blocked ones and those being deleted included."""
        return self._tenants.get(tenant)

    def tenant_by_name(self, tenant_id: str) -> TenantView | None:
        """Returns the living tenant of this id (not one that is deleted or being deleted)."""
        return self._tenant_by_name.get(tenant_id)

    def tenants(self) -> list[TenantView]:
        """Returns all tenants that are not deleted, those being deleted included, in no order."""
        return [view for view in self._tenants.values() if view.revision >= 0]

    def signing_key(self, key_id: str) -> SigningKeyView | None:
        """Returns the platform's public key of this `kid`."""
        return self._keys.get(key_id)

    def credential(self, uid: bytes) -> CredentialView | None:
        """Returns the device credential of this uid, expired ones included."""
        return self._credentials.get(uid)

    def tombstones(self) -> list[Tombstone]:
        """Returns the deleted tenants, devices and credentials that the topic still names, in no order."""
        return list(self._tombstones.values())

    def revision_of(self, change: RegistryChange) -> int:
        """Returns the highest revision known of the object that `change` is about; -1: none, or it has no revisions."""
        held = -1
        uid = b""
        match change.WhichOneof("object"):
            case "tenant":
                uid = bytes.fromhex(change.tenant.uid)
                tenant = self._tenants.get(uid)
                held = tenant.revision if tenant is not None else -1
            case "device":
                uid = change.device.device_uid
                tenant = self._tenants.get(change.device.tenant_uid)
                slot = tenant.devices.slot_by_uid.get(uid) if tenant is not None else None
                if tenant is not None and slot is not None:
                    held = int(tenant.devices.revisions[slot])
            case "credential":
                uid = change.credential.credential_uid
                credential = self._credentials.get(uid)
                held = credential.revision if credential is not None else -1
        tombstone = self._tombstones.get(uid)
        return max(held, tombstone.revision) if tombstone is not None else held

    def on_topic(self, callback: ChangeCallback) -> None:
        """Calls `callback` with each value that is read from the topic, after it was applied or ignored, as `on_change`
        does: what the topic holds last, also where it is older than what is known."""
        self._topic_callbacks.append(callback)

    def on_change(self, callback: ChangeCallback) -> None:
        """Calls `callback` after each change that was applied, on the loop; it must be quick and must not raise."""
        self._callbacks.append(callback)

    # Writing

    def apply(self, change: RegistryChange) -> None:
        """Applies one value of the topic. A lower revision than the one held is ignored; so is an unknown object."""
        match change.WhichOneof("object"):
            case "device":
                applied = self._apply_device(change, change.device)
            case "credential":
                applied = self._apply_credential(change, change.credential)
            case "tenant":
                applied = self._apply_tenant(change, change.tenant)
            case "signing_key":
                applied, known = self._keys.apply(change, change.signing_key)
                self.generation += known
            case "heartbeat":
                self._heartbeat(change.heartbeat.write_time.ToMicroseconds())
                return
            case _:
                return  # written by a newer registry
        if applied and self._callbacks:
            for callback in self._callbacks:
                callback(change)

    def add_resolved(self, tenant: TenantId, devices: Iterable[ResolvedDevice]) -> None:
        """Merges an answer of `ResolveDevices`: devices whose change has not arrived here yet."""
        for resolved in devices:
            uid = bytes.fromhex(resolved.device.uid)
            ancestors = tuple(bytes.fromhex(ancestor) for ancestor in resolved.ancestor_uids)
            self._put_device(tenant, uid, resolved.device, ancestors, resolved.revision)

    def remove_key(self, key: str) -> None:
        """Applies the removal of a topic's key (the registry does so long after a tombstone, when all have purged)."""
        tenant_hex, kind, object_id = key.split("/", 2)
        if kind == "key":
            self.generation += self._keys.remove(object_id)
        elif kind in ("tenant", "device", "credential"):
            uid = bytes.fromhex(object_id)
            self._tombstones.pop(uid, None)
            self._forget(kind, bytes.fromhex(tenant_hex), uid)

    # Inside

    async def _follow(self) -> None:
        while True:
            reader = self._log.table(topics.REGISTRY)
            try:
                async for items in reader:
                    self._apply_items(items)
                    if not items:
                        self._caught_up.set()
                    await asyncio.sleep(0)  # a replay must not hold the loop for its whole length
            except Exception as error:  # noqa: BLE001 - a replica that follows no more is an outage
                logger.warning("directory_interrupted", error=repr(error))
            finally:
                await reader.close()
            await asyncio.sleep(_RESTART_SECONDS)

    def _apply_items(self, items: Iterable[TableItem]) -> None:
        for key, value in items:
            try:
                if value is None:
                    self.remove_key(bytes(key).decode())
                else:
                    change = RegistryChange.FromString(value)
                    self.apply(change)
                    for callback in self._topic_callbacks:
                        callback(change)
            except Exception as error:  # noqa: BLE001 - one unreadable object must not hide every other
                logger.error(
                    "directory_entry_unreadable", key=bytes(key).decode(errors="replace"), error=repr(error)
                )

    def _heartbeat(self, written_us: int) -> None:
        now = self._clock.monotonic()
        if not self._caught_up.is_set():
            # The replay's heartbeat may be from before a long stop: it counts by its age, and never as new.
            now -= max(0.0, (self._clock.now_us() - written_us) / 1e6)
        if not self._heartbeat_seen or now > self._heartbeat_at:
            self._heartbeat_at = now
        self._heartbeat_seen = True

    def _tenant_for(self, uid: bytes) -> TenantView:
        view = self._tenants.get(uid)
        if view is None:
            view = self._tenants[uid] = TenantView(TenantId(uid), self._partitions)
        return view

    def _apply_tenant(self, change: RegistryChange, tenant: Tenant) -> bool:
        uid = bytes.fromhex(tenant.uid)
        if len(uid) != 16 or self._is_buried(uid, change.revision):
            return False
        view = self._tenant_for(uid)
        if change.revision < view.revision:
            return False
        was_active = view.active
        if not view.id:
            view.id = tenant.name.rpartition("/")[2]
        view.revision = change.revision
        view.deleted = change.deleted or tenant.state == Tenant.DELETING
        view.active = tenant.state == Tenant.ACTIVE and not change.deleted
        if change.deleted:
            self._bury("tenant", uid, uid, tenant.name, change.revision)
        else:
            quotas = tenant.quotas
            view.quotas = Quotas(**{field.name: value for field, value in quotas.ListFields()})
            retention = tenant.retention
            view.retention = Retention(
                retention.raw_duration.ToTimedelta().total_seconds()
                if retention.HasField("raw_duration")
                else None,
                retention.rollup_duration.ToTimedelta().total_seconds()
                if retention.HasField("rollup_duration")
                else None,
            )
        if not view.deleted:
            self._tenant_by_name[view.id] = view
        elif self._tenant_by_name.get(view.id) is view:
            del self._tenant_by_name[view.id]
        if was_active and not view.active:
            self.generation += 1
        return True

    def _apply_device(self, change: RegistryChange, state: DeviceState) -> bool:
        uid = state.device_uid
        if len(uid) != 16 or len(state.tenant_uid) != 16 or self._is_buried(uid, change.revision):
            return False
        if change.deleted:
            table = self._tenant_for(state.tenant_uid).devices
            slot = table.slot_by_uid.get(uid)
            if slot is not None and change.revision < table.revisions[slot]:
                return False
            self._bury("device", state.tenant_uid, uid, state.device.name, change.revision)
            return True
        return self._put_device(
            state.tenant_uid, uid, state.device, tuple(state.ancestor_uids), change.revision
        )

    def _put_device(
        self, tenant: bytes, uid: bytes, device: Device, ancestors: tuple[bytes, ...], revision: int
    ) -> bool:
        if self._is_buried(uid, revision):
            return False
        table = self._tenant_for(tenant).devices
        slot = table.slot_by_uid.get(uid)
        if slot is not None and revision < table.revisions[slot]:
            return False
        created = device.create_time
        device_id = device.name.rpartition("/")[2]
        restricted = table.put(
            device_id,
            uid,
            admitted=device.state in _ADMITTED_STATES,
            revision=revision,
            created_us=created.seconds * 1_000_000 + created.nanos // 1000,
            ancestors=ancestors,
            facts=self._facts.make(device_id, device, ancestors) if self._facts else None,
        )
        if restricted:
            self.generation += 1
        return True

    def _apply_credential(self, change: RegistryChange, state: CredentialState) -> bool:
        uid = state.credential_uid
        if len(uid) != 16 or self._is_buried(uid, change.revision):
            return False
        held = self._credentials.get(uid)
        if held is not None and change.revision < held.revision:
            return False
        if change.deleted:
            self._bury("credential", state.tenant_uid, uid, state.credential.name, change.revision)
            return True
        credential = state.credential
        expires = credential.expire_time.ToMicroseconds() if credential.HasField("expire_time") else None
        self._credentials[uid] = CredentialView(
            Uid(uid),
            TenantId(state.tenant_uid),
            Uid(state.device_uid),
            expires,
            change.revision,
            credential.public_key_pem,
        )
        if held is not None:
            self.generation += 1  # another expiry or key
        return True

    def _is_buried(self, uid: bytes, revision: int) -> bool:
        """Whether the object is known to be deleted by a change not older than `revision`."""
        tombstone = self._tombstones.get(uid)
        return tombstone is not None and revision <= tombstone.revision

    def _bury(self, kind: str, tenant: bytes, uid: bytes, name: str, revision: int) -> None:
        assert kind in ("tenant", "device", "credential")
        self._tombstones[uid] = Tombstone(kind, TenantId(tenant), Uid(uid), name, revision)  # type: ignore[arg-type]
        self._forget(kind, tenant, uid)
        self.generation += 1

    def _forget(self, kind: str, tenant: bytes, uid: bytes) -> None:
        if kind == "device":
            view = self._tenants.get(tenant)
            if view is not None:
                view.devices.remove(uid)
        elif kind == "credential":
            self._credentials.pop(uid, None)
        else:
            view = self._tenants.pop(uid, None)
            if view is not None:
                view.active, view.deleted = False, True
                if self._tenant_by_name.get(view.id) is view:
                    del self._tenant_by_name[view.id]
