"""EmbeddedStore: the RegistryStore of the embedded backend. Made by main and by bootstrap's tests."""

# ruff: noqa: S608 - the texts are made of our own names; every value is a bind parameter

import sqlite3
from collections.abc import Callable, Sequence
from itertools import batched
from pathlib import Path
from typing import Any

from tidewire_kit.filter.conditions import Condition
from tidewire_kit.ids import TenantId, Uid
from tidewire_registry.adapters.embedded import publishing, queries, writes
from tidewire_registry.adapters.embedded.database import Database
from tidewire_registry.adapters.embedded.rows import (
    CREDENTIAL_COLUMNS,
    DEVICE_COLUMNS,
    TENANT_COLUMNS,
    credential_of,
    device_of,
    tenant_of,
    uids_of,
)
from tidewire_registry.domain.changes import Change, ObjectRef
from tidewire_registry.domain.credentials import Credential
from tidewire_registry.domain.devices import Device
from tidewire_registry.domain.tenants import Tenant
from tidewire_registry.ports import Page, Replay, WriteSet

_IDS_PER_QUERY = 500


class EmbeddedStore:
    """See `ports.RegistryStore` for what the methods promise. One process at a time; `start` refuses a second."""

    def __init__(self, directory: Path) -> None:
        self._database = Database(directory)
        self._read = self._database.read
        self._write = self._database.write
        self._deleted = True
        """Whether pages with what was deleted may lie in SQLite's log; a process before this one may have died."""

    async def start(self) -> None:
        """Opens the store. FailedPrecondition when it is newer than this program, or in use."""
        await self._database.start()

    async def close(self) -> None:
        """Finishes what was begun. Idempotent."""
        await self._database.close()

    async def commit(self, tenant: TenantId, writes_: WriteSet) -> None:
        """Commits shares their fsync with those that wait at the same time."""
        await self._write(lambda connection: writes.apply(connection, tenant, writes_))
        self._deleted |= bool(writes_.tombstones)

    # Tenants

    async def tenant(self, tenant: TenantId) -> Tenant | None:
        """By the primary key."""
        return await self._one(f"SELECT {TENANT_COLUMNS} FROM tenants WHERE uid = ?", (tenant,), tenant_of)

    async def tenant_by_id(self, tenant_id: str) -> Tenant | None:
        """By a unique index."""
        return await self._one(f"SELECT {TENANT_COLUMNS} FROM tenants WHERE id = ?", (tenant_id,), tenant_of)

    async def tenants(self, after: str, limit: int) -> Page[Tenant]:
        """In the order of the unique index."""
        statement = f"SELECT {TENANT_COLUMNS} FROM tenants WHERE id > ? ORDER BY id LIMIT ?"
        return await self._page(statement, (after,), limit, tenant_of)

    async def counts(self, tenant: TenantId) -> tuple[int, int]:
        """Kept with the tenant, in the transactions that change them."""
        statement = "SELECT devices, credentials FROM tenants WHERE uid = ?"
        return await self._one(statement, (tenant,), lambda row: (row[0], row[1])) or (0, 0)

    # Devices

    async def devices(self, tenant: TenantId, ids: Sequence[str]) -> dict[str, Device]:
        """Some hundred ids a query."""

        def work(connection: sqlite3.Connection) -> dict[str, Device]:
            found: dict[str, Device] = {}
            for some in batched(ids, _IDS_PER_QUERY):
                marks = ", ".join("?" * len(some))
                statement = f"SELECT {DEVICE_COLUMNS} FROM devices WHERE tenant = ? AND id IN ({marks})"
                for row in connection.execute(statement, (tenant, *some)):
                    device = device_of(row)
                    found[device.id] = device
            return found

        return await self._read(work)

    async def list_devices(
        self, tenant: TenantId, condition: Condition | None, after: str, limit: int
    ) -> Page[Device]:
        """By the plan that `queries` finds."""

        def work(connection: sqlite3.Connection) -> Page[Device]:
            query = queries.page_query(connection, tenant, condition, after, limit + 1)
            rows = connection.execute(query.text, query.parameters).fetchall()
            return Page([device_of(row) for row in rows[:limit]], len(rows) > limit)

        return await self._read(work)

    async def count_devices(self, tenant: TenantId, condition: Condition | None) -> int:
        """Without a condition from the tenant's row."""
        if condition is None:
            return (await self.counts(tenant))[0]

        def work(connection: sqlite3.Connection) -> int:
            query = queries.count_query(connection, tenant, condition)
            return int(connection.execute(query.text, query.parameters).fetchone()[0])

        return await self._read(work)

    async def descendants(self, tenant: TenantId, device_uid: Uid) -> list[Device]:
        """From the closure table."""
        statement = f"""SELECT {DEVICE_COLUMNS} FROM devices
            WHERE tenant = ? AND id IN (SELECT id FROM ancestry WHERE tenant = ? AND ancestor = ?)"""
        return await self._all(statement, (tenant, tenant, device_uid), device_of)

    # Credentials

    async def credentials(
        self, tenant: TenantId, device_uid: Uid, after: str = "", limit: int = 1_000
    ) -> Page[Credential]:
        """In the order of the primary key, which is that of the hexadecimal ids."""
        statement = f"""SELECT {CREDENTIAL_COLUMNS} FROM credentials
            WHERE tenant = ? AND device_uid = ? AND uid > ? ORDER BY uid LIMIT ?"""
        parameters = (tenant, device_uid, bytes.fromhex(after))
        return await self._page(statement, parameters, limit, credential_of)

    async def credential(self, tenant: TenantId, uid: Uid) -> Credential | None:
        """By a unique index."""
        statement = f"SELECT {CREDENTIAL_COLUMNS} FROM credentials WHERE tenant = ? AND uid = ?"
        return await self._one(statement, (tenant, uid), credential_of)

    # Requests

    async def replay(self, tenant: TenantId, request_id: str) -> Replay | None:
        """By the primary key."""
        statement = """SELECT request_id, fingerprint, object_ids, object_uids, made_us FROM replays
            WHERE tenant = ? AND request_id = ?"""
        return await self._one(statement, (tenant, request_id), _replay_of)

    async def forget_replays(self, before_us: int) -> None:
        """By an index over the time."""
        await self._write(lambda c: _run(c, "DELETE FROM replays WHERE made_us < ?", (before_us,)))

    # Publishing and purge

    async def unpublished(self, limit: int) -> list[Change]:
        """From the table of that name."""
        return await self._read(lambda connection: publishing.unpublished(connection, limit))

    async def mark_published(self, changes: Sequence[Change]) -> None:
        """Removes from that table."""
        await self._write(lambda connection: publishing.mark_published(connection, changes))

    async def unpublish(self, refs: Sequence[tuple[ObjectRef, str]]) -> None:
        """Adds to that table."""
        await self._write(lambda connection: publishing.unpublish(connection, refs))

    async def unpublish_all(self) -> None:
        """Fills that table."""
        await self._write(publishing.unpublish_all)

    async def published_topic(self) -> bytes:
        """From `meta`."""
        statement = "SELECT value FROM meta WHERE key = 'topic'"
        return await self._one(statement, (), lambda row: bytes(row[0])) or b""

    async def set_published_topic(self, incarnation: bytes) -> None:
        """To `meta`."""
        statement = "INSERT OR REPLACE INTO meta (key, value) VALUES ('topic', ?)"
        await self._write(lambda connection: _run(connection, statement, (incarnation,)))

    async def deleted_tenants(self) -> list[TenantId]:
        """From `purges`."""
        return await self._all("SELECT tenant FROM purges", (), lambda row: TenantId(row[0]))

    async def purge_candidates(self, tenant: TenantId, limit: int) -> list[ObjectRef]:
        """Devices first, then credentials, then tombstones."""
        return await self._read(lambda connection: publishing.purge_candidates(connection, tenant, limit))

    async def purge(self, tenant: TenantId, refs: Sequence[ObjectRef]) -> None:
        """Only of tenants in `purges`."""
        await self._write(lambda connection: publishing.purge(connection, tenant, refs))
        self._deleted |= bool(refs)

    async def erase_deleted(self) -> None:
        """In the database it is overwritten already; old pages in SQLite's log are what is left."""
        if self._deleted:
            self._deleted = False
            self._deleted |= not await self._database.empty_log()

    # Inside

    async def _one[T](
        self, statement: str, parameters: Sequence[object], make: Callable[[tuple[Any, ...]], T]
    ) -> T | None:
        def work(connection: sqlite3.Connection) -> T | None:
            row = connection.execute(statement, parameters).fetchone()
            return make(row) if row is not None else None

        return await self._read(work)

    async def _all[T](
        self, statement: str, parameters: Sequence[object], make: Callable[[tuple[Any, ...]], T]
    ) -> list[T]:
        def work(connection: sqlite3.Connection) -> list[T]:
            return [make(row) for row in connection.execute(statement, parameters)]

        return await self._read(work)

    async def _page[T](
        self, statement: str, parameters: Sequence[object], limit: int, make: Callable[[tuple[Any, ...]], T]
    ) -> Page[T]:
        items = await self._all(statement, (*parameters, limit + 1), make)
        return Page(items[:limit], len(items) > limit)


def _replay_of(row: tuple[Any, ...]) -> Replay:
    request_id, fingerprint, ids, uids, made_us = row
    return Replay(request_id, fingerprint, ids.split("\n") if ids else [], list(uids_of(uids)), made_us)


def _run(connection: sqlite3.Connection, statement: str, parameters: Sequence[object]) -> None:
    connection.execute(statement, parameters)
