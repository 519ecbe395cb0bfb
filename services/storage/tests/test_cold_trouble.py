"""The cold tier when object storage is away, and when work is broken off. Runs on both stores."""

from typing import Any

import pytest
from cold_days import (
    DAY0,
    SECOND,
    Model,
    added_up,
    levels,
    merged,
    moved,
    objects,
    place_of,
    publish,
    two_days,
)

from tidewire_kit.errors import Unavailable
from tidewire_storage.adapters.cold import DirectoryColdStore
from tidewire_storage.application.cold_upkeep import audit
from tidewire_storage.domain.blocks import COLD_BLOCK
from tidewire_storage.domain.rollups import DAY_US
from tidewire_storage.ports import ColdUnavailable


class Failing(DirectoryColdStore):
    """Fails as long as it is told to; `after`: so many puts go well first."""

    down = False
    keeps = False
    """Removes nothing."""
    after = 1 << 30

    async def put(self, name: str, data: bytes) -> None:
        self.after -= 1
        if self.down or self.after < 0:
            raise ColdUnavailable("no route")
        await super().put(name, data)

    async def ranges(self, name: str, ranges: Any) -> Any:
        if self.down:
            raise ColdUnavailable("no route")
        return await super().ranges(name, ranges)

    async def remove(self, names: Any) -> None:
        if self.down or (self.keeps and names):
            raise ColdUnavailable("no route")
        await super().remove(names)


async def failing(rig: Any) -> Failing:
    """The rig again, over a place that can fail."""
    await rig.stop()
    rig.new_cold_store = lambda: Failing(rig.path / "cold")
    await rig.start()
    assert isinstance(rig.cold_store, Failing)
    return rig.cold_store


async def test_while_the_object_storage_is_away_other_days_are_read(rig: Any) -> None:
    cold = await failing(rig)
    device = rig.world.add_device(rig.world.add_tenant("acme"), "d")
    old: Model = {}
    new: Model = {}
    await publish(rig, device, old, [(DAY0, [1.0, 2.0])])
    await moved(rig, device)
    await publish(rig, device, new, [(DAY0 + 9 * DAY_US, [3.0, 4.0])])
    await merged(rig)
    cold.down = True
    assert await rig.read(device, start_us=DAY0 + DAY_US) == new
    with pytest.raises(Unavailable, match="TIDEWIRE_STORAGE_COLD_URL"):
        await rig.read(device)
    with pytest.raises(Unavailable):
        await rig.cold.round()
    assert await rig.read(device, start_us=DAY0 + DAY_US) == new, (
        "nothing is dropped before its object is there"
    )
    cold.down = False
    await rig.cold.round()
    assert await rig.read(device) == old | new
    assert await levels(rig, device) == [COLD_BLOCK, COLD_BLOCK]
    await added_up(rig, device)


async def test_a_move_that_was_broken_off_leaves_objects_that_are_removed(rig: Any) -> None:
    cold = await failing(rig)
    device = rig.world.add_device(rig.world.add_tenant("acme"), "d")
    model: Model = {}
    await publish(rig, device, model, two_days())
    cold.after = 1
    with pytest.raises(Unavailable):
        await moved(rig, device)
    assert len(objects(rig)) == 1
    assert await rig.read(device) == model
    cold.after = 1 << 30
    await rig.cold.round()
    assert len(objects(rig)) == 3
    args = rig.store, rig.directories, cold, [device.tenant.uid], range(4)
    now_us = rig.clock.now_us() + SECOND
    assert (await audit(*args, now_us)).removed == 0, "another process may be about to name it"
    found = await audit(*args, now_us, orphan_seconds=0)
    assert (found.objects, found.removed, found.missing, found.readings) == (2, 1, 0, len(model))
    assert await rig.read(device) == model
    await added_up(rig, device)
    objects(rig)[0].unlink()
    assert (await audit(*args, now_us)).missing == 1


async def test_what_is_killed_after_the_change_leaves_no_row_twice(rig: Any) -> None:
    cold = await failing(rig)
    device = rig.world.add_device(rig.world.add_tenant("acme"), "d")
    model: Model = {}
    for value in (1.0, 2.0):
        await publish(rig, device, model, [(DAY0, [value, value]), (DAY0 + int(value), [value, value])])
        await moved(rig, device)
    cold.keeps = True
    with pytest.raises(Unavailable):
        await rig.cold.fold(device.tenant.uid, place_of(rig, device))
    await rig.stop()
    await rig.start()
    assert len(objects(rig)) == 3
    assert await rig.read(device) == model
    await added_up(rig, device)
    now_us = rig.clock.now_us() + SECOND
    args = rig.store, rig.directories, rig.cold_store, [device.tenant.uid], range(4), now_us
    assert (await audit(*args, orphan_seconds=0)).removed == 2
    assert await rig.read(device) == model
