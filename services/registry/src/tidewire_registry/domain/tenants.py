"""Tenants: an isolated customer with quotas and retention, and when one may be blocked. Used by application.tenants."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum

from tidewire_kit.errors import FailedPrecondition, InvalidArgument
from tidewire_kit.ids import TenantId, tenant_name
from tidewire_registry.domain.values import check_display_name, check_labels

DEFAULT_DEVICES = 1_000_000
"""Devices of a tenant whose quota is 0."""
MAX_METRICS_PER_DEVICE = 1_000
_MAX_QUOTA = 2**62
_MAX_RETENTION_SECONDS = 100 * 366 * 86_400
_MIN_RETENTION_SECONDS = 3_600


class TenantState(IntEnum):
    """State of a tenant; the numbers are those of the API, so that they are stored and sent as they are."""

    ACTIVE = 1
    BLOCKED = 2
    DELETING = 3


@dataclass(frozen=True, slots=True)
class Quotas:
    """Limits; 0 is the platform's default. Units are in the names, rates are per second."""

    readings_per_second: int = 0
    burst_readings: int = 0
    batches_per_second: int = 0
    device_readings_per_second: int = 0
    devices: int = 0
    metrics_per_device: int = 0
    stored_bytes: int = 0

    def check(self) -> None:
        """Raises InvalidArgument for a negative limit or one beyond its maximum."""
        for name in self.__slots__:
            value = getattr(self, name)
            if not 0 <= value <= _MAX_QUOTA:
                raise InvalidArgument(
                    f"tenant.quotas.{name}", f"is {value}; give 0 (default) or a positive number"
                )
        if self.metrics_per_device > MAX_METRICS_PER_DEVICE:
            why = f"is {self.metrics_per_device}; the maximum is {MAX_METRICS_PER_DEVICE}"
            raise InvalidArgument("tenant.quotas.metrics_per_device", why)

    @property
    def devices_in_force(self) -> int:
        """Most devices, the default resolved."""
        return self.devices or DEFAULT_DEVICES


@dataclass(frozen=True, slots=True)
class Retention:
    """How long data is kept, in microseconds; None: for ever."""

    raw_us: int | None = None
    rollup_us: int | None = None

    def check(self) -> None:
        """Raises InvalidArgument for less than an hour or more than 100 years."""
        for name, value in (("raw_duration", self.raw_us), ("rollup_duration", self.rollup_us)):
            if value is None:
                continue
            if not _MIN_RETENTION_SECONDS * 1_000_000 <= value <= _MAX_RETENTION_SECONDS * 1_000_000:
                why = f"is {value / 1_000_000:g} s; give 1 hour to 100 years, or leave it out to keep data for ever"
                raise InvalidArgument(f"tenant.retention.{name}", why)


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant. Times are unix µs; `revision` rises by one with each change, from 1."""

    uid: TenantId
    id: str
    display_name: str
    state: TenantState
    quotas: Quotas
    retention: Retention
    labels: Mapping[str, str] = field(hash=False)
    created_us: int
    updated_us: int
    revision: int

    @property
    def tenant(self) -> TenantId:
        """Its own uid: what every object of a tenant has under this name."""
        return self.uid

    @property
    def name(self) -> str:
        """Resource name."""
        return tenant_name(self.id)

    def check(self) -> None:
        """Raises InvalidArgument naming the field that breaks a limit."""
        check_display_name(self.display_name, "tenant.display_name")
        check_labels(self.labels, "tenant.labels")
        self.quotas.check()
        self.retention.check()


def blocked(tenant: Tenant, now_us: int) -> Tenant:
    """The tenant with its next revision, blocked; the same one when it is already."""
    if tenant.state is TenantState.BLOCKED:
        return tenant
    return _moved(tenant, TenantState.BLOCKED, now_us)


def unblocked(tenant: Tenant, now_us: int) -> Tenant:
    """The tenant with its next revision, in use again. FailedPrecondition when it is not blocked."""
    if tenant.state is not TenantState.BLOCKED:
        why = f"{tenant.name} is {tenant.state.name}; only a BLOCKED tenant can be unblocked"
        raise FailedPrecondition(why, reason="TENANT_NOT_BLOCKED", subject=tenant.name)
    return _moved(tenant, TenantState.ACTIVE, now_us)


def _moved(tenant: Tenant, state: TenantState, now_us: int) -> Tenant:
    return replace(tenant, state=state, updated_us=now_us, revision=tenant.revision + 1)
