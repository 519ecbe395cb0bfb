"""The replica: revisions, tombstones, names that are used again, freshness, and speed of a replay."""

import asyncio
import time

import numpy as np
import pytest

from tidewire.events.v1.registry_change_pb2 import RegistryChange
from tidewire.registry.v1.registry_pb2 import ResolvedDevice
from tidewire.registry.v1.resources_pb2 import Device, Tenant, TenantQuotas
from tidewire_kit.clock import SystemClock
from tidewire_kit.devices import DeviceFacts, DeviceState, Location
from tidewire_kit.directory import Directory
from tidewire_kit.errors import Unavailable
from tidewire_kit.ids import TenantId, Uid, new_uid, partition_of
from tidewire_kit.log.port import TableItem
from tidewire_testkit.clock import ManualClock
from tidewire_testkit.directory import (
    TestDevice,
    TestTenant,
    World,
    device_change,
    heartbeat_change,
    key_change,
    tenant_change,
)
from tidewire_testkit.polling import until
from tidewire_testkit.tokens import new_signer


def test_a_device_is_in_every_column(world: World) -> None:
    tenant = world.add_tenant("acme", TenantQuotas(readings_per_second=5))
    gateway = world.add_device(tenant, "gateway")
    device = world.add_device(tenant, "pump", ancestors=[gateway.uid])
    view = world.directory.tenant(tenant.uid)
    assert view is not None
    assert world.directory.tenant_by_name("acme") is view
    assert view.active
    assert view.quotas.readings_per_second == 5
    table = view.devices
    slot = table.slot_of["pump"]
    assert table.slot_by_uid[device.uid] == slot
    assert table.uids[slot].tobytes() == device.uid
    assert table.partition[slot] == partition_of(tenant.uid, device.uid, 16)
    assert table.admitted[slot]
    assert table.ancestors == {slot: (gateway.uid,)}
    assert table.names[slot] == "pump"


@pytest.mark.parametrize(
    ("state", "admitted"),
    [
        (Device.ACTIVE, True),
        (Device.ENROLLED, True),
        (Device.BLOCKED, False),
        (Device.QUARANTINED, False),
        (Device.RETIRED, False),
        (Device.ERASED, False),
        (99, False),
    ],
)
def test_only_active_and_enrolled_devices_are_admitted(world: World, state: int, admitted: bool) -> None:
    tenant = world.add_tenant("acme")
    world.add_device(tenant, "pump", state=state)  # type: ignore[arg-type]
    assert world.directory.tenant(tenant.uid).devices.admitted[0] == admitted  # type: ignore[union-attr]


def test_a_lower_revision_is_ignored(world: World, clock: ManualClock) -> None:
    tenant = world.add_tenant("acme")
    device = world.add_device(tenant, "pump")
    device.revision = 5
    world.directory.apply(device_change(device, clock, state=Device.BLOCKED))
    device.revision = 4
    world.directory.apply(device_change(device, clock, state=Device.ACTIVE))
    table = world.directory.tenant(tenant.uid).devices  # type: ignore[union-attr]
    assert not table.admitted[table.slot_of["pump"]]
    tenant.revision = 7
    world.directory.apply(tenant_change(tenant, state=Tenant.BLOCKED))
    tenant.revision = 6
    world.directory.apply(tenant_change(tenant, state=Tenant.ACTIVE))
    assert not world.directory.tenant(tenant.uid).active  # type: ignore[union-attr]


def test_a_tombstone_outlives_older_states(world: World, clock: ManualClock) -> None:
    tenant = world.add_tenant("acme")
    device = world.add_device(tenant, "pump")
    credential = world.add_credential(device)
    world.delete_credential(credential)
    world.delete_device(device)
    device.revision = 1
    world.directory.apply(device_change(device, clock))
    table = world.directory.tenant(tenant.uid).devices  # type: ignore[union-attr]
    assert "pump" not in table.slot_of
    assert device.uid not in table.slot_by_uid
    assert world.directory.credential(credential.uid) is None
    world.delete_tenant(tenant)
    tenant.revision = 1
    world.directory.apply(tenant_change(tenant))
    assert world.directory.tenant(tenant.uid) is None
    assert world.directory.tenant_by_name("acme") is None
    kinds = {(tombstone.kind, tombstone.uid) for tombstone in world.directory.tombstones()}
    assert kinds == {("device", device.uid), ("credential", credential.uid), ("tenant", tenant.uid)}


def test_a_name_used_again_has_another_slot(world: World) -> None:
    tenant = world.add_tenant("acme")
    first = world.add_device(tenant, "pump")
    world.delete_device(first)
    second = world.add_device(tenant, "pump")
    table = world.directory.tenant(tenant.uid).devices  # type: ignore[union-attr]
    assert table.slot_of["pump"] == 1
    assert table.uids[1].tobytes() == second.uid
    assert table.uids[0].tobytes() == first.uid
    assert list(table.admitted[:2]) == [False, True]


@pytest.mark.parametrize("older_last", [False, True])
def test_the_order_in_which_a_replay_brings_two_devices_of_one_name_does_not_matter(
    world: World, clock: ManualClock, older_last: bool
) -> None:
    tenant = world.add_tenant("acme")
    older = TestDevice(tenant, new_uid(), "pump")
    states = [device_change(older, clock)]
    clock.advance(60)
    newer = TestDevice(tenant, new_uid(), "pump")
    states.append(device_change(newer, clock))
    older.revision = 2
    tombstone = device_change(older, clock, state=Device.ERASED, deleted=True)
    for change in reversed(states) if older_last else states:
        world.directory.apply(change)
    table = world.directory.tenant(tenant.uid).devices  # type: ignore[union-attr]
    assert table.uids[table.slot_of["pump"]].tobytes() == newer.uid
    world.directory.apply(tombstone)
    assert table.uids[table.slot_of["pump"]].tobytes() == newer.uid


def test_a_tenant_of_a_deleted_ones_name_is_another(world: World) -> None:
    old = world.add_tenant("acme")
    world.set_tenant_state(old, Tenant.DELETING)
    assert world.directory.tenant_by_name("acme") is None
    new = world.add_tenant("acme")
    world.delete_tenant(old)
    assert world.directory.tenant_by_name("acme").uid == new.uid  # type: ignore[union-attr]


def test_devices_may_arrive_before_their_tenant(clock: ManualClock) -> None:
    world = World(clock)
    tenant = TestTenant(TenantId(new_uid()), "acme")
    world.add_device(tenant, "pump")
    assert not world.directory.tenant(tenant.uid).active  # type: ignore[union-attr]
    assert world.directory.tenants() == []
    world.directory.apply(tenant_change(tenant))
    view = world.directory.tenant(tenant.uid)
    assert view is not None
    assert view.active
    assert "pump" in view.devices.slot_of


def test_the_generation_rises_with_what_takes_away_and_only_then(world: World) -> None:
    directory = world.directory
    tenant = world.add_tenant("acme")
    device = world.add_device(tenant, "pump")
    credential = world.add_credential(device)
    world.set_device_state(device, Device.ACTIVE)
    assert directory.generation == 0
    steps = [
        lambda: world.set_device_state(device, Device.BLOCKED),
        lambda: world.delete_credential(credential),
        lambda: world.delete_device(device),
        lambda: world.set_tenant_state(tenant, Tenant.BLOCKED),
        lambda: world.delete_tenant(tenant),
    ]
    for step in steps:
        before = directory.generation
        step()
        assert directory.generation > before


def test_a_removed_key_does_not_come_back(world: World, clock: ManualClock) -> None:
    signer = new_signer(clock)
    world.directory.apply(key_change(signer, revision=3))
    assert world.directory.signing_key(signer.key_id) is not None
    world.directory.apply(key_change(signer, revision=4, deleted=True))
    world.directory.apply(key_change(signer, revision=3))
    assert world.directory.signing_key(signer.key_id) is None


def test_an_answer_of_the_registry_is_merged_by_revision(world: World) -> None:
    tenant = world.add_tenant("acme")
    blocked = world.add_device(tenant, "pump")
    blocked.revision = 9
    world.set_device_state(blocked, Device.BLOCKED)
    uid, parent = new_uid(), new_uid()
    answer = [
        ResolvedDevice(
            device=Device(name="tenants/acme/devices/new", uid=uid.hex(), state=Device.ACTIVE),
            revision=1,
            ancestor_uids=[parent.hex()],
        ),
        ResolvedDevice(
            device=Device(name="tenants/acme/devices/pump", uid=blocked.uid.hex(), state=Device.ACTIVE),
            revision=3,
        ),
    ]
    world.directory.add_resolved(tenant.uid, answer)
    table = world.directory.tenant(tenant.uid).devices  # type: ignore[union-attr]
    assert table.ancestors[table.slot_of["new"]] == (parent,)
    assert not table.admitted[table.slot_of["pump"]]


def test_freshness_is_by_the_local_clock(world: World, clock: ManualClock) -> None:
    assert world.directory.fresh
    clock.advance(7.9)
    assert world.directory.fresh
    clock.advance(0.2)
    assert not world.directory.fresh
    with pytest.raises(Unavailable) as caught:
        world.directory.require_fresh()
    assert caught.value.reason == "REGISTRY_STALE"
    clock.jump(-3600)
    world.heartbeat()
    assert world.directory.fresh


def test_a_replayed_heartbeat_counts_by_its_age(clock: ManualClock) -> None:
    directory = Directory(_Table([]), clock, 16)
    old = heartbeat_change(clock)
    clock.advance(30)
    directory.apply(old)
    assert not directory.fresh
    young = heartbeat_change(clock)
    clock.advance(3)
    directory.apply(young)
    assert directory.fresh
    clock.advance(5.1)
    assert not directory.fresh


def test_changes_are_told_after_they_are_applied(world: World) -> None:
    seen: list[tuple[str | None, bool]] = []
    world.directory.on_change(lambda change: seen.append((change.WhichOneof("object"), change.deleted)))
    tenant = world.add_tenant("acme")
    device = world.add_device(tenant, "pump")
    world.delete_device(device)
    device.revision = 1
    world.delete_device(TestDevice(tenant, device.uid, "pump", revision=0))
    world.heartbeat()
    assert seen == [("tenant", False), ("device", False), ("device", True)]


async def test_it_follows_a_table_and_survives_an_unreadable_entry(clock: ManualClock) -> None:
    tenant = TestTenant(TenantId(new_uid()), "acme")
    far_off = tenant_change(TestTenant(TenantId(new_uid()), "far-off"))
    far_off.tenant.retention.raw_duration.seconds = 1 << 62  # valid protobuf, and beyond any calendar
    items: list[TableItem] = [
        (b"x/device/y", b"\xff\xff"),
        (b"x/tenant/y", far_off.SerializeToString()),
        (b"k", tenant_change(tenant).SerializeToString()),
    ]
    directory = Directory(_Table([items]), clock, 16)
    await directory.start()
    async with asyncio.timeout(5):
        await directory.ready()
    assert directory.tenant_by_name("acme") is not None
    await directory.close()


async def test_a_removed_key_of_the_topic_ends_a_tombstone(clock: ManualClock) -> None:
    tenant = TestTenant(TenantId(new_uid()), "acme")
    key = f"{tenant.uid.hex()}/tenant/{tenant.uid.hex()}".encode()
    table = _Table([[(key, tenant_change(tenant, deleted=True).SerializeToString())]])
    directory = Directory(table, clock, 16)
    await directory.start()
    await directory.ready()
    assert len(directory.tombstones()) == 1
    table.put((key, None))
    await until(lambda: not directory.tombstones())
    await directory.close()


def test_facts_are_kept_where_asked_for(clock: ManualClock) -> None:
    world = World(clock, device_facts=True)
    tenant = world.add_tenant("acme")
    gateway = world.add_device(tenant, "gateway", state=Device.BLOCKED)
    pump = world.add_device(
        tenant,
        "pump",
        ancestors=[gateway.uid],
        type="pump",
        labels={"site": "north", "floor": "3"},
        parent_id="gateway",
        location=(1.5, -2.5),
    )
    table = world.directory.tenant(tenant.uid).devices  # type: ignore[union-attr]
    slot = table.slot_of["pump"]
    now_us = clock.now_us()
    assert table.facts[slot] == DeviceFacts(
        "pump",
        "pump",
        {"site": "north", "floor": "3"},
        "gateway",
        Location(1.5, -2.5),
        DeviceState.ACTIVE,
        now_us,
        now_us,
        (gateway.uid,),
    )
    assert table.facts[table.slot_of["gateway"]].state == DeviceState.BLOCKED  # type: ignore[union-attr]
    assert table.labels_of(slot) == {"site": "north", "floor": "3"}
    assert table.labels_of(table.slot_of["gateway"]) == {}
    version = table.version
    pump.labels, pump.location, pump.revision = {"site": "south"}, None, 3
    world.directory.apply(device_change(pump, clock))
    assert table.labels_of(slot) == {"site": "south"}
    assert table.facts[slot].location is None  # type: ignore[union-attr]
    assert table.version > version
    pump.labels, pump.revision = {"site": "old"}, 2
    world.directory.apply(device_change(pump, clock))
    assert table.labels_of(slot) == {"site": "south"}, "an older revision"
    version = table.version
    world.delete_device(pump)
    assert table.facts[slot] is None
    assert table.labels_of(slot) == {}
    assert table.version > version


def test_facts_of_a_device_that_the_registry_resolved(clock: ManualClock) -> None:
    world = World(clock, device_facts=True)
    tenant = world.add_tenant("acme")
    device = Device(name="tenants/acme/devices/pump", uid="11" * 16, state=Device.ACTIVE, type="pump")
    device.labels["site"] = "north"
    world.directory.add_resolved(tenant.uid, [ResolvedDevice(device=device, revision=1)])
    table = world.directory.tenant(tenant.uid).devices  # type: ignore[union-attr]
    assert table.labels_of(table.slot_of["pump"]) == {"site": "north"}


def test_facts_are_not_kept_otherwise(world: World) -> None:
    tenant = world.add_tenant("acme")
    world.add_device(tenant, "pump", type="pump", labels={"site": "north"})
    table = world.directory.tenant(tenant.uid).devices  # type: ignore[union-attr]
    assert table.facts == [None]
    assert table.labels_of(0) == {}


async def test_a_hundred_thousand_devices_are_replayed_whole() -> None:
    clock = SystemClock()
    tenant = TestTenant(TenantId(new_uid()), "acme")
    changes: list[RegistryChange] = [tenant_change(tenant)]
    uids = np.random.default_rng(1).integers(0, 256, (100_000, 16), dtype=np.uint8)
    changes += [
        device_change(TestDevice(tenant, Uid(uid.tobytes()), f"device-{number}"), clock)
        for number, uid in enumerate(uids)
    ]
    items = [(b"k", change.SerializeToString()) for change in changes]
    batches = [items[start : start + 4096] for start in range(0, len(items), 4096)]
    directory = Directory(_Table(batches), clock, 16)
    began = time.perf_counter()
    await directory.start()
    await directory.ready()
    print(f"replayed 100,000 devices in {time.perf_counter() - began:.2f} s")
    table = directory.tenant(tenant.uid).devices  # type: ignore[union-attr]
    assert len(table.slot_of) == 100_000
    slots = [table.slot_of[f"device-{number}"] for number in range(100_000)]
    assert np.array_equal(table.uids[slots], uids)
    assert table.admitted[slots].all()
    await directory.close()


class _Table:
    """A table reader over given batches, which a test may add to."""

    def __init__(self, batches: list[list[TableItem]]) -> None:
        self._batches = [*batches, []]
        self._more: asyncio.Queue[list[TableItem]] = asyncio.Queue()
        self.caught_up = asyncio.Event()

    def table(self, topic: str) -> "_Table":
        return self

    def put(self, item: TableItem) -> None:
        self._more.put_nowait([item])

    async def __aiter__(self):  # type: ignore[no-untyped-def]
        for batch in self._batches:
            yield batch
        while True:
            yield await self._more.get()

    async def close(self) -> None:
        pass
