"""Decides a WriteSet on top of a settled tenant: checks what must hold, and plans the rows. Called by store.commit.

Nothing is written here. Every commit of the tenant before this one is applied, and this one takes effect only if none
comes between, so what is read here holds at the commit.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass

from tidewire_kit.cassandra.journal import Head
from tidewire_kit.ids import TenantId, Uid
from tidewire_registry.adapters.cassandra import rows
from tidewire_registry.adapters.cassandra.plan import CommitPlan, Mode, Rows
from tidewire_registry.adapters.cassandra.reads import Reads
from tidewire_registry.domain.changes import Kind, Tombstone, ref_of
from tidewire_registry.domain.credentials import Credential
from tidewire_registry.domain.devices import Device
from tidewire_registry.domain.tenants import Tenant
from tidewire_registry.ports import Conflict, DeviceLimit, WriteSet


@dataclass(frozen=True, slots=True)
class TenantState:
    """What a tenant's head carries. A head whose tenant is not alive refuses every commit for ever."""

    alive: bool = False
    devices: int = 0
    credentials: int = 0

    @classmethod
    def of(cls, head: Head) -> "TenantState":
        """The state of a head; that of no tenant when there is none."""
        return cls(*json.loads(head.state)) if head.state else cls()

    def encode(self) -> bytes:
        """As kept in the head."""
        return json.dumps([self.alive, self.devices, self.credentials]).encode()


def check_one_tenant(tenant: TenantId, writes: WriteSet) -> None:
    """Raises ValueError for objects of another tenant."""
    if any(change.tenant != tenant for change in (*writes.puts, *writes.tombstones)):
        raise ValueError("a write set holds objects of one tenant")


def created_tenant(writes: WriteSet) -> Tenant | None:
    """The tenant that the write set creates."""
    return next((put for put in writes.puts if isinstance(put, Tenant) and put.revision == 1), None)


class Decision:
    """One write set on one head; made anew when the head has moved on."""

    def __init__(
        self, reads: Reads, writes: WriteSet, head: Head, plan: CommitPlan, forgotten_us: int
    ) -> None:
        """`forgotten_us`: requests made before are not known any more."""
        self._reads = reads
        self._writes = writes
        self._head = head
        self._plan = plan
        self._tenant = plan.tenant
        self._forgotten_us = forgotten_us
        self._old: dict[str, Device] = {}
        self._old_credentials: dict[Uid, Credential] = {}

    async def decide(self) -> TenantState:
        """Fills the plan; returns the tenant's new state. Raises Conflict or DeviceLimit."""
        writes, before = self._writes, TenantState.of(self._head)
        created = created_tenant(writes)
        if created is not None:
            if self._head.version:
                raise Conflict("the tenant exists or has existed")
        elif not before.alive:
            raise Conflict("the tenant does not exist")
        devices = [put for put in writes.puts if isinstance(put, Device)]
        credentials = [put for put in writes.puts if isinstance(put, Credential)]
        graves = {kind: [t for t in writes.tombstones if t.kind is kind] for kind in Kind}
        ids = {device.id for device in devices} | {guard.device_id for guard in writes.guards}
        ids |= {grave.id for grave in graves[Kind.DEVICE]}
        self._old = await self._reads.devices(self._tenant, sorted(ids)) if created is None else {}
        await asyncio.gather(
            self._check_guards(),
            self._check_replay(created),
            self._check_credentials(credentials, graves[Kind.CREDENTIAL]),
        )
        await self._put_tenants([put for put in writes.puts if isinstance(put, Tenant)], graves[Kind.TENANT])
        self._put_devices(devices)
        self._bury_devices(graves[Kind.DEVICE])
        self._put_credentials(credentials, graves[Kind.CREDENTIAL])
        self._add_tombstones([*graves[Kind.DEVICE], *graves[Kind.CREDENTIAL]])
        new = sum(device.revision == 1 for device in devices)
        after = TenantState(
            not graves[Kind.TENANT],
            before.devices + new - len(graves[Kind.DEVICE]),
            before.credentials + len(credentials) - len(graves[Kind.CREDENTIAL]),
        )
        if writes.device_limit is not None and after.devices > writes.device_limit:
            raise DeviceLimit
        for change in (*writes.puts, *writes.tombstones):
            self._plan.noted.append(_noted(change))
        return after

    # What must hold

    async def _check_guards(self) -> None:
        for guard in self._writes.guards:
            device = self._old.get(guard.device_id)
            if device is None or (device.uid, device.revision) != (guard.uid, guard.revision):
                raise Conflict(f"device {guard.device_id} has changed")
        if self._writes.descendants is not None:
            uid, expected = self._writes.descendants
            if await self._reads.count_descendants(self._tenant, uid) != expected:
                raise Conflict("the descendants have changed")
        if self._writes.credentials_below is not None:
            uid, expected = self._writes.credentials_below
            if await self._reads.count_credentials(self._tenant, uid) != expected:
                raise Conflict("the credentials have changed")

    async def _check_replay(self, created: Tenant | None) -> None:
        replay = self._writes.replay
        if replay is None or created is not None:  # of CreateTenant `claims` keeps the memory
            return
        if await self._reads.replay(self._tenant, replay.request_id, self._forgotten_us) is not None:
            raise Conflict("the request is known")
        self._add(
            "registry_replays", rows.REPLAY_COLUMNS, [rows.replay_row(self._tenant, replay)], Mode.REPLACE
        )

    async def _check_credentials(self, made: Sequence[Credential], buried: Sequence[Tombstone]) -> None:
        if not made and not buried:
            return
        uids = [put.uid for put in made] + [grave.uid for grave in buried]
        old = self._old_credentials = await self._reads.credentials_by_uid(self._tenant, uids)
        for put in made:
            if put.uid in old:
                raise Conflict(f"credential {put.id} exists")
        for grave in buried:
            held = old.get(grave.uid)
            if held is None or held.revision != grave.revision - 1:
                raise Conflict(f"a credential of {grave.id} has changed")

    # What is written

    async def _put_tenants(self, puts: Sequence[Tenant], graves: Sequence[Tombstone]) -> None:
        if any(put.revision > 1 for put in puts) or graves:
            old = await self._reads.tenant(self._tenant)
            for revision in [put.revision for put in puts] + [grave.revision for grave in graves]:
                if old is None or old.revision != revision - 1:
                    raise Conflict("the tenant has changed")
        made = [rows.tenant_row(put) for put in puts]
        self._add("registry_tenants", rows.TENANT_COLUMNS, made, Mode.REPLACE)
        for grave in graves:
            self._add("registry_tenants", "uid", [(self._tenant,)], Mode.DELETE)
            row = (0, grave.uid, grave.id, grave.revision, grave.deleted_us)
            self._add("registry_tenant_tombstones", rows.TENANT_TOMBSTONE_COLUMNS, [row], Mode.INSERT)
            self._add("registry_purges", "shard, tenant", [(0, self._tenant)], Mode.INSERT)
            self._plan.freed_name = grave.id

    def _put_devices(self, devices: Sequence[Device]) -> None:
        new, changed, placed, left = [], [], [], []
        seen: set[str] = set()
        for device in devices:
            old = self._old.get(device.id)
            if device.id in seen:
                raise Conflict(f"device {device.id} occurs twice")
            seen.add(device.id)
            if device.revision == 1:
                if old is not None:
                    raise Conflict(f"device {device.id} exists")
                new.append(rows.device_row(device))
                placed += [(self._tenant, up, device.id) for up in device.ancestors]
                continue
            if old is None or (old.uid, old.revision) != (device.uid, device.revision - 1):
                raise Conflict(f"device {device.id} has changed")
            changed.append(rows.device_row(device))
            if old.ancestors != device.ancestors:
                before, after = set(old.ancestors), set(device.ancestors)
                left += [(self._tenant, up, device.id) for up in before - after]
                placed += [(self._tenant, up, device.id) for up in after - before]
        self._add("registry_devices", rows.DEVICE_COLUMNS, new, Mode.INSERT)
        self._add("registry_devices", rows.DEVICE_COLUMNS, changed, Mode.REPLACE)
        self._add("registry_descendants", "tenant, ancestor, id", placed, Mode.INSERT)
        self._add("registry_descendants", "tenant, ancestor, id", left, Mode.DELETE)

    def _bury_devices(self, graves: Sequence[Tombstone]) -> None:
        put = {change.id for change in self._writes.puts if isinstance(change, Device)}
        for grave in graves:
            old = self._old.get(grave.id)
            if old is None or (old.uid, old.revision) != (grave.uid, grave.revision - 1) or grave.id in put:
                raise Conflict(f"device {grave.id} has changed")
        keys = [(self._tenant, rows.device_bucket(grave.id), grave.id) for grave in graves]
        self._add("registry_devices", "tenant, bucket, id", keys, Mode.DELETE)
        ups = [(self._tenant, up, grave.id) for grave in graves for up in self._old[grave.id].ancestors]
        self._add("registry_descendants", "tenant, ancestor, id", ups, Mode.DELETE)

    def _put_credentials(self, made: Sequence[Credential], buried: Sequence[Tombstone]) -> None:
        by_uid = [rows.credential_row(put) for put in made]
        self._add("registry_credentials", rows.CREDENTIAL_COLUMNS, by_uid, Mode.INSERT)
        by_device = [rows.device_credential_row(put) for put in made]
        self._add("registry_device_credentials", rows.DEVICE_CREDENTIAL_COLUMNS, by_device, Mode.INSERT)
        gone = [(self._tenant, rows.uid_bucket(grave.uid), grave.uid) for grave in buried]
        self._add("registry_credentials", "tenant, bucket, uid", gone, Mode.DELETE)
        gone_below = [
            (self._tenant, self._old_credentials[grave.uid].device_uid, grave.uid) for grave in buried
        ]
        self._add("registry_device_credentials", "tenant, device_uid, uid", gone_below, Mode.DELETE)

    def _add_tombstones(self, graves: Sequence[Tombstone]) -> None:
        made = [rows.tombstone_row(grave) for grave in graves]
        self._add("registry_tombstones", rows.TOMBSTONE_COLUMNS, made, Mode.INSERT)

    def _add(self, table: str, columns: str, made: Sequence[rows.Row], mode: Mode) -> None:
        if made:
            self._plan.rows.append(Rows(table, rows.names(columns), made, mode))


def _noted(change: Tenant | Device | Credential | Tombstone) -> tuple[Kind, str, Uid, int]:
    ref = ref_of(change)
    id_ = change.device_id if isinstance(change, Credential) else change.id
    return ref.kind, id_, ref.uid, change.revision
