"""This process's shares of the quotas: what its buckets were asked for goes out, what part they get comes back.

The tenant's demand is measured by its buckets; the kit's `fairshare` exchanges it with the other processes of ingestion
and divides. Once a second the exchange calls `demand` and `adopt` here. A share that falls holds at once; one that
rises holds a second later, when the others have heard of it and given way. So all shares together do not exceed the
quota while they move, as long as a report needs less than a second to get through.
"""

from collections.abc import Callable, Iterable

import numpy as np

from tidewire_ingestion.application.quotas import DeviceBuckets, TokenBucket
from tidewire_ingestion.ports import ShareObserver
from tidewire_kit.directory import TenantView
from tidewire_kit.fairshare import FLOOR, Board, TenantDemand, average
from tidewire_kit.ids import TenantId

MOST_DEVICES = 256
"""Devices of a tenant that a process reports, the busiest first."""
_SILENT = 1e-3
"""Readings a second below which a device is not spoken of."""


class SharedQuotas:
    """The buckets of one tenant and the demand that they meet."""

    def __init__(
        self, view: TenantView, readings: TokenBucket, batches: TokenBucket, devices: DeviceBuckets
    ) -> None:
        self._view = view
        self._readings = readings
        self._batches = batches
        self._devices = devices
        self._readings_rate = 0.0
        self._batches_rate = 0.0
        self._device_rates = np.zeros(0)
        self._due: tuple[float, float] | None = None
        """The shares that were due a second ago."""
        self._devices_due: dict[bytes, float] = {}

    @property
    def tenant(self) -> TenantId:
        """Whose quotas these are."""
        return self._view.uid

    @property
    def limited(self) -> bool:
        """Whether the tenant has a quota that is shared."""
        return bool(self._readings.quota or self._batches.quota or self._devices.quota)

    def demand(self, board: Board, seconds: float, now: float) -> TenantDemand | None:
        """What was asked for, as averages; None when nothing was since the last call."""
        readings, batches = self._readings.asked, self._batches.asked
        self._readings.asked = self._batches.asked = 0
        self._readings_rate = average(self._readings_rate, float(readings), seconds)
        self._batches_rate = average(self._batches_rate, float(batches), seconds)
        devices, any_device = self._device_demand(board, seconds, now)
        if not (readings or batches or any_device):
            return None
        return TenantDemand(self._view.uid, self._readings_rate, self._batches_rate, devices)

    def adopt(self, board: Board, now: float) -> tuple[float, float]:
        """Takes the shares that are due; returns those of readings and of batches that hold now."""
        readings, batches = self._readings, self._batches
        due = board.shares(self._view.uid, readings.quota, batches.quota, now)
        before = self._due or due
        readings.set_share(min(due[0], before[0]), now)
        batches.set_share(min(due[1], before[1]), now)
        self._due = due
        if self._devices.limited and self._devices.capacity:
            self._adopt_devices(board, now)
        return readings.share, batches.share

    def _device_demand(self, board: Board, seconds: float, now: float) -> tuple[dict[bytes, float], bool]:
        """(uid → readings a second of the devices to speak of, whether any device asked for anything)."""
        devices, table = self._devices, self._view.devices
        if not devices.limited or not devices.capacity:
            return {}, False
        asked = devices.take_asked()
        before = np.zeros(len(asked))
        before[: len(self._device_rates)] = self._device_rates
        self._device_rates = rates = average(before, asked, seconds)
        # Below this a device fits into any share, unless somebody else's report makes ours the least.
        hot = np.flatnonzero(rates > devices.quota * FLOOR / board.members)
        if len(hot) > MOST_DEVICES:
            hot = hot[np.argpartition(rates[hot], -MOST_DEVICES)[-MOST_DEVICES:]]
        found = {table.uids[slot].tobytes(): float(rates[slot]) for slot in hot.tolist()}
        for uid in board.reported_devices(self._view.uid, now) - found.keys():
            slot = table.slot_by_uid.get(uid, -1)
            if 0 <= slot < len(rates) and rates[slot] > _SILENT:
                found[uid] = float(rates[slot])
        return found, bool(asked.any())

    def _adopt_devices(self, board: Board, now: float) -> None:
        devices, slot_of = self._devices, self._view.devices.slot_by_uid
        equal = 1.0 / board.members
        uids, parts = board.device_shares(self._view.uid, devices.quota, now)
        due = dict(zip(uids, parts.tolist(), strict=True))
        slots = [slot_of.get(uid, devices.capacity) for uid in due]
        here = [
            (slot, min(part, self._devices_due.get(uid, equal)))
            for slot, (uid, part) in zip(slots, due.items(), strict=True)
            if slot < devices.capacity
        ]
        self._devices_due = due
        devices.set_shares(
            equal,
            np.array([slot for slot, _ in here], np.intp),
            np.array([part for _, part in here], np.float64),
        )


class QuotaShares:
    """The `Participant` of ingestion: all tenants that have published here."""

    def __init__(
        self,
        board: Board,
        tenants: Callable[[], Iterable[SharedQuotas]],
        observer: ShareObserver,
        monotonic: Callable[[], float],
    ) -> None:
        """`tenants` are the live ones; `begin` is called for each new one before its first batch is decided on."""
        self._board = board
        self._tenants = tenants
        self._observer = observer
        self._monotonic = monotonic
        self._told: dict[TenantId, tuple[float, float]] = {}

    def begin(self, quotas: SharedQuotas) -> None:
        """Gives a tenant that is new here its share, before it finds a bucket with all of the quota."""
        quotas.adopt(self._board, self._monotonic())

    def demand(self, board: Board, seconds: float) -> list[TenantDemand]:
        """See `Participant`."""
        now = self._monotonic()
        limited = (quotas for quotas in self._tenants() if quotas.limited)
        found = (quotas.demand(board, seconds, now) for quotas in limited)
        return [demand for demand in found if demand is not None]

    def adopt(self, board: Board, now: float) -> None:
        """See `Participant`."""
        told: dict[TenantId, tuple[float, float]] = {}
        for quotas in self._tenants():
            if quotas.limited:
                told[quotas.tenant] = shares = quotas.adopt(board, now)
                if self._told.get(quotas.tenant) != shares:
                    self._observer.quota_shares(quotas.tenant, *shares)
        self._told = told
