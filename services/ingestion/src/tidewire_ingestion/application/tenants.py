"""What is remembered of each tenant between batches: metric sets, metrics per device, and token buckets."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from tidewire_ingestion.application.device_metrics import DeviceMetrics
from tidewire_ingestion.application.quota_shares import SharedQuotas
from tidewire_ingestion.application.quotas import DeviceBuckets, TokenBucket
from tidewire_ingestion.domain import MAX_METRICS, Reason
from tidewire_kit.directory import Quotas, TenantView
from tidewire_kit.errors import InvalidArgument, QuotaExceeded
from tidewire_kit.ids import TenantId, check_metric
from tidewire_kit.telemetry.metric_set import MetricSet

_MAX_METRIC_SETS = 4_096
_MAX_LISTS = 256
_MAX_NAMES = 131_072
"""In all remembered lists of a tenant together; about 10 MB."""
_WORTH_REMEMBERING = 16
_READING_BYTES = 16
"""Of a message, for each reading in it: between 10 (rows of several metrics) and 60 (a single value)."""


class DeviceSlots:
    """Lists of device ids → slots, remembered by the identity of the list: the decoder gives equal lists as one."""

    def __init__(self, view: TenantView) -> None:
        self._view = view
        self._known: dict[int, tuple[list[str], NDArray[np.intp]]] = {}
        self._names = 0
        """In all that is known."""
        self._valid: tuple[int, int] = (-1, -1)

    def find(self, names: list[str], generation: int) -> NDArray[np.intp] | None:
        """(devices,): the slots of `names`; None when one of them is not known. `generation` is the directory's."""
        table = self._view.devices
        if len(names) < _WORTH_REMEMBERING:
            return self._look_up(names)
        valid = (generation, len(table))  # one of them changes whenever a name comes to mean another slot
        if valid != self._valid:
            self._known.clear()
            self._names = 0
            self._valid = valid
        known = self._known.get(id(names))
        if known is not None:
            return known[1]
        slots = self._look_up(names)
        if slots is not None and len(names) <= _MAX_NAMES:
            while len(self._known) >= _MAX_LISTS or self._names + len(names) > _MAX_NAMES:
                oldest, _ = self._known.pop(next(iter(self._known)))
                self._names -= len(oldest)
            # Holding the list keeps its identity from being given away.
            self._known[id(names)] = (names, slots)
            self._names += len(names)
        return slots

    def _look_up(self, names: list[str]) -> NDArray[np.intp] | None:
        try:
            return np.fromiter(map(self._view.devices.slot_of.__getitem__, names), np.intp, len(names))
        except KeyError:
            return None


class TenantState:
    """One tenant. `refresh` before each batch, so that changed quotas hold at once."""

    def __init__(self, view: TenantView) -> None:
        self.view = view
        self.readings = TokenBucket()
        self.batches = TokenBucket()
        self.device_readings = DeviceBuckets()
        self.shared = SharedQuotas(view, self.readings, self.batches, self.device_readings)
        self.device_metrics = DeviceMetrics()
        self.metrics_per_device = MAX_METRICS
        self.device_slots = DeviceSlots(view)
        self._quotas: Quotas | None = None
        self._metric_sets: dict[tuple[str, ...], MetricSet | str] = {}

    def refresh(self) -> None:
        """Adopts the tenant's quotas and the size of its device table."""
        quotas = self.view.quotas
        if quotas is not self._quotas:
            self._quotas = quotas
            self.readings.configure(quotas.readings_per_second, quotas.burst_readings)
            self.batches.configure(quotas.batches_per_second, 0)
            self.metrics_per_device = min(quotas.metrics_per_device or MAX_METRICS, MAX_METRICS)
            self.device_readings.configure(quotas.device_readings_per_second, 0)
        if self.device_readings.limited:
            capacity = len(self.view.devices.partition)
            self.device_readings.configure(quotas.device_readings_per_second, capacity)

    def refuse_unseen(self, size: int, now: float) -> None:
        """Raises QuotaExceeded for a message of `size` bytes while the tenant asks for several times its quota.

        Cheap: the message is not decoded for it. Without it a tenant's refused batches would cost as much as accepted
        ones, and the other tenants would pay for them.
        """
        if self.view.quotas is not self._quotas:
            return  # they have changed, which is adopted when the batch is looked at
        limit = "batches_per_second"
        delay = self.batches.refuse_unseen(1, now)
        if not delay:
            limit = "readings_per_second"
            delay = self.readings.refuse_unseen(max(1, size // _READING_BYTES), now)
        if delay:
            why = (
                f"the tenant asks for several times its quota of {limit}, so the batch was not looked at; send it "
                "again after the delay, or raise the quota"
            )
            raise QuotaExceeded(limit, why, reason=Reason.QUOTA_TENANT.name, retry_delay_seconds=delay)

    def metric_set(self, names: tuple[str, ...]) -> MetricSet | str:
        """Returns the one object of these columns, or the first name that is not a metric's."""
        known = self._metric_sets.get(names)
        if known is None:
            if len(self._metric_sets) >= _MAX_METRIC_SETS:
                self._metric_sets.clear()  # a tenant with so many is a mistake of its own; no other pays for it
            known = self._metric_sets[names] = _first_bad(names) or MetricSet(names)
        return known


def _first_bad(names: tuple[str, ...]) -> str:
    for name in names:
        try:
            check_metric(name)
        except InvalidArgument:
            return repr(name)
    return ""


class Tenants:
    """The states of the tenants that have published since this process started."""

    def __init__(self) -> None:
        self._states: dict[TenantId, TenantState] = {}
        self._begin: Callable[[SharedQuotas], None] | None = None

    def on_new(self, begin: Callable[[SharedQuotas], None]) -> None:
        """Calls `begin` for each tenant that comes, before its first batch is decided on."""
        self._begin = begin

    def shared(self) -> Iterator[SharedQuotas]:
        """The quotas of all tenants."""
        return (state.shared for state in self._states.values())

    def known(self, tenant: TenantId) -> TenantState | None:
        """Returns the tenant's state as of its last batch; None when there was none."""
        return self._states.get(tenant)

    def state(self, view: TenantView) -> TenantState:
        """Returns the tenant's state, refreshed."""
        state = self._states.get(view.uid)
        if state is None or state.view is not view:
            state = self._states[view.uid] = TenantState(view)
            state.refresh()
            if self._begin is not None:
                self._begin(state.shared)
        else:
            state.refresh()
        return state

    def forget(self, tenant: TenantId) -> None:
        """Drops what is held of a deleted tenant."""
        self._states.pop(tenant, None)
