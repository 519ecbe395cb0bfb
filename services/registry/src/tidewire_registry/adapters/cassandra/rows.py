"""Rows of the Cassandra store ↔ the registry's objects, and where a row lies. Used by the store's other modules.

Rows are tuples in the order of a COLUMNS constant, which starts with the columns of the partition key.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from zlib import crc32

from tidewire_kit.ids import TenantId, Uid
from tidewire_registry.domain.changes import Kind, Tombstone
from tidewire_registry.domain.credentials import Algorithm, Credential
from tidewire_registry.domain.devices import Device, DeviceState, Location
from tidewire_registry.domain.tenants import Quotas, Retention, Tenant, TenantState
from tidewire_registry.ports import Replay

Row = tuple[Any, ...]

DEVICE_BUCKETS = 16
"""A list in order of ids merges so many partitions; a million devices of 400 bytes are 25 MB in each."""
CREDENTIAL_BUCKETS = 64
"""Of credentials and tombstones, which nobody lists in order of all."""
REPLAY_BUCKETS = 16

TENANT_COLUMNS = (
    "uid, id, display_name, state, quotas, raw_retention_us, rollup_retention_us, labels, created_us, updated_us,"
    " revision"
)
DEVICE_COLUMNS = (
    "tenant, bucket, id, uid, display_name, type, labels, parent, latitude, longitude, state, created_us, updated_us,"
    " revision, ancestors"
)
CREDENTIAL_COLUMNS = (
    "tenant, bucket, uid, device_uid, device_id, public_key_pem, algorithm, expires_us, created_us, revision"
)
DEVICE_CREDENTIAL_COLUMNS = (
    "tenant, device_uid, uid, device_id, public_key_pem, algorithm, expires_us, created_us, revision"
)
TOMBSTONE_COLUMNS = "tenant, bucket, uid, kind, id, device_uid, revision, deleted_us"
TENANT_TOMBSTONE_COLUMNS = "shard, uid, id, revision, deleted_us"
REPLAY_COLUMNS = "tenant, bucket, request_id, fingerprint, object_ids, object_uids, made_us"

_STATES = {state.value: state for state in DeviceState}


def names(columns: str) -> tuple[str, ...]:
    """The names in a COLUMNS constant."""
    return tuple(name.strip() for name in columns.split(","))


def text_bucket(text: str, buckets: int) -> int:
    """The bucket of a device's id or a request's id; part of the format of the tables."""
    return crc32(text.encode()) % buckets


def device_bucket(device_id: str) -> int:
    """The bucket of a device."""
    return text_bucket(device_id, DEVICE_BUCKETS)


def uid_bucket(uid: bytes) -> int:
    """The bucket of a credential or a tombstone; part of the format of the tables."""
    return crc32(uid) % CREDENTIAL_BUCKETS


def tenant_row(tenant: Tenant) -> Row:
    """In the order of TENANT_COLUMNS."""
    quotas = {name: value for name, value in asdict(tenant.quotas).items() if value}
    return (
        tenant.uid,
        tenant.id,
        tenant.display_name,
        int(tenant.state),
        json.dumps(quotas),
        tenant.retention.raw_us,
        tenant.retention.rollup_us,
        json.dumps(dict(tenant.labels), ensure_ascii=False),
        tenant.created_us,
        tenant.updated_us,
        tenant.revision,
    )


def tenant_of(row: Sequence[Any]) -> Tenant:
    """The tenant of a row of TENANT_COLUMNS."""
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
    """In the order of DEVICE_COLUMNS."""
    location = device.location
    return (
        device.tenant,
        device_bucket(device.id),
        device.id,
        device.uid,
        device.display_name,
        device.type,
        dict(device.labels),
        device.parent_id,
        location.latitude if location is not None else None,
        location.longitude if location is not None else None,
        int(device.state),
        device.created_us,
        device.updated_us,
        device.revision,
        b"".join(device.ancestors),
    )


def device_of(row: Sequence[Any]) -> Device:
    """The device of a row of DEVICE_COLUMNS."""
    (
        tenant,
        _,
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
        dict(labels) if labels else {},
        parent,
        Location(latitude, longitude) if latitude is not None else None,
        _STATES[state],
        created_us,
        updated_us,
        revision,
        uids_of(ancestors) if ancestors else (),
    )


def uids_of(joined: bytes | None) -> tuple[Uid, ...]:
    """Uids that were stored one after the other."""
    joined = joined or b""
    return tuple(Uid(joined[i : i + 16]) for i in range(0, len(joined), 16))


def credential_row(credential: Credential) -> Row:
    """In the order of CREDENTIAL_COLUMNS."""
    return (
        credential.tenant,
        uid_bucket(credential.uid),
        credential.uid,
        *_credential_values(credential, True),
    )


def device_credential_row(credential: Credential) -> Row:
    """In the order of DEVICE_CREDENTIAL_COLUMNS."""
    return (credential.tenant, credential.device_uid, credential.uid, *_credential_values(credential, False))


def _credential_values(credential: Credential, with_device: bool) -> Row:
    values = (
        credential.device_id,
        credential.public_key_pem,
        int(credential.algorithm),
        credential.expires_us,
        credential.created_us,
        credential.revision,
    )
    return (credential.device_uid, *values) if with_device else values


def credential_of(row: Sequence[Any]) -> Credential:
    """The credential of a row of CREDENTIAL_COLUMNS."""
    tenant, _, uid, device_uid, device_id, pem, algorithm, expires_us, created_us, revision = row
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


def device_credential_of(row: Sequence[Any]) -> Credential:
    """The credential of a row of DEVICE_CREDENTIAL_COLUMNS."""
    tenant, device_uid, uid, *rest = row
    return credential_of((tenant, 0, uid, device_uid, *rest))


def tombstone_row(tombstone: Tombstone) -> Row:
    """In the order of TOMBSTONE_COLUMNS; not of a tenant."""
    return (
        tombstone.tenant,
        uid_bucket(tombstone.uid),
        tombstone.uid,
        str(tombstone.kind),
        tombstone.id,
        tombstone.device_uid,
        tombstone.revision,
        tombstone.deleted_us,
    )


def tombstone_of(row: Sequence[Any]) -> Tombstone:
    """The tombstone of a row of TOMBSTONE_COLUMNS."""
    tenant, _, uid, kind, id_, device_uid, revision, deleted_us = row
    device = Uid(device_uid) if device_uid is not None else None
    return Tombstone(Kind(kind), TenantId(tenant), Uid(uid), id_, device, revision, deleted_us)


def tenant_tombstone_of(row: Sequence[Any]) -> Tombstone:
    """The tombstone of a row of TENANT_TOMBSTONE_COLUMNS."""
    _, uid, id_, revision, deleted_us = row
    return Tombstone(Kind.TENANT, TenantId(uid), Uid(uid), id_, None, revision, deleted_us)


def replay_row(tenant: TenantId, replay: Replay) -> Row:
    """In the order of REPLAY_COLUMNS."""
    bucket = text_bucket(replay.request_id, REPLAY_BUCKETS)
    return (tenant, bucket, replay.request_id, *replay_values(replay))


def replay_values(replay: Replay) -> Row:
    """fingerprint, object_ids, object_uids, made_us."""
    return (replay.fingerprint, "\n".join(replay.object_ids), b"".join(replay.object_uids), replay.made_us)


def replay_of(request_id: str, values: Sequence[Any]) -> Replay:
    """The replay of values as `replay_values` makes them."""
    fingerprint, ids, uids, made_us = values
    return Replay(request_id, fingerprint, ids.split("\n") if ids else [], list(uids_of(uids)), made_us)
