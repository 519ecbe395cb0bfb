"""What was acknowledged of one partition and what was deleted: it outlives every owner, and says what must be visible.

No log and no loop of an owner: records are a list, so that a test can stop an owner between any two steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tidewire_kit import topics
from tidewire_kit.directory import Retention
from tidewire_kit.ids import TenantId, new_uid
from tidewire_kit.log.port import LogRecord
from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_storage.domain.rollups import DAY_US
from tidewire_testkit.clock import START_US, ManualClock
from tidewire_testkit.directory import TestDevice, TestTenant, World, device_change, tenant_change
from tidewire_testkit.telemetry import make_table, record_value

PARTITION = (topics.TELEMETRY, 0)
DAY0 = START_US // DAY_US * DAY_US
ANCIENT = DAY0 - 30 * DAY_US
"""Event times that the retention of one tenant does not keep."""
_KEPT_DAYS = 10
Readings = dict[tuple[int, str], float]


@dataclass(frozen=True, slots=True)
class Arrived:
    """A row that was acknowledged."""

    offset: int
    device: str
    time_us: int
    values: tuple[tuple[str, float], ...]
    again: bool
    """Its batch was there before."""


@dataclass(slots=True)
class History:
    """What was acknowledged of partition 0 and what was deleted; it outlives every owner."""

    names: Sequence[str]
    """`tenant.device` of all devices. Those of the tenant `brief` are kept for ten days."""
    incarnation: bytes = field(default_factory=new_uid)
    tenants: dict[str, TestTenant] = field(default_factory=dict)
    devices: dict[str, TestDevice] = field(default_factory=dict)
    records: list[LogRecord] = field(default_factory=list)
    arrived: list[Arrived] = field(default_factory=list)
    batches: dict[str, bytes] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    """Names of tenants and devices."""
    expired: bool = False
    """Ancient readings of the tenant `brief` have been removed."""

    @property
    def place(self) -> TopicPartitionKey:
        return TopicPartitionKey(self.incarnation, 0)

    def __post_init__(self) -> None:
        if self.devices:
            return
        for name in self.names:
            tenant_id, device_id = name.split(".")
            tenant = self.tenants.setdefault(tenant_id, TestTenant(TenantId(new_uid()), tenant_id))
            self.devices[name] = TestDevice(tenant, new_uid(), device_id)

    def fork(self) -> "History":
        """The same up to now; what comes later is only here or only there."""
        mine = (list(self.records), list(self.arrived), dict(self.batches), set(self.deleted), self.expired)
        return History(self.names, self.incarnation, self.tenants, self.devices, *mine)

    def publish(
        self, name: str, batch: str, metrics: Sequence[str], rows: Sequence[tuple[int, Sequence[float]]]
    ) -> None:
        """Acknowledges a batch; one of a name that was there is a retry, and has to have the same rows."""
        device = self.devices[name]
        again = batch in self.batches
        batch_id = self.batches.setdefault(batch, new_uid())
        data = [(device.uid, time, values) for time, values in rows]
        table = make_table(device.tenant.uid, tuple(metrics), data, batch_id=batch_id)
        offset = len(self.records)
        value = record_value(table)
        self.records.append(LogRecord(*PARTITION, offset, START_US + offset, b"", value))
        for time, values in rows:
            cells = tuple((m, v) for m, v in zip(metrics, values, strict=True) if v == v)
            self.arrived.append(Arrived(offset, name, time, cells, again))

    def world(self) -> World:
        """A directory that knows what is there now, and what was deleted."""
        world = World(ManualClock(START_US), 1, device_facts=True)
        for name, tenant in self.tenants.items():
            tenant.revision = 1
            world.directory.apply(tenant_change(tenant))
            if name == "brief":
                view = world.directory.tenant(tenant.uid)
                assert view is not None
                view.retention = Retention(raw_seconds=_KEPT_DAYS * 86400.0)
        for device in self.devices.values():
            device.revision = 1
            world.directory.apply(device_change(device, world.clock))
        self.tell_deleted(world)
        return world

    def tell_deleted(self, world: World) -> None:
        """The tombstones."""
        for name in sorted(self.deleted):
            if name in self.devices:
                world.delete_device(self.devices[name])
            else:
                world.delete_tenant(self.tenants[name])

    def gone(self, name: str) -> bool:
        """Whether a device or its tenant was deleted."""
        return name in self.deleted or name.split(".")[0] in self.deleted

    def readings(self, name: str, before: int | None = None) -> Readings:
        """What has to be visible of a device when everything before an offset (None: all) is stored."""
        found: Readings = {}
        for row in self.arrived:
            too_old = self.expired and name.startswith("brief.") and row.time_us < ANCIENT + DAY_US
            there = row.device == name and not row.again and not too_old
            if there and (before is None or row.offset < before):
                found |= {(row.time_us, metric): value for metric, value in row.values}
        return {} if self.gone(name) else found

    def accepted(self) -> int:
        """Readings acknowledged, duplicates included."""
        return sum(len(row.values) for row in self.arrived)
