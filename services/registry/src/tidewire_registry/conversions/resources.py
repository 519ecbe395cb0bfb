"""Resources of the API ↔ domain objects, in pairs. The numbers of states and algorithms are the same on both sides."""

from functools import lru_cache
from typing import cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.latlng_pb2 import LatLng

from tidewire.registry.v1 import registry_pb2, resources_pb2
from tidewire_kit.errors import InvalidArgument
from tidewire_kit.ids import credential_name, device_name, parse_device_name, tenant_name, uid_hex
from tidewire_registry.application.tenants import Usage
from tidewire_registry.domain.credentials import Credential
from tidewire_registry.domain.devices import Device, DeviceDraft, Location
from tidewire_registry.domain.tenants import Quotas, Retention, Tenant
from tidewire_registry.domain.values import etag


def timestamp(unix_us: int) -> Timestamp:
    """Unix µs → Timestamp."""
    return Timestamp(seconds=unix_us // 1_000_000, nanos=unix_us % 1_000_000 * 1000)


_shared_timestamp = lru_cache(256)(timestamp)
"""Devices of one batch share their times."""


def unix_us(moment: Timestamp, field: str) -> int:
    """Timestamp → unix µs, cut to whole ones. InvalidArgument for a moment that is none."""
    if not (-62_135_596_800 <= moment.seconds <= 253_402_300_799 and 0 <= moment.nanos < 10**9):
        raise InvalidArgument(field, "is not a valid time between the years 1 and 9999")
    return moment.seconds * 1_000_000 + moment.nanos // 1000


def duration_us(span: Duration) -> int:
    """Duration → µs."""
    return span.seconds * 1_000_000 + span.nanos // 1000


def tenant_to_proto(tenant: Tenant) -> resources_pb2.Tenant:
    """Domain → API."""
    message = resources_pb2.Tenant(
        name=tenant.name,
        uid=uid_hex(tenant.uid),
        display_name=tenant.display_name,
        state=int(tenant.state),  # type: ignore[arg-type]  # same numbers
        quotas=quotas_to_proto(tenant.quotas),
        labels=tenant.labels,
        create_time=timestamp(tenant.created_us),
        update_time=timestamp(tenant.updated_us),
        etag=etag(tenant.uid, tenant.revision),
    )
    if tenant.retention != Retention():
        message.retention.SetInParent()
        for name, value in (
            ("raw_duration", tenant.retention.raw_us),
            ("rollup_duration", tenant.retention.rollup_us),
        ):
            if value is not None:
                getattr(message.retention, name).FromMicroseconds(value)
    return message


def quotas_to_proto(quotas: Quotas) -> resources_pb2.TenantQuotas:
    """Domain → API."""
    return resources_pb2.TenantQuotas(**{name: getattr(quotas, name) for name in Quotas.__slots__})


def usage_to_proto(usage: Usage) -> registry_pb2.TenantUsage:
    """Domain → API. Storage's figures are 0, and their time absent, when storage could not be asked."""
    message = registry_pb2.TenantUsage(
        name=usage.tenant.name,
        devices=usage.devices,
        credentials=usage.credentials,
        quotas=quotas_to_proto(usage.tenant.quotas),
    )
    if usage.storage is not None:
        message.accepted_readings = usage.storage.accepted_readings
        message.stored_readings = usage.storage.stored_readings
        message.stored_bytes = usage.storage.stored_bytes
        message.measure_time.CopyFrom(timestamp(usage.storage.measured_us))
    return message


def device_to_proto(device: Device, tenant_id: str) -> resources_pb2.Device:
    """Domain → API. The same message for the same object: copy it into others, and do not change it."""
    if device.rendered is not None:
        return cast(resources_pb2.Device, device.rendered)
    message = resources_pb2.Device(
        name=f"tenants/{tenant_id}/devices/{device.id}",
        uid=device.uid.hex(),
        display_name=device.display_name,
        type=device.type,
        state=int(device.state),  # type: ignore[arg-type]  # same numbers
        create_time=_shared_timestamp(device.created_us),
        update_time=_shared_timestamp(device.updated_us),
        etag=etag(device.uid, device.revision),
    )
    labels = message.labels
    for key, value in device.labels.items():
        labels[key] = value
    if device.parent_id:
        message.parent = device_name(tenant_id, device.parent_id)
    if device.location is not None:
        place = message.location
        place.latitude = device.location.latitude
        place.longitude = device.location.longitude
    device.rendered = message
    return message


def draft_of(
    message: resources_pb2.Device, device_id: str, tenant_id: str, where: str = "device"
) -> DeviceDraft:
    """API → domain. `where` is the path of the device in the request. InvalidArgument for a parent elsewhere."""
    return DeviceDraft(
        device_id,
        message.display_name,
        message.type,
        dict(message.labels),
        parent_of(message.parent, tenant_id, f"{where}.parent") if message.parent else "",
        location_of(message.location) if message.HasField("location") else None,
        where,
    )


def parent_of(name: str, tenant_id: str, field: str) -> str:
    """Device id of a parent's resource name; empty stays empty. A parent in another tenant is InvalidArgument."""
    if not name:
        return ""
    try:
        tenant, device_id = _parsed(name)
    except InvalidArgument as error:
        raise InvalidArgument(field, error.why) from None
    if tenant != tenant_id:
        raise InvalidArgument(field, "is in another tenant; name a device of the same one")
    return device_id


_parsed = lru_cache(256)(parse_device_name)
"""Devices of one batch share their parents."""


def location_of(place: LatLng) -> Location:
    """API → domain."""
    return Location(place.latitude, place.longitude)


def credential_to_proto(credential: Credential, tenant_id: str) -> resources_pb2.Credential:
    """Domain → API."""
    message = resources_pb2.Credential(
        name=credential_name(tenant_id, credential.device_id, credential.id),
        public_key_pem=credential.public_key_pem,
        algorithm=int(credential.algorithm),  # type: ignore[arg-type]  # same numbers
        create_time=timestamp(credential.created_us),
    )
    if credential.expires_us is not None:
        message.expire_time.CopyFrom(timestamp(credential.expires_us))
    return message


def bare_tenant(uid: bytes, tenant_id: str) -> resources_pb2.Tenant:
    """What a tombstone shows of a tenant."""
    return resources_pb2.Tenant(name=tenant_name(tenant_id), uid=uid_hex(uid))
