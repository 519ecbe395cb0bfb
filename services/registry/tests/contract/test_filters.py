"""The contract of `RegistryStore` on filters: it admits what plain Python admits, whatever plan it finds."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidewire.events.v1.registry_change_pb2 import RegistryChange
from tidewire_kit.directory import Directory
from tidewire_kit.filter import conditions as c
from tidewire_kit.filter import parse
from tidewire_kit.filter.evaluation import admits, predicate_of
from tidewire_kit.filter.geometry import box_around, distance_meters
from tidewire_kit.ids import TenantId, new_uid
from tidewire_registry.adapters.log_topic import _message
from tidewire_registry.domain.devices import Device, DeviceState, Location
from tidewire_registry.ports import RegistryStore, WriteSet
from tidewire_testkit.clock import ManualClock

IDS = ["a", "aB", "a.b", "a:1", "b", "b-2", "B", "0", "gw", "gw-1", "zz", "Z_z"]
TYPES = ["", "pump", "pump-2", "valve"]
KEYS = ["site", "a.b", "n-1"]
VALUES = ["", "s1", "s2", "s10", "é", "e", "S1", "\U0001f30a", "a*b", "%", "_"]
PLACES = [None, (0.0, 0.0), (1.0, 179.9), (-1.0, -179.9), (89.9, 10.0), (-45.5, 12.25), (90.0, -180.0)]
TIMES = [1_000_000, 2_000_000, 3_000_000]

texts = st.sampled_from(["", "a", "a.", "g", "pump", "s", "s1", "é", "\U0001f30a", "gw", "zzz", "\U0010ffff"])
operators = st.sampled_from(list(c.Operator))
degrees = st.floats(-90, 90, allow_nan=False).map(lambda x: round(x, 1))
turns = st.floats(-180, 180, allow_nan=False).map(lambda x: round(x, 1))
leaves = st.one_of(
    st.builds(c.TextIs, st.sampled_from(list(c.TextField)), operators, st.sampled_from(IDS + TYPES)),
    st.builds(c.TextStartsWith, st.sampled_from(list(c.TextField)), texts),
    st.builds(c.LabelIs, st.sampled_from([*KEYS, "none"]), operators, st.sampled_from(VALUES)),
    st.builds(c.LabelStartsWith, st.sampled_from([*KEYS, "none"]), texts),
    st.builds(
        c.NumberIs,
        st.sampled_from([c.NumberField.LATITUDE, c.NumberField.LONGITUDE]),
        operators,
        st.sampled_from([0.0, 1.0, 179.9, -45.5]),
    ),
    st.builds(
        c.NumberIs,
        st.sampled_from([c.NumberField.CREATE_TIME, c.NumberField.UPDATE_TIME]),
        operators,
        st.sampled_from(TIMES),
    ),
    st.just(c.HasLocation()),
    st.builds(c.StateIs, st.sampled_from(list(DeviceState))),
    st.builds(c.HasAncestor, st.sampled_from(IDS)),
    st.builds(c.WithinBox, degrees, turns, degrees, turns),
    st.builds(c.WithinRadius, degrees, turns, st.sampled_from([0.0, 1.0, 5e4, 5e6, 3e7])),
)
conditions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(c.Not, inner),
        st.builds(c.And, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(c.Or, st.lists(inner, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=8,
)


def fleet(tenant: TenantId, make, chance: random.Random) -> list[Device]:
    """A device for each id, in a tree: each hangs below one before it, or is a root."""
    devices: list[Device] = []
    for id_ in IDS:
        place = chance.choice(PLACES)
        device = make.device(
            tenant,
            id_,
            chance.choice([None, *devices]),
            type=chance.choice(TYPES),
            labels={key: chance.choice(VALUES) for key in KEYS if chance.random() < 0.6},
            location=Location(*place) if place else None,
        )
        device.created_us, device.updated_us = chance.choice(TIMES), chance.choice(TIMES)
        device.state = chance.choice([DeviceState.ENROLLED, DeviceState.ACTIVE, DeviceState.BLOCKED])
        devices.append(device)
    return devices


async def check(store: RegistryStore, devices: Sequence[Device], condition: c.Condition) -> None:
    tenant = devices[0].tenant
    uids = {device.id: device.uid for device in devices}
    expected = sorted(d.id for d in devices if admits(condition, d, uids.get))
    listed = await store.list_devices(tenant, condition, "", 1000)
    assert [device.id for device in listed.items] == expected
    assert await store.count_devices(tenant, condition) == len(expected)
    seen: list[str] = []
    while True:
        page = await store.list_devices(tenant, condition, seen[-1] if seen else "", 2)
        seen += [device.id for device in page.items]
        if not page.more:
            break
    assert seen == expected


async def check_many(store: RegistryStore, make, seed: int, examples: int) -> None:
    tenant = await make.stored_tenant(store, "acme")
    other = await make.stored_tenant(store, "other")
    devices = fleet(tenant, make, random.Random(seed))
    await store.commit(tenant, WriteSet(puts=devices))
    await store.commit(other, WriteSet(puts=fleet(other, make, random.Random(7))))

    drawn: list[c.Condition] = []

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(conditions)
    def draw(condition: c.Condition) -> None:
        drawn.append(condition)

    draw()
    assert len(drawn) > examples // 3
    for condition in drawn:
        try:
            await check(store, devices, condition)
        except AssertionError as error:
            raise AssertionError(f"{condition}: {error}") from error


@pytest.mark.timeout(180, func_only=True)
@pytest.mark.parametrize("seed", [1, 2])
async def test_a_store_admits_what_plain_python_admits(store, make, seed: int) -> None:
    await check_many(store, make, seed, examples=60)


@pytest.mark.parametrize("new_store", ["embedded"], indirect=True)
@pytest.mark.parametrize("sparse", [4096, 3, 0])
async def test_each_plan_of_the_embedded_store_does_so(store, make, sparse: int, monkeypatch) -> None:
    """With `sparse` the embedded store's choice of plan is shifted, so that each plan meets every condition."""
    monkeypatch.setattr("tidewire_registry.adapters.embedded.queries.SPARSE", sparse)
    await check_many(store, make, sparse, examples=250)


@settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(conditions, st.integers(0, 3))
def test_a_replica_admits_what_the_registry_does(make, condition: c.Condition, seed: int) -> None:
    tenant = TenantId(new_uid())
    devices = fleet(tenant, make, random.Random(seed))
    replica = Directory(_NoLog(), ManualClock(), 4, device_facts=True)
    for device in devices:
        replica.apply(RegistryChange.FromString(_message(device, "acme").SerializeToString()))
    table = replica.tenant(tenant).devices  # type: ignore[union-attr]
    facts = [table.facts[table.slot_of[device.id]] for device in devices]
    uids = {device.id: device.uid for device in devices}
    test = predicate_of(condition, uids.get)
    assert [test(one) for one in facts] == [admits(condition, device, uids.get) for device in devices]


class _NoLog:
    """Nothing is read from it."""

    def table(self, topic: str):
        raise AssertionError


EQUALITIES = [
    "labels.site = s1",
    "labels.site = s1 AND type = pump",
    "labels.site = s1 AND labels.n-1 = s2",
    'labels.site = s1 AND labels.site = "é"',
    "type = pump AND state = ACTIVE AND parent = gw AND labels.site = s1",
    "labels.site = s1 OR type = valve",
    "type = pump OR (labels.site = s1 AND state = BLOCKED)",
    'state = ENROLLED AND ancestor("a")',
    'labels.site = s1 AND ancestor("a") AND name >= b',
    "name = gw OR type = pump",
    "name = gw AND type = pump",
    "name = g* AND state = ACTIVE",
    "name > a AND name <= gw AND NOT state = BLOCKED",
]


@pytest.mark.parametrize("text", EQUALITIES)
async def test_conditions_for_which_a_store_may_have_an_index(store, make, text: str) -> None:
    tenant = await make.stored_tenant(store, "acme")
    devices = fleet(tenant, make, random.Random(3))
    await store.commit(tenant, WriteSet(puts=devices))
    changed = [
        replace(device, labels={"site": "s1"}, type="pump", state=DeviceState.ACTIVE, revision=2)
        for device in devices[::2]
    ]
    await store.commit(tenant, WriteSet(puts=changed))
    condition = parse(text, "acme")
    assert condition is not None
    present = {device.id: device for device in (*devices, *changed)}
    await check(store, list(present.values()), condition)


def test_a_circle_lies_in_its_box() -> None:
    chance = random.Random(5)
    for _ in range(3000):
        latitude, longitude = chance.uniform(-90, 90), chance.uniform(-180, 180)
        meters = 10 ** chance.uniform(0, 7.4)
        box = box_around(latitude, longitude, meters)
        place = chance.uniform(-90, 90), chance.uniform(-180, 180)
        if chance.random() < 0.7:  # near the edge
            place = latitude + chance.uniform(-1, 1) * meters / 111_000, longitude + chance.uniform(-1, 1)
            place = max(-90.0, min(90.0, place[0])), (place[1] + 180) % 360 - 180
        if distance_meters(*place, latitude, longitude) > meters:
            continue
        device = Device(
            TenantId(new_uid()),
            new_uid(),
            "d",
            "",
            "",
            {},
            "",
            Location(*place),
            DeviceState.ACTIVE,
            1,
            1,
            1,
            (),
        )
        assert admits(box, device, lambda _: None), (latitude, longitude, meters, place, box)
