"""What is unpublished, and what is left of deleted tenants, in the embedded store. Called by store.EmbeddedStore."""

# ruff: noqa: S608 - the texts are made of our own names; every value is a bind parameter

import sqlite3
from collections.abc import Sequence
from itertools import batched
from typing import Any

from tidewire_kit.ids import TenantId, Uid
from tidewire_registry.adapters.embedded.rows import (
    CREDENTIAL_COLUMNS,
    DEVICE_COLUMNS,
    TENANT_COLUMNS,
    TOMBSTONE_COLUMNS,
    credential_of,
    device_of,
    tenant_of,
    tombstone_of,
)
from tidewire_registry.adapters.embedded.writes import remove_device
from tidewire_registry.domain.changes import Change, Kind, ObjectRef

_UIDS_PER_STATEMENT = 256
_SOURCES: dict[Kind, tuple[str, str, Any]] = {
    Kind.TENANT: (TENANT_COLUMNS, "tenants WHERE uid = :uid", tenant_of),
    Kind.DEVICE: (DEVICE_COLUMNS, "devices WHERE tenant = :tenant AND id = :id AND uid = :uid", device_of),
    Kind.CREDENTIAL: (CREDENTIAL_COLUMNS, "credentials WHERE tenant = :tenant AND uid = :uid", credential_of),
}


def unpublished(connection: sqlite3.Connection, limit: int) -> list[Change]:
    """Present states of objects that are noted as unpublished; tenants first, so that replicas know them.

    Of a deleted tenant only its tombstone: the rest is being removed from the topic.
    """
    statement = """SELECT tenant, uid, kind, id FROM unpublished
        WHERE kind = 'tenant' OR tenant NOT IN (SELECT tenant FROM purges)
        ORDER BY CASE kind WHEN 'tenant' THEN 0 ELSE 1 END LIMIT ?"""
    found: list[Change] = []
    for tenant, uid, kind, id_ in connection.execute(statement, (limit,)).fetchall():
        state = _present(connection, tenant, uid, Kind(kind), id_)
        if state is not None:
            found.append(state)
    return found


def mark_published(connection: sqlite3.Connection, changes: Sequence[Change]) -> None:
    """Clears the notes of these revisions."""
    groups: dict[tuple[TenantId, int], list[bytes]] = {}
    for change in changes:
        groups.setdefault((change.tenant, change.revision), []).append(change.uid)
    for (tenant, revision), uids in groups.items():
        for some in batched(uids, _UIDS_PER_STATEMENT):
            marks = ", ".join("?" * len(some))
            statement = f"DELETE FROM unpublished WHERE tenant = ? AND revision = ? AND uid IN ({marks})"
            connection.execute(statement, (tenant, revision, *some))


def unpublish(connection: sqlite3.Connection, refs: Sequence[tuple[ObjectRef, str]]) -> None:
    """Notes the present revisions of these objects, or of their tombstones."""
    for ref, id_ in refs:
        state = _present(connection, ref.tenant, ref.uid, ref.kind, id_)
        if state is not None:
            target = "INSERT OR REPLACE INTO unpublished (tenant, uid, kind, id, revision)"
            row = (ref.tenant, ref.uid, ref.kind, id_, state.revision)
            connection.execute(f"{target} VALUES (?, ?, ?, ?, ?)", row)


def _present(
    connection: sqlite3.Connection, tenant: bytes, uid: bytes, kind: Kind, id_: str
) -> Change | None:
    parameters = {"tenant": tenant, "uid": uid, "id": id_}
    columns, source, make = _SOURCES[kind]
    row = connection.execute(f"SELECT {columns} FROM {source}", parameters).fetchone()
    if row is not None:
        found: Change = make(row)
        return found
    statement = f"SELECT {TOMBSTONE_COLUMNS} FROM tombstones WHERE tenant = :tenant AND uid = :uid"
    row = connection.execute(statement, parameters).fetchone()
    return tombstone_of(row) if row is not None else None


def unpublish_all(connection: sqlite3.Connection) -> None:
    """Notes every object and tombstone."""
    target = "INSERT OR REPLACE INTO unpublished (tenant, uid, kind, id, revision)"
    connection.execute(f"{target} SELECT uid, uid, 'tenant', id, revision FROM tenants")
    connection.execute(
        f"{target} SELECT tenant, uid, 'device', id, revision FROM devices"
        " WHERE tenant NOT IN (SELECT tenant FROM purges)"
    )
    connection.execute(
        f"{target} SELECT tenant, uid, 'credential', device_id, revision FROM credentials"
        " WHERE tenant NOT IN (SELECT tenant FROM purges)"
    )
    connection.execute(f"{target} SELECT tenant, uid, kind, id, revision FROM tombstones")


def purge_candidates(connection: sqlite3.Connection, tenant: TenantId, limit: int) -> list[ObjectRef]:
    """What is left of a tenant that was deleted; nothing of one that was not."""
    if connection.execute("SELECT 1 FROM purges WHERE tenant = ?", (tenant,)).fetchone() is None:
        return []
    refs: list[ObjectRef] = []
    for kind, source in (
        ("'device'", "devices WHERE tenant = ?"),
        ("'credential'", "credentials WHERE tenant = ?"),
        ("kind", "tombstones WHERE tenant = ? AND kind != 'tenant'"),
    ):
        statement = f"SELECT {kind}, uid FROM {source} LIMIT ?"
        rows = connection.execute(statement, (tenant, limit - len(refs))).fetchall()
        refs += [ObjectRef(Kind(name), tenant, Uid(uid)) for name, uid in rows]
        if len(refs) >= limit:
            break
    return refs


def purge(connection: sqlite3.Connection, tenant: TenantId, refs: Sequence[ObjectRef]) -> None:
    """Removes the rows of `refs`; with none, the last traces and the note that there is something to purge."""
    if connection.execute("SELECT 1 FROM purges WHERE tenant = ?", (tenant,)).fetchone() is None:
        return
    if not refs:
        for table in ("labels", "ancestry", "replays", "purges"):
            connection.execute(f"DELETE FROM {table} WHERE tenant = ?", (tenant,))
        return
    uids = {ref.uid for ref in refs if ref.kind is Kind.DEVICE}
    if uids:
        # No index leads from a uid to its device; candidates come in the order of this scan, so it ends early.
        found = []
        for device_id, uid in connection.execute("SELECT id, uid FROM devices WHERE tenant = ?", (tenant,)):
            if uid in uids:
                found.append((device_id, uid))
                if len(found) == len(uids):
                    break
        for device_id, uid in found:
            remove_device(connection, tenant, device_id, uid, None)
    pairs = [(tenant, ref.uid) for ref in refs]
    connection.executemany("DELETE FROM credentials WHERE tenant = ? AND uid = ?", pairs)
    connection.executemany("DELETE FROM tombstones WHERE tenant = ? AND uid = ?", pairs)
    connection.executemany("DELETE FROM unpublished WHERE tenant = ? AND uid = ?", pairs)
