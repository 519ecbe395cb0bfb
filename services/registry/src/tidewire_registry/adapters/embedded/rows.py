"""Rows of the embedded store ↔ the registry's objects. Columns are named, so that a newer table may have more."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tidewire_kit.ids import TenantId, Uid
from tidewire_registry.domain.changes import Kind, Tombstone
from tidewire_registry.domain.credentials import Algorithm, Credential
from tidewire_registry.domain.devices import Device, DeviceState, Location
from tidewire_registry.domain.tenants import Quotas, Retention, Tenant, TenantState

Row = tuple[Any, ...]

TENANT_COLUMNS = (
    "uid, id, display_name, state, quotas, raw_retention_us, rollup_retention_us, labels, created_us, updated_us,"
    " revision"
)
DEVICE_COLUMNS = (
    "tenant, id, uid, display_name, type, labels, parent, latitude, longitude, state, created_us, updated_us, revision,"
    " ancestors"
)
CREDENTIAL_COLUMNS = (
    "tenant, device_uid, uid, device_id, public_key_pem, algorithm, expires_us, created_us, revision"
)
TOMBSTONE_COLUMNS = "tenant, uid, kind, id, device_uid, revision, deleted_us"

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_STATES = {state.value: state for state in DeviceState}


def qualified(columns: str, table: str) -> str:
    """The columns, each with the table's alias."""
    return ", ".join(f"{table}.{column.strip()}" for column in columns.split(","))


def labels_text(labels: Mapping[str, str]) -> str:
    """Labels as JSON."""
    return _JSON.encode(dict(labels)) if labels else "{}"


def tenant_row(tenant: Tenant) -> Row:
    """The row of a tenant, in the order of TENANT_COLUMNS."""
    quotas = {name: value for name, value in asdict(tenant.quotas).items() if value}
    return (
        tenant.uid,
        tenant.id,
        tenant.display_name,
        int(tenant.state),
        json.dumps(quotas),
        tenant.retention.raw_us,
        tenant.retention.rollup_us,
        labels_text(tenant.labels),
        tenant.created_us,
        tenant.updated_us,
        tenant.revision,
    )


def tenant_of(row: Row) -> Tenant:
    """The tenant of a row."""
    uid, id_, display_name, state, quotas, raw_us, rollup_us, labels, created_us, updated_us, revision = row
    return Tenant(
        TenantId(uid),
        id_,
        display_name,
        TenantState(state),
        Quotas(**json.loads(quotas)),
        Retention(raw_us, rollup_us),
        json.loads(labels),
        created_us,
        updated_us,
        revision,
    )


def device_row(device: Device) -> Row:
    """The row of a device, in the order of DEVICE_COLUMNS."""
    location = device.location
    return (
        device.tenant,
        device.id,
        device.uid,
        device.display_name,
        device.type,
        labels_text(device.labels),
        device.parent_id,
        location.latitude if location is not None else None,
        location.longitude if location is not None else None,
        int(device.state),
        device.created_us,
        device.updated_us,
        device.revision,
        b"".join(device.ancestors),
    )


def device_of(row: Row) -> Device:
    """The device of a row."""
    (
        tenant,
        id_,
        uid,
        display_name,
        type_,
        labels,
        parent,
        latitude,
        longitude,
        state,
        created_us,
        updated_us,
        revision,
        ancestors,
    ) = row
    return Device(
        tenant,
        uid,
        id_,
        display_name,
        type_,
        json.loads(labels) if labels != "{}" else {},
        parent,
        Location(latitude, longitude) if latitude is not None else None,
        _STATES[state],
        created_us,
        updated_us,
        revision,
        uids_of(ancestors) if ancestors else (),
    )


def uids_of(joined: bytes) -> tuple[Uid, ...]:
    """Uids that were stored one after the other."""
    return tuple(Uid(joined[i : i + 16]) for i in range(0, len(joined), 16))


def credential_row(credential: Credential) -> Row:
    """The row of a credential, in the order of CREDENTIAL_COLUMNS."""
    return (
        credential.tenant,
        credential.device_uid,
        credential.uid,
        credential.device_id,
        credential.public_key_pem,
        int(credential.algorithm),
        credential.expires_us,
        credential.created_us,
        credential.revision,
    )


def credential_of(row: Row) -> Credential:
    """The credential of a row."""
    tenant, device_uid, uid, device_id, pem, algorithm, expires_us, created_us, revision = row
    return Credential(
        TenantId(tenant),
        Uid(device_uid),
        device_id,
        Uid(uid),
        pem,
        Algorithm(algorithm),
        expires_us,
        created_us,
        revision,
    )


def tombstone_row(tombstone: Tombstone) -> Row:
    """The row of a tombstone, in the order of TOMBSTONE_COLUMNS."""
    return (
        tombstone.tenant,
        tombstone.uid,
        str(tombstone.kind),
        tombstone.id,
        tombstone.device_uid,
        tombstone.revision,
        tombstone.deleted_us,
    )


def tombstone_of(row: Row) -> Tombstone:
    """The tombstone of a row."""
    tenant, uid, kind, id_, device_uid, revision, deleted_us = row
    return Tombstone(
        Kind(kind),
        TenantId(tenant),
        Uid(uid),
        id_,
        Uid(device_uid) if device_uid is not None else None,
        revision,
        deleted_us,
    )
