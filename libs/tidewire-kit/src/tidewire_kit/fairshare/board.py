"""What every process last said of its demand, and this process's shares that follow from it. No I/O.

A report counts in full for `FRESH_SECONDS`, then less with every second: a process that is killed, hangs, or is asked
for nothing any more counts no more a few seconds later. Reports age alike, so a tenant that everywhere is silent keeps
its shares until the reports are forgotten; then each process has an equal part again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tidewire.events.v1.demand_report_pb2 import DemandReport
from tidewire_kit.fairshare.shares import divide
from tidewire_kit.ids import TenantId

FRESH_SECONDS = 2.5
"""A report a second, and some time to come through."""
FADE_SECONDS = 0.7
"""Time constant of what comes after: 5 s after its last report a process counts for 3 %."""
FORGET_SECONDS = 60.0
UID_BYTES = 16


@dataclass(frozen=True, slots=True)
class TenantDemand:
    """What a tenant asked of one process, per second, admitted or not."""

    tenant: TenantId
    readings: float
    batches: float
    devices: Mapping[bytes, float] = field(default_factory=dict)
    """Device uid → readings per second, of devices near or above their quota."""


@dataclass(slots=True)
class _Process:
    seen_at: float
    tenants: dict[TenantId, TenantDemand]


class Board:
    """The reports of all processes of a service, as one of them sees them."""

    def __init__(self, own: str) -> None:
        """`own`: this process's id among the reports."""
        self._own = own
        self._processes: dict[str, _Process] = {}
        self.members = 1
        """Live processes, this one included."""
        self.informed = False
        """Whether this process hears the others and they hear it; until then every quota is divided equally."""

    def put(self, process: str, tenants: Sequence[TenantDemand], seen_at: float) -> None:
        """Notes a report; `seen_at` in seconds of the monotonic clock."""
        self._processes[process] = _Process(seen_at, {demand.tenant: demand for demand in tenants})

    def remove(self, process: str) -> None:
        """A process has stopped."""
        self._processes.pop(process, None)

    def forget(self, now: float) -> list[str]:
        """Drops reports that count no more; returns whose they were."""
        gone = [name for name, each in self._processes.items() if now - each.seen_at > FORGET_SECONDS]
        for name in gone:
            del self._processes[name]
        return gone

    def fresh(self, now: float) -> int:
        """Number of processes, this one included, whose reports count in full."""
        others = (each for name, each in self._processes.items() if name != self._own)
        return 1 + sum(now - each.seen_at <= FRESH_SECONDS for each in others)

    def shares(
        self, tenant: TenantId, readings_quota: float, batches_quota: float, now: float
    ) -> tuple[float, float]:
        """This process's parts of a tenant's quotas of readings and of batches per second, each in (0, 1]."""
        if not self.informed:
            return 1 / self.members, 1 / self.members
        rows = [(0.0, 0.0)]
        for name, weight, each in self._reports(tenant, now):
            demand = (each.readings * weight, each.batches * weight)
            if name == self._own:
                rows[0] = demand
            else:
                rows.append(demand)
        if len(rows) == 1:  # nobody else speaks of it, as is usual
            equal = 1 / self.members
            return (1.0 if rows[0][0] else equal), (1.0 if rows[0][1] else equal)
        quota = np.array([readings_quota or 1.0, batches_quota or 1.0])
        readings, batches = divide(np.array(rows), quota, self.members)[0].tolist()
        return readings, batches

    def device_shares(
        self, tenant: TenantId, quota: float, now: float
    ) -> tuple[list[bytes], NDArray[np.float64]]:
        """Uids of the devices that anybody reported, and this process's part of each one's quota, (devices,).

        Of all other devices every process has 1 / members.
        """
        reports = [] if not self.informed else list(self._reports(tenant, now))
        columns: dict[bytes, int] = {}
        for _, _, each in reports:
            for uid in each.devices:
                columns.setdefault(uid, len(columns))
        if not columns:
            return [], np.empty(0)
        demand = np.zeros((1 + len(reports), len(columns)))
        rows = 1
        for name, weight, each in reports:
            row = 0 if name == self._own else rows
            rows += row > 0
            for uid, readings in each.devices.items():
                demand[row, columns[uid]] = readings * weight
        parts = divide(demand[:rows], np.full(len(columns), quota), self.members)
        return list(columns), parts[0]

    def reported_devices(self, tenant: TenantId, now: float) -> set[bytes]:
        """Devices that another process reported: who has any demand of them joins in, or it would count as silent."""
        return {
            uid for name, _, each in self._reports(tenant, now) if name != self._own for uid in each.devices
        }

    def _reports(self, tenant: TenantId, now: float) -> list[tuple[str, float, TenantDemand]]:
        """(process, weight, its demand) of every process that reported the tenant and is not forgotten."""
        found = []
        for name, process in self._processes.items():
            demand = process.tenants.get(tenant)
            age = now - process.seen_at
            if demand is not None and age <= FORGET_SECONDS:
                weight = math.exp(-max(0.0, age - FRESH_SECONDS) / FADE_SECONDS)
                found.append((name, weight, demand))
        return found


def encode(tenants: Sequence[TenantDemand], sequence: int, now_us: int) -> bytes:
    """The value of a report."""
    report = DemandReport(sequence=sequence)
    report.report_time.FromMicroseconds(now_us)
    for each in tenants:
        report.tenants.add(
            tenant_uid=each.tenant,
            readings_per_second=each.readings,
            batches_per_second=each.batches,
            device_uids=b"".join(each.devices),
            device_readings_per_second=each.devices.values(),
        )
    return report.SerializeToString()


def decode(value: bytes) -> tuple[int, int, list[TenantDemand]]:
    """(sequence, time of the report in unix µs, demand) of a report; ValueError when it is none."""
    report = DemandReport.FromString(value)
    tenants = []
    for each in report.tenants:
        packed, rates = each.device_uids, each.device_readings_per_second
        if len(each.tenant_uid) != UID_BYTES or len(packed) != UID_BYTES * len(rates):
            raise ValueError("a uid in the report of demand has not 16 bytes")
        uids = (packed[at : at + UID_BYTES] for at in range(0, len(packed), UID_BYTES))
        tenants.append(
            TenantDemand(
                TenantId(each.tenant_uid),
                _finite(each.readings_per_second),
                _finite(each.batches_per_second),
                dict(zip(uids, map(_finite, rates), strict=True)),
            )
        )
    return report.sequence, report.report_time.ToMicroseconds(), tenants


def _finite(value: float) -> float:
    if not 0.0 <= value < math.inf:
        raise ValueError(f"{value} per second is no demand")
    return value
