"""Removing for ever what is left of deleted tenants. Called by store.CassandraStore.

A tenant's devices, credentials and tombstones lie in a known number of partitions, which are deleted whole at the end:
deleting row by row would leave a mark for each, over which every later step would have to read. Until then how far the
purge has come is known to this process only; another one, or this one after a restart, begins again. What lies in
partitions of a device's own goes with the step that names the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tidewire_kit.cassandra import CassandraSession
from tidewire_kit.cassandra.journal import Journal
from tidewire_kit.ids import TenantId, Uid
from tidewire_registry.adapters.cassandra import rows
from tidewire_registry.adapters.cassandra.plan import Mode, Rows, together, write_rows
from tidewire_registry.adapters.cassandra.reads import Reads
from tidewire_registry.domain.changes import Kind, ObjectRef

_STAGES = (
    (Kind.DEVICE, "registry_devices", "id", rows.DEVICE_BUCKETS),
    (Kind.CREDENTIAL, "registry_credentials", "uid", rows.CREDENTIAL_BUCKETS),
    (None, "registry_tombstones", "uid", rows.CREDENTIAL_BUCKETS),
)
_WHOLE = (*((table, buckets) for _, table, _, buckets in _STAGES), ("registry_replays", rows.REPLAY_BUCKETS))


@dataclass(frozen=True, slots=True)
class _Place:
    """How far a purge has come: what follows `after` in this partition is left."""

    stage: int = 0
    bucket: int = 0
    after: str | bytes | None = None


class Purging:
    """One per store."""

    def __init__(self, session: CassandraSession, reads: Reads, journal: Journal) -> None:
        self._session = session
        self._reads = reads
        self._journal = journal
        self._places: dict[TenantId, _Place] = {}
        self._handed: dict[TenantId, tuple[_Place, frozenset[ObjectRef]]] = {}

    async def candidates(self, tenant: TenantId, limit: int) -> list[ObjectRef]:
        """Some of what is left of a deleted tenant; nothing of one that was not deleted."""
        if not await self._purging(tenant):
            return []
        place = self._places.get(tenant, _Place())
        refs: list[ObjectRef] = []
        while place.stage < len(_STAGES) and len(refs) < limit:
            kind, _, key, buckets = _STAGES[place.stage]
            some = await self._some(tenant, place, limit - len(refs))
            refs += [ObjectRef(kind or Kind(row.kind), tenant, Uid(row.uid)) for row in some]
            if len(refs) >= limit:
                place = _Place(place.stage, place.bucket, getattr(some[-1], key))
            elif place.bucket + 1 < buckets:
                place = _Place(place.stage, place.bucket + 1)
            else:
                place = _Place(place.stage + 1)
        self._handed[tenant] = place, frozenset(refs)
        return refs

    async def purge(self, tenant: TenantId, refs: Sequence[ObjectRef]) -> None:
        """Removes these; with none, everything, and the note that there is something to purge."""
        if not await self._purging(tenant):
            return
        # No commit follows a tenant's deletion, so this is later than all that was ever written of it.
        timestamp = (await self._journal.settle(tenant)).version + 1
        if not refs:
            await self._finish(tenant, timestamp)
            return
        devices = [ref.uid for ref in refs if ref.kind is Kind.DEVICE]
        for table, column in (
            ("registry_descendants", "ancestor"),
            ("registry_device_credentials", "device_uid"),
        ):
            keys = [(tenant, uid) for uid in devices]
            await write_rows(self._session, Rows(table, ("tenant", column), keys, Mode.DELETE), timestamp)
        place, handed = self._handed.get(tenant, (None, frozenset[ObjectRef]()))
        if place is not None and handed <= set(refs):
            self._places[tenant] = place
            del self._handed[tenant]

    async def _purging(self, tenant: TenantId) -> bool:
        return bool(
            await self._reads.select(
                "SELECT tenant FROM registry_purges WHERE shard = 0 AND tenant = ?", (tenant,)
            )
        )

    async def _some(self, tenant: TenantId, place: _Place, limit: int) -> list[Any]:
        kind, table, key, _ = _STAGES[place.stage]
        columns = dict.fromkeys((key, "uid") if kind is not None else ("uid", "kind"))
        text = f"SELECT {', '.join(columns)} FROM {table} WHERE tenant = ? AND bucket = ?"  # noqa: S608
        after: tuple[str | bytes, ...] = ()
        if place.after is not None:
            text += f" AND {key} > ?"
            after = (place.after,)
        return await self._reads.select(f"{text} LIMIT ?", (tenant, place.bucket, *after, limit))

    async def _finish(self, tenant: TenantId, timestamp: int) -> None:
        keys = [(table, bucket) for table, buckets in _WHOLE for bucket in range(buckets)]
        await together(
            write_rows(
                self._session,
                Rows(table, ("tenant", "bucket"), [(tenant, bucket)], Mode.DELETE),
                timestamp,
            )
            for table, bucket in keys
        )
        done = Rows("registry_purges", ("shard", "tenant"), [(0, tenant)], Mode.DELETE)
        await write_rows(self._session, done, timestamp)
        await self._journal.forget(tenant)
        self._places.pop(tenant, None)
        self._handed.pop(tenant, None)
