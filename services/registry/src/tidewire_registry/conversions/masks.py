"""Update masks (AIP-134) → what changes: absent means the populated fields, `*` all that may be changed.

Fields that callers cannot change (name, uid, state, times, etag) are ignored in a mask, as the AIPs say, so that a
resource that was read can be sent back whole. Other unknown paths are refused.
"""

from google.protobuf.field_mask_pb2 import FieldMask

from tidewire.registry.v1 import resources_pb2
from tidewire_kit.errors import InvalidArgument
from tidewire_registry.application.devices import CLEAR, DeviceChanges
from tidewire_registry.application.tenants import TenantChanges
from tidewire_registry.conversions.resources import duration_us, location_of, parent_of
from tidewire_registry.domain.tenants import Quotas

_IGNORED = frozenset({"name", "uid", "state", "create_time", "update_time", "etag"})
_DEVICE_PATHS = ("display_name", "type", "labels", "parent", "location")
_QUOTA_PATHS = tuple(f"quotas.{name}" for name in Quotas.__slots__)
_RETENTION_FIELDS = {"raw_duration": "raw_us", "rollup_duration": "rollup_us"}
_RETENTION_PATHS = tuple(f"retention.{name}" for name in _RETENTION_FIELDS)
_TENANT_PATHS = ("display_name", "labels", *_QUOTA_PATHS, *_RETENTION_PATHS)


def device_changes(device: resources_pb2.Device, mask: FieldMask | None, tenant_id: str) -> DeviceChanges:
    """What an UpdateDevice changes."""
    populated = [path for path in _DEVICE_PATHS if _is_set(device, path)]
    paths = _paths(mask, populated, _DEVICE_PATHS, {})
    location = location_of(device.location) if device.HasField("location") else CLEAR
    return DeviceChanges(
        display_name=device.display_name if "display_name" in paths else None,
        type=device.type if "type" in paths else None,
        labels=dict(device.labels) if "labels" in paths else None,
        parent_id=parent_of(device.parent, tenant_id, "device.parent") if "parent" in paths else None,
        location=location if "location" in paths else None,
    )


def tenant_changes(tenant: resources_pb2.Tenant, mask: FieldMask | None) -> TenantChanges:
    """What an UpdateTenant changes."""
    populated = [path for path in ("display_name", "labels") if _is_set(tenant, path)]
    populated += [path for path in _QUOTA_PATHS if getattr(tenant.quotas, path.removeprefix("quotas."))]
    populated += [p for p in _RETENTION_PATHS if tenant.retention.HasField(p.removeprefix("retention."))]  # type: ignore[arg-type]
    groups = {"quotas": _QUOTA_PATHS, "retention": _RETENTION_PATHS}
    paths = _paths(mask, populated, _TENANT_PATHS, groups)
    return TenantChanges(
        display_name=tenant.display_name if "display_name" in paths else None,
        labels=dict(tenant.labels) if "labels" in paths else None,
        quotas={name: getattr(tenant.quotas, name) for name in Quotas.__slots__ if f"quotas.{name}" in paths},
        retention={
            field: duration_us(getattr(tenant.retention, name))
            if tenant.retention.HasField(name)  # type: ignore[arg-type]
            else None
            for name, field in _RETENTION_FIELDS.items()
            if f"retention.{name}" in paths
        },
    )


def _is_set(message: resources_pb2.Device | resources_pb2.Tenant, field: str) -> bool:
    return any(descriptor.name == field for descriptor, _ in message.ListFields())


def _paths(
    mask: FieldMask | None, populated: list[str], known: tuple[str, ...], groups: dict[str, tuple[str, ...]]
) -> set[str]:
    if mask is None or not mask.paths:
        return set(populated)
    paths: set[str] = set()
    for path in mask.paths:
        if path == "*":
            if len(mask.paths) > 1:
                raise InvalidArgument("update_mask", "has * beside other paths; give * alone, or the paths")
            paths.update(known)
        elif path in known:
            paths.add(path)
        elif path in groups:
            paths.update(groups[path])
        elif path not in _IGNORED:
            shown = ", ".join((*known, *groups))
            raise InvalidArgument(
                "update_mask", f"unknown path {path[:80]!r}; those that can change are {shown}"
            )
    return paths
