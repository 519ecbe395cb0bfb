"""Selecting devices by filter, against a dictionary of what they are."""

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from tidewire.registry.v1.resources_pb2 import Device
from tidewire_kit.errors import FailedPrecondition, InvalidArgument, NotFound
from tidewire_storage.application import names as names_module
from tidewire_storage.application.names import Names
from tidewire_testkit.clock import ManualClock
from tidewire_testkit.directory import TestDevice, TestTenant, World, device_change

Facts = Mapping[str, Any]
FILTERS: dict[str, Callable[[Facts], bool]] = {
    "": lambda d: True,
    "type = pump": lambda d: d["type"] == "pump",
    "type != pump": lambda d: d["type"] != "pump",
    "NOT type = pump": lambda d: d["type"] != "pump",
    "type = p*": lambda d: d["type"].startswith("p"),
    "labels.site = s1": lambda d: d["labels"].get("site") == "s1",
    "labels.site != s1": lambda d: d["labels"].get("site", "s1") != "s1",
    "labels:floor": lambda d: "floor" in d["labels"],
    "labels.site = s* AND labels.floor >= 2": lambda d: (
        d["labels"].get("site", "").startswith("s") and d["labels"].get("floor", "") >= "2"
    ),
    "labels.site = s1 OR type = valve": lambda d: d["labels"].get("site") == "s1" or d["type"] == "valve",
    "state = BLOCKED": lambda d: d["state"] == Device.BLOCKED,
    "parent = d00": lambda d: d["parent_id"] == "d00",
    'ancestor("tenants/acme/devices/d00")': lambda d: d["parent_id"] == "d00",
    'ancestor("nowhere")': lambda d: False,
    "name >= d10 AND name < d20": lambda d: "d10" <= d["id"] < "d20",
    "location:*": lambda d: d["location"] is not None,
    "location.latitude > 0": lambda d: d["location"] is not None and d["location"][0] > 0,
    "within_box(-10, -10, 10, 10)": lambda d: (
        d["location"] is not None and max(map(abs, d["location"])) <= 10
    ),
    'create_time < "2000-01-01T00:00:00Z"': lambda d: False,
}


class Fleet:
    """Forty devices of one tenant, in the replica and as dictionaries."""

    def __init__(self) -> None:
        self.chance = random.Random(4)
        self.world = World(ManualClock(), device_facts=True)
        self.tenant: TestTenant = self.world.add_tenant("acme")
        self.devices: dict[str, TestDevice] = {}
        self.model: dict[str, Facts] = {}
        self.names = Names(self.world.directory)
        for number in range(40):
            self.put(f"d{number:02}")

    def put(self, device_id: str) -> None:
        """Adds a device, or makes it another kind of one."""
        choose = self.chance.choice
        parent = "d00" if self.devices and device_id != "d00" and choose((True, False)) else ""
        facts = {
            "type": choose(("", "pump", "pump-2", "valve")),
            "labels": {
                key: choose(("", "s1", "s2", "3")) for key in ("site", "floor") if choose((True, False))
            },
            "parent_id": parent,
            "location": choose((None, (1.0, 2.0), (-5.0, 9.0), (50.0, 8.0))),
        }
        state = choose((Device.ACTIVE, Device.ENROLLED, Device.BLOCKED))
        ancestors = (self.devices["d00"].uid,) if parent else ()
        held = self.devices.get(device_id)
        if held is None:
            self.devices[device_id] = self.world.add_device(
                self.tenant, device_id, state=state, ancestors=ancestors, **facts
            )
        else:
            for name, value in {**facts, "ancestors": ancestors, "revision": held.revision + 1}.items():
                setattr(held, name, value)
            self.world.directory.apply(device_change(held, self.world.clock, state=state))
        self.model[device_id] = {"id": device_id, "state": state, **facts}

    def delete(self, device_id: str) -> None:
        """Deletes a device."""
        self.world.delete_device(self.devices.pop(device_id))
        del self.model[device_id]

    async def check(self) -> None:
        """Every filter selects what the model does."""
        for text, admits in FILTERS.items():
            found = await self.names.select(self.tenant.uid, filter_text=text)
            assert list(found.ids) == sorted(key for key, facts in self.model.items() if admits(facts)), text
            assert found.uids() == [self.devices[name].uid for name in found.ids]
            numbers = [number for _, some in found.by_partition() for number in some.tolist()]
            assert sorted(numbers) == list(range(len(found)))
            values, of = found.label_values("site")
            assert [values[number] for number in of] == [
                self.model[name]["labels"].get("site", "") for name in found.ids
            ]
            assert values == sorted(set(values))


@pytest.mark.parametrize("inline", [0, 2_000])
async def test_filters_select_what_a_dictionary_does(inline: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_module, "_INLINE_DEVICES", inline)
    fleet = Fleet()
    other = fleet.world.add_tenant("other")
    fleet.world.add_device(other, "d01", type="pump", labels={"site": "s1"})
    await fleet.check()
    await fleet.check()
    for _ in range(4):
        for name in fleet.chance.sample(sorted(fleet.devices), 5):
            if name != "d00":
                fleet.put(name)
        await fleet.check()
    for name in ("d07", "d11", "d39"):
        fleet.delete(name)
    fleet.put("d07")
    await fleet.check()


async def test_devices_by_id() -> None:
    fleet = Fleet()
    found = await fleet.names.select(fleet.tenant.uid, ["d03", "d01", "d03"])
    assert list(found.ids) == ["d01", "d03"]
    assert found.uids() == [fleet.devices["d01"].uid, fleet.devices["d03"].uid]
    assert list(found.starting_at("d02").ids) == ["d03"]
    with pytest.raises(NotFound, match="tenants/acme/devices/nowhere"):
        await fleet.names.select(fleet.tenant.uid, ["d01", "nowhere"])
    with pytest.raises(InvalidArgument, match="without devices"):
        await fleet.names.select(fleet.tenant.uid, ["d01"], "type = pump")
    with pytest.raises(InvalidArgument, match="at position 1: "):
        await fleet.names.select(fleet.tenant.uid, filter_text="type pump")
    fleet.world.delete_tenant(fleet.tenant)
    with pytest.raises(FailedPrecondition):
        await fleet.names.select(fleet.tenant.uid)


async def test_what_is_kept_is_bounded() -> None:
    fleet = Fleet()
    for number in range(100):
        text = f'name = "d{number % 40:02}" OR name = "x{number}"'
        found = await fleet.names.select(fleet.tenant.uid, filter_text=text)
        assert list(found.ids) == [f"d{number % 40:02}"]
    assert len(fleet.names._kept) <= names_module._MOST_KEPT
    assert np.array_equal(found.slots, [fleet.names.tenant(fleet.tenant.uid).devices.slot_of["d19"]])
