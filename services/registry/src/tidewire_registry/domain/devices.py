"""Devices, gateways and sites: their values and states. Used by application.devices and the stores."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tidewire_kit.devices import ADMITTED, DeviceState, Location
from tidewire_kit.errors import FailedPrecondition, InvalidArgument
from tidewire_kit.ids import TenantId, Uid, check_device_type, device_name
from tidewire_registry.domain.values import check_display_name, check_labels

__all__ = [
    "ADMITTED",
    "Device",
    "DeviceDraft",
    "DeviceState",
    "Location",
    "blocked",
    "created",
    "given_credential",
    "moved",
    "unblocked",
]


@dataclass(slots=True)
class DeviceDraft:
    """What a caller gives of a device to be created. Not frozen: a thousand of them are made for one request."""

    id: str
    display_name: str = ""
    type: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    parent_id: str = ""
    """Device id of the parent in the same tenant; empty: none."""
    location: Location | None = None
    where: str = "device"
    """Path of the draft in the request, for error messages."""

    def check(self) -> None:
        """Raises InvalidArgument naming the field that breaks a limit."""
        where = self.where
        if self.display_name:
            check_display_name(self.display_name, f"{where}.display_name")
        if self.type:
            check_device_type(self.type, field=f"{where}.type")
        if self.labels:
            check_labels(self.labels, f"{where}.labels")
        if self.location is not None:
            self.location.check(f"{where}.location")
        if self.parent_id == self.id:
            raise InvalidArgument(f"{where}.parent", "names the device itself; name its gateway or site")


@dataclass(slots=True)
class Device:
    """A device as stored. Times are unix µs; `revision` rises by one with each change, from 1.

    Treated as a value: changed only by `dataclasses.replace`. Not frozen, since building a frozen one takes three times
    as long, and lists and loads build them by the hundred thousand.
    """

    tenant: TenantId
    uid: Uid
    id: str
    display_name: str
    type: str
    labels: Mapping[str, str]
    parent_id: str
    location: Location | None
    state: DeviceState
    created_us: int
    updated_us: int
    revision: int
    ancestors: tuple[Uid, ...]
    """Uids of parent, its parent and so on."""
    rendered: object = field(default=None, init=False, compare=False, repr=False)
    """What `conversions` made of this revision, kept so that publishing and answering share it. Nobody else's."""

    def name(self, tenant_id: str) -> str:
        """Resource name; `tenant_id` is the tenant's id for people."""
        return device_name(tenant_id, self.id)

    def check(self) -> None:
        """Raises InvalidArgument naming the field that breaks a limit."""
        DeviceDraft(self.id, self.display_name, self.type, self.labels, self.parent_id, self.location).check()


def created(
    draft: DeviceDraft, tenant: TenantId, uid: Uid, ancestors: tuple[Uid, ...], now_us: int
) -> Device:
    """The first revision of a device."""
    return Device(
        tenant,
        uid,
        draft.id,
        draft.display_name,
        draft.type,
        draft.labels,
        draft.parent_id,
        draft.location,
        DeviceState.ENROLLED,
        now_us,
        now_us,
        1,
        ancestors,
    )


def blocked(device: Device, now_us: int) -> Device:
    """The device with its next revision, blocked; the same one when it is already. FailedPrecondition when retired."""
    if device.state is DeviceState.BLOCKED:
        return device
    if device.state in (DeviceState.RETIRED, DeviceState.ERASED):
        why = f"device {device.id} is {device.state.name}; it is out of use and cannot be blocked"
        raise FailedPrecondition(why, reason="DEVICE_OUT_OF_USE", subject=device.id)
    return moved(device, DeviceState.BLOCKED, now_us)


def unblocked(device: Device, has_credential: bool, now_us: int) -> Device:
    """The device with its next revision, admitted again. FailedPrecondition when neither blocked nor quarantined."""
    if device.state not in (DeviceState.BLOCKED, DeviceState.QUARANTINED):
        why = f"device {device.id} is {device.state.name}; only a BLOCKED or QUARANTINED device can be unblocked"
        raise FailedPrecondition(why, reason="DEVICE_NOT_BLOCKED", subject=device.id)
    return moved(device, DeviceState.ACTIVE if has_credential else DeviceState.ENROLLED, now_us)


def given_credential(device: Device, now_us: int) -> Device | None:
    """The next revision of a device that gets a credential; None when that does not change it."""
    if device.state in (DeviceState.RETIRED, DeviceState.ERASED):
        why = f"device {device.id} is {device.state.name}; it is out of use and takes no credential"
        raise FailedPrecondition(why, reason="DEVICE_OUT_OF_USE", subject=device.id)
    return moved(device, DeviceState.ACTIVE, now_us) if device.state is DeviceState.ENROLLED else None


def moved(device: Device, state: DeviceState, now_us: int) -> Device:
    """The device with its next revision, in another state."""
    return replace(device, state=state, updated_us=now_us, revision=device.revision + 1)
