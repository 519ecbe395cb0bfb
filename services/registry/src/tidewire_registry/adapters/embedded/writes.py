"""Applies a WriteSet inside a transaction of the writing thread. Called by store.EmbeddedStore.commit.

Everything is checked by the statement that writes it: an insert that breaks a unique key, an update that finds no row
of the expected revision. Either raises Conflict, and the caller's savepoint undoes what was written before.
"""

# ruff: noqa: S608 - the texts are made of our own names; every value is a bind parameter

import json
import sqlite3
from collections.abc import Sequence
from functools import cache
from itertools import batched, chain

from tidewire_kit.ids import TenantId
from tidewire_registry.adapters.embedded.rows import (
    CREDENTIAL_COLUMNS,
    DEVICE_COLUMNS,
    TENANT_COLUMNS,
    TOMBSTONE_COLUMNS,
    Row,
    credential_row,
    device_row,
    labels_text,
    tenant_row,
    tombstone_row,
    uids_of,
)
from tidewire_registry.domain.changes import Kind, Tombstone
from tidewire_registry.domain.credentials import Credential
from tidewire_registry.domain.devices import Device
from tidewire_registry.domain.tenants import Tenant
from tidewire_registry.ports import Conflict, DeviceLimit, Replay, WriteSet

NO_TENANT = bytes(16)
"""Stands for the tenant in the memory of CreateTenant requests."""

_NOTE = "INSERT OR REPLACE INTO unpublished (tenant, uid, kind, id, revision) VALUES (?, ?, ?, ?, ?)"
_ROWS_PER_STATEMENT = 64
"""SQLite runs a statement without Python's lock, but takes it again after each: with one statement per row, this thread
and a busy event loop would wait for each other all the time."""


def apply(connection: sqlite3.Connection, tenant: TenantId, writes: WriteSet) -> None:
    """Applies all of `writes`, or raises Conflict or DeviceLimit."""
    try:
        _apply(connection, tenant, writes)
    except sqlite3.IntegrityError as error:
        raise Conflict(str(error)) from error


def _apply(connection: sqlite3.Connection, tenant: TenantId, writes: WriteSet) -> None:
    if any(change.tenant != tenant for change in (*writes.puts, *writes.tombstones)):
        raise ValueError("a write set holds objects of one tenant")
    tenants = [put for put in writes.puts if isinstance(put, Tenant)]
    creates = any(put.revision == 1 for put in tenants)
    row = connection.execute("SELECT devices FROM tenants WHERE uid = ?", (tenant,)).fetchone()
    if (row is None) != creates:
        raise Conflict("the tenant does not exist" if row is None else "the tenant exists")
    _check_guards(connection, tenant, writes)
    for put in tenants:
        _put_tenant(connection, put)
    devices = [put for put in writes.puts if isinstance(put, Device)]
    _insert_devices(connection, tenant, [device for device in devices if device.revision == 1])
    for device in devices:
        if device.revision > 1:
            _update_device(connection, tenant, device)
    _insert_credentials(connection, tenant, [put for put in writes.puts if isinstance(put, Credential)])
    for tombstone in writes.tombstones:
        _bury(connection, tenant, tombstone)
    if writes.device_limit is not None:
        (count,) = connection.execute("SELECT devices FROM tenants WHERE uid = ?", (tenant,)).fetchone()
        if count > writes.device_limit:
            raise DeviceLimit
    if writes.replay is not None:
        _remember(connection, NO_TENANT if creates else tenant, writes.replay)


def _check_guards(connection: sqlite3.Connection, tenant: TenantId, writes: WriteSet) -> None:
    for guard in writes.guards:
        row = connection.execute(
            "SELECT uid, revision FROM devices WHERE tenant = ? AND id = ?", (tenant, guard.device_id)
        ).fetchone()
        if row != (guard.uid, guard.revision):
            raise Conflict(f"device {guard.device_id} has changed")
    if writes.descendants is not None:
        uid, expected = writes.descendants
        statement = "SELECT count(*) FROM ancestry WHERE tenant = ? AND ancestor = ?"
        if connection.execute(statement, (tenant, uid)).fetchone() != (expected,):
            raise Conflict("the descendants have changed")
    if writes.credentials_below is not None:
        uid, expected = writes.credentials_below
        statement = "SELECT count(*) FROM credentials WHERE tenant = ? AND device_uid = ?"
        if connection.execute(statement, (tenant, uid)).fetchone() != (expected,):
            raise Conflict("the credentials have changed")


def _put_tenant(connection: sqlite3.Connection, tenant: Tenant) -> None:
    row = tenant_row(tenant)
    if tenant.revision == 1:
        connection.execute(
            f"INSERT INTO tenants ({TENANT_COLUMNS}) VALUES ({', '.join('?' * len(row))})", row
        )
    else:
        assignments = ", ".join(f"{column.strip()} = ?" for column in TENANT_COLUMNS.split(","))
        statement = f"UPDATE tenants SET {assignments} WHERE uid = ? AND revision = ?"
        cursor = connection.execute(statement, (*row, tenant.uid, tenant.revision - 1))
        _expect_one(cursor, tenant.id)
    connection.execute(_NOTE, (tenant.uid, tenant.uid, Kind.TENANT, tenant.id, tenant.revision))


def _insert_devices(connection: sqlite3.Connection, tenant: TenantId, devices: Sequence[Device]) -> None:
    if not devices:
        return
    _insert(connection, f"devices ({DEVICE_COLUMNS})", [device_row(device) for device in devices])
    labels = [(tenant, key, value, d.id) for d in devices if d.labels for key, value in d.labels.items()]
    # In the order of the index, pages are written once.
    _insert(connection, "labels (tenant, key, value, id)", sorted(labels))
    ancestry = [(tenant, up, d.id) for d in devices for up in d.ancestors]
    _insert(connection, "ancestry (tenant, ancestor, id)", ancestry)
    notes = [(tenant, d.uid, "device", d.id, 1) for d in devices]
    _insert(connection, "unpublished (tenant, uid, kind, id, revision)", notes)
    connection.execute("UPDATE tenants SET devices = devices + ? WHERE uid = ?", (len(devices), tenant))


def _update_device(connection: sqlite3.Connection, tenant: TenantId, device: Device) -> None:
    statement = (
        "SELECT labels, ancestors FROM devices WHERE tenant = ? AND id = ? AND uid = ? AND revision = ?"
    )
    old = connection.execute(statement, (tenant, device.id, device.uid, device.revision - 1)).fetchone()
    if old is None:
        raise Conflict(f"device {device.id} has changed")
    assignments = ", ".join(f"{column.strip()} = ?" for column in DEVICE_COLUMNS.split(","))
    statement = f"UPDATE devices SET {assignments} WHERE tenant = ? AND id = ?"
    connection.execute(statement, (*device_row(device), tenant, device.id))
    if old[0] != labels_text(device.labels):
        _drop_labels(connection, tenant, device.id, old[0])
        rows = [(tenant, key, value, device.id) for key, value in device.labels.items()]
        _insert(connection, "labels (tenant, key, value, id)", rows)
    if old[1] != b"".join(device.ancestors):
        _drop_ancestry(connection, tenant, device.id, old[1])
        ancestry = [(tenant, up, device.id) for up in device.ancestors]
        _insert(connection, "ancestry (tenant, ancestor, id)", ancestry)
    connection.execute(_NOTE, (tenant, device.uid, Kind.DEVICE, device.id, device.revision))


def _insert_credentials(
    connection: sqlite3.Connection, tenant: TenantId, credentials: Sequence[Credential]
) -> None:
    for credential in credentials:
        row = credential_row(credential)
        statement = f"INSERT INTO credentials ({CREDENTIAL_COLUMNS}) VALUES ({', '.join('?' * len(row))})"
        connection.execute(statement, row)
        note = (tenant, credential.uid, Kind.CREDENTIAL, credential.device_id, credential.revision)
        connection.execute(_NOTE, note)
    if credentials:
        statement = "UPDATE tenants SET credentials = credentials + ? WHERE uid = ?"
        connection.execute(statement, (len(credentials), tenant))


def _bury(connection: sqlite3.Connection, tenant: TenantId, tombstone: Tombstone) -> None:
    expected = tombstone.revision - 1
    if tombstone.kind is Kind.TENANT:
        cursor = connection.execute("DELETE FROM tenants WHERE uid = ? AND revision = ?", (tenant, expected))
        _expect_one(cursor, tombstone.id)
        connection.execute("INSERT INTO purges (tenant) VALUES (?)", (tenant,))
    elif tombstone.kind is Kind.DEVICE:
        remove_device(connection, tenant, tombstone.id, tombstone.uid, expected)
        connection.execute("UPDATE tenants SET devices = devices - 1 WHERE uid = ?", (tenant,))
    else:
        statement = "DELETE FROM credentials WHERE tenant = ? AND uid = ? AND revision = ?"
        _expect_one(connection.execute(statement, (tenant, tombstone.uid, expected)), tombstone.id)
        connection.execute("UPDATE tenants SET credentials = credentials - 1 WHERE uid = ?", (tenant,))
    row = tombstone_row(tombstone)
    connection.execute(
        f"INSERT INTO tombstones ({TOMBSTONE_COLUMNS}) VALUES ({', '.join('?' * len(row))})", row
    )
    connection.execute(_NOTE, (tenant, tombstone.uid, tombstone.kind, tombstone.id, tombstone.revision))


def remove_device(
    connection: sqlite3.Connection, tenant: TenantId, device_id: str, uid: bytes, revision: int | None
) -> None:
    """Removes a device's rows. `revision` None: whatever its revision, and also when it is gone."""
    statement = "SELECT labels, ancestors, revision FROM devices WHERE tenant = ? AND id = ? AND uid = ?"
    old = connection.execute(statement, (tenant, device_id, uid)).fetchone()
    if old is None or (revision is not None and old[2] != revision):
        if revision is None:
            return
        raise Conflict(f"device {device_id} has changed")
    connection.execute("DELETE FROM devices WHERE tenant = ? AND id = ?", (tenant, device_id))
    _drop_labels(connection, tenant, device_id, old[0])
    _drop_ancestry(connection, tenant, device_id, old[1])


def _drop_labels(connection: sqlite3.Connection, tenant: TenantId, device_id: str, labels: str) -> None:
    rows = [(tenant, key, value, device_id) for key, value in json.loads(labels).items()]
    connection.executemany("DELETE FROM labels WHERE tenant = ? AND key = ? AND value = ? AND id = ?", rows)


def _drop_ancestry(
    connection: sqlite3.Connection, tenant: TenantId, device_id: str, ancestors: bytes
) -> None:
    rows = [(tenant, up, device_id) for up in uids_of(ancestors)]
    connection.executemany("DELETE FROM ancestry WHERE tenant = ? AND ancestor = ? AND id = ?", rows)


def _remember(connection: sqlite3.Connection, scope: bytes, replay: Replay) -> None:
    columns = "tenant, request_id, fingerprint, object_ids, object_uids, made_us"
    statement = f"INSERT INTO replays ({columns}) VALUES (?, ?, ?, ?, ?, ?)"
    ids, uids = "\n".join(replay.object_ids), b"".join(replay.object_uids)
    row = (scope, replay.request_id, replay.fingerprint, ids, uids, replay.made_us)
    connection.execute(statement, row)


def _insert(connection: sqlite3.Connection, target: str, rows: Sequence[Row]) -> None:
    for some in batched(rows, _ROWS_PER_STATEMENT):
        connection.execute(_insert_text(target, len(some[0]), len(some)), tuple(chain.from_iterable(some)))


@cache
def _insert_text(target: str, columns: int, rows: int) -> str:
    marks = f"({', '.join('?' * columns)})"
    return f"INSERT INTO {target} VALUES {', '.join([marks] * rows)}"


def _expect_one(cursor: sqlite3.Cursor, name: str) -> None:
    if cursor.rowcount != 1:
        raise Conflict(f"{name} has changed")
