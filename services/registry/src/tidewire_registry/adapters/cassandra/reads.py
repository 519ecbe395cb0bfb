"""Reads by key in the Cassandra store: tenants, devices, credentials, tombstones, replays. For the others.

At LOCAL_QUORUM, like the writes, so a read sees every commit that has returned. All are by partition; none is a scan.
"""

# ruff: noqa: S608 - the texts are made of our own names; every value is a bind parameter

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import batched, chain
from typing import Any

from tidewire_kit.cassandra import CassandraSession
from tidewire_kit.ids import TenantId, Uid
from tidewire_registry.adapters.cassandra import rows
from tidewire_registry.domain.changes import Kind, Tombstone
from tidewire_registry.domain.credentials import Credential
from tidewire_registry.domain.devices import Device
from tidewire_registry.domain.tenants import Tenant
from tidewire_registry.ports import Page, Replay

_KEYS_PER_QUERY = 100


class Reads:
    """One per store."""

    def __init__(self, session: CassandraSession) -> None:
        self._session = session

    async def select(self, text: str, parameters: Sequence[Any] = (), page_rows: int = 1_000) -> list[Any]:
        """All rows of a SELECT."""
        return await self._session.execute(await self._session.prepare(text), parameters, page_rows=page_rows)

    async def pages(
        self, text: str, parameters: Sequence[Any] = (), page_rows: int = 1_000
    ) -> AsyncIterator[list[Any]]:
        """The rows of a SELECT, some at a time."""
        prepared = await self._session.prepare(text)
        async for page in self._session.execute_paged(prepared, parameters, page_rows=page_rows):
            yield page

    # Tenants

    async def tenant(self, tenant: TenantId) -> Tenant | None:
        """The tenant of this uid."""
        found = await self.select(
            f"SELECT {rows.TENANT_COLUMNS} FROM registry_tenants WHERE uid = ?", (tenant,)
        )
        return rows.tenant_of(found[0]) if found else None

    async def tenant_by_id(self, tenant_id: str) -> Tenant | None:
        """The tenant that holds this name; one that has only claimed it is none yet."""
        found = await self.select(
            "SELECT uid FROM registry_tenant_names WHERE shard = 0 AND id = ?", (tenant_id,)
        )
        tenant = await self.tenant(TenantId(found[0].uid)) if found else None
        return tenant if tenant is not None and tenant.id == tenant_id else None

    async def tenants(self, after: str, limit: int) -> Page[Tenant]:
        """By id, from the one that follows `after`."""
        text = "SELECT id, uid FROM registry_tenant_names WHERE shard = 0 AND id > ?"
        items: list[Tenant] = []
        async for page in self.pages(text, (after,), min(limit + 1, 100)):
            found = await asyncio.gather(*(self.tenant(TenantId(row.uid)) for row in page))
            items += [tenant for tenant in found if tenant is not None]
            if len(items) > limit:
                break
        return Page(items[:limit], len(items) > limit)

    async def tenant_tombstone(self, tenant: TenantId) -> Tombstone | None:
        """That of a deleted tenant."""
        text = f"SELECT {rows.TENANT_TOMBSTONE_COLUMNS} FROM registry_tenant_tombstones WHERE shard = 0 AND uid = ?"
        found = await self.select(text, (tenant,))
        return rows.tenant_tombstone_of(found[0]) if found else None

    async def purging(self) -> list[TenantId]:
        """Deleted tenants of which something may be left."""
        found = await self.select("SELECT tenant FROM registry_purges WHERE shard = 0")
        return [TenantId(row.tenant) for row in found]

    # Devices

    async def devices(self, tenant: TenantId, ids: Sequence[str]) -> dict[str, Device]:
        """The devices of these ids that exist."""
        buckets: dict[int, list[str]] = {}
        for id_ in ids:
            buckets.setdefault(rows.device_bucket(id_), []).append(id_)
        text = (
            f"SELECT {rows.DEVICE_COLUMNS} FROM registry_devices WHERE tenant = ? AND bucket = ? AND id IN ?"
        )
        found = await self._by_keys(text, tenant, buckets)
        return {device.id: device for device in map(rows.device_of, found)}

    async def descendant_ids(
        self, tenant: TenantId, ancestor: Uid, after: str, page_rows: int = 1_000
    ) -> AsyncIterator[list[str]]:
        """Ids of the devices below one, in order, from the one that follows `after`."""
        text = "SELECT id FROM registry_descendants WHERE tenant = ? AND ancestor = ? AND id > ?"
        async for page in self.pages(text, (tenant, ancestor, after), page_rows):
            yield [row.id for row in page]

    async def descendants(self, tenant: TenantId, ancestor: Uid) -> list[Device]:
        """The devices below one."""
        found: list[Device] = []
        async for ids in self.descendant_ids(tenant, ancestor, ""):
            found += (await self.devices(tenant, ids)).values()
        # Of a commit that is being applied the rows of one table may be there before those of the other.
        return [device for device in found if ancestor in device.ancestors]

    async def count_descendants(self, tenant: TenantId, ancestor: Uid) -> int:
        """How many devices are below one."""
        text = "SELECT count(*) AS n FROM registry_descendants WHERE tenant = ? AND ancestor = ?"
        return int((await self.select(text, (tenant, ancestor)))[0].n)

    # Credentials and tombstones

    async def credentials(
        self, tenant: TenantId, device_uid: Uid, after: bytes, limit: int
    ) -> Page[Credential]:
        """A device's credentials by uid."""
        text = (
            f"SELECT {rows.DEVICE_CREDENTIAL_COLUMNS} FROM registry_device_credentials"
            " WHERE tenant = ? AND device_uid = ? AND uid > ? LIMIT ?"
        )
        found = await self.select(text, (tenant, device_uid, after, limit + 1))
        return Page([rows.device_credential_of(row) for row in found[:limit]], len(found) > limit)

    async def count_credentials(self, tenant: TenantId, device_uid: Uid) -> int:
        """How many credentials a device has."""
        text = "SELECT count(*) AS n FROM registry_device_credentials WHERE tenant = ? AND device_uid = ?"
        return int((await self.select(text, (tenant, device_uid)))[0].n)

    async def credentials_by_uid(self, tenant: TenantId, uids: Iterable[Uid]) -> dict[Uid, Credential]:
        """The credentials of these uids that exist."""
        text = (
            f"SELECT {rows.CREDENTIAL_COLUMNS} FROM registry_credentials"
            " WHERE tenant = ? AND bucket = ? AND uid IN ?"
        )
        found = await self._by_keys(text, tenant, _by_bucket(uids))
        return {credential.uid: credential for credential in map(rows.credential_of, found)}

    async def tombstones(self, tenant: TenantId, uids: Iterable[Uid]) -> dict[Uid, Tombstone]:
        """The tombstones of these devices and credentials that there are."""
        text = (
            f"SELECT {rows.TOMBSTONE_COLUMNS} FROM registry_tombstones"
            " WHERE tenant = ? AND bucket = ? AND uid IN ?"
        )
        found = await self._by_keys(text, tenant, _by_bucket(uids))
        return {tombstone.uid: tombstone for tombstone in map(rows.tombstone_of, found)}

    async def replay(self, tenant: TenantId, request_id: str, forgotten_us: int) -> Replay | None:
        """The memory of a request within a tenant, unless it was made before `forgotten_us`."""
        text = (
            "SELECT fingerprint, object_ids, object_uids, made_us FROM registry_replays"
            " WHERE tenant = ? AND bucket = ? AND request_id = ?"
        )
        bucket = rows.text_bucket(request_id, rows.REPLAY_BUCKETS)
        found = await self.select(text, (tenant, bucket, request_id))
        if not found or found[0].made_us < forgotten_us:
            return None
        return rows.replay_of(request_id, found[0])

    async def present(self, tenant: TenantId, objects: Iterable[tuple[Kind, str, Uid]]) -> dict[Uid, Any]:
        """Present states of objects (kind, id, uid): the object or its tombstone. What is purged, or not yet there, is
        absent."""
        wanted = list(objects)
        ids = [id_ for kind, id_, _ in wanted if kind is Kind.DEVICE]
        uids = {uid for kind, _, uid in wanted if kind is Kind.DEVICE}
        keys = [uid for kind, _, uid in wanted if kind is Kind.CREDENTIAL]
        found: dict[Uid, Any] = {}
        devices, credentials = await asyncio.gather(
            self.devices(tenant, ids), self.credentials_by_uid(tenant, keys)
        )
        found.update((device.uid, device) for device in devices.values() if device.uid in uids)
        found.update(credentials)
        if any(kind is Kind.TENANT for kind, _, _ in wanted):
            state = await self.tenant(tenant) or await self.tenant_tombstone(tenant)
            if state is not None:
                found[Uid(tenant)] = state
        missing = [uid for kind, _, uid in wanted if kind is not Kind.TENANT and uid not in found]
        if missing:
            found.update(await self.tombstones(tenant, missing))
        return found

    async def revisions(self, tenant: TenantId, objects: Iterable[tuple[Kind, str, Uid]]) -> dict[Uid, int]:
        """Revisions of what `present` gives."""
        wanted = list(objects)
        buckets: dict[int, list[str]] = {}
        for kind, id_, _ in wanted:
            if kind is Kind.DEVICE:
                buckets.setdefault(rows.device_bucket(id_), []).append(id_)
        uids = {uid for kind, _, uid in wanted if kind is Kind.DEVICE}
        text = "SELECT uid, revision FROM registry_devices WHERE tenant = ? AND bucket = ? AND id IN ?"
        found = await self._by_keys(text, tenant, buckets)
        revisions = {row.uid: row.revision for row in found if row.uid in uids}
        rest = [one for one in wanted if one[2] not in revisions and one[0] is not Kind.DEVICE]
        others = await self.present(tenant, rest)
        gone = await self.tombstones(tenant, uids - revisions.keys())
        return revisions | {uid: state.revision for uid, state in (others | gone).items()}

    async def _by_keys(self, text: str, tenant: TenantId, buckets: dict[int, list[Any]]) -> Iterable[Any]:
        parts = (
            self.select(text, (tenant, bucket, list(some)))
            for bucket, keys in buckets.items()
            for some in batched(keys, _KEYS_PER_QUERY)
        )
        return chain.from_iterable(await asyncio.gather(*parts))


def _by_bucket(uids: Iterable[Uid]) -> dict[int, list[Any]]:
    buckets: dict[int, list[Any]] = {}
    for uid in uids:
        buckets.setdefault(rows.uid_bucket(uid), []).append(uid)
    return buckets
