"""From the names that people use to uids, and back in the order of names, by the replica of the registry.

A tenant's own devices only: the callers have checked the tenant, and a device of another tenant does not exist here.
"""

from bisect import bisect_left

from tidewire_kit.directory import Directory, TenantView
from tidewire_kit.errors import FailedPrecondition, NotFound
from tidewire_kit.ids import TenantId, device_name


class Names:
    """Looks up devices."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._sorted: dict[TenantId, tuple[tuple[int, int], list[str]]] = {}

    def tenant(self, tenant: TenantId) -> TenantView:
        """The tenant; FailedPrecondition when it is blocked or being deleted, which ends its tokens too."""
        view = self._directory.tenant(tenant)
        if view is None or not view.active:
            raise FailedPrecondition("the tenant is blocked or deleted", reason="TENANT_BLOCKED")
        return view

    def tenant_id(self, tenant: TenantId) -> str | None:
        """The tenant's name; None when it is deleted."""
        view = self._directory.tenant(tenant)
        return view.id if view is not None and view.id and not view.deleted else None

    def device(self, tenant: TenantId, device_id: str) -> tuple[bytes, int]:
        """(uid, partition) of a device; NotFound."""
        view = self.tenant(tenant)
        slot = view.devices.slot_of.get(device_id)
        if slot is None:
            raise NotFound(device_name(view.id, device_id))
        return view.devices.uids[slot].tobytes(), int(view.devices.partition[slot])

    def after(self, tenant: TenantId, device_id: str) -> list[str]:
        """All device ids of a tenant from `device_id` on, sorted."""
        devices = self.tenant(tenant).devices
        version = (len(devices), len(devices.slot_of))
        held = self._sorted.get(tenant)
        if held is None or held[0] != version:
            held = self._sorted[tenant] = (version, sorted(devices.slot_of))
        return held[1][bisect_left(held[1], device_id) :]
