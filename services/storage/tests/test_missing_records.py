"""Stores restored from a copy older than the log's beginning: what lies between is lost, and that is said."""

import shutil
from collections.abc import Callable

import pytest

from tidewire_kit import topics
from tidewire_kit.log.embedded.going_on import TopicEnd, begin_log
from tidewire_testkit.polling import until

T0 = 1_700_000_000_000_000


@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
async def test_records_that_the_log_no_longer_has_are_counted(new_rig: Callable) -> None:
    rig = new_rig()
    device = rig.world.add_device(rig.world.add_tenant("acme"), "d")
    await rig.start()
    for step in range(5):
        await rig.publish(device, ["m"], [(T0 + step, [1.0])])
    await rig.settled()
    assert rig.owner.stats.missing_records == 0
    incarnation = rig.log.incarnation(topics.TELEMETRY)
    await rig.stop()

    shutil.rmtree(rig.path / "log")
    offsets = [0, 0, 0, 0]
    offsets[rig.partition(device)] = 5 + 37  # as if so many had been removed by retention
    specs = {spec.name: spec for spec in topics.specs(4)}
    begin_log(rig.path / "log", {specs[topics.TELEMETRY]: TopicEnd(incarnation, tuple(offsets))})
    await rig.start()
    await until(lambda: rig.owner.stats.missing_records == 37, seconds=30)
    await rig.publish(device, ["m"], [(T0 + 100, [2.0])])
    await rig.settled()
    assert await rig.read(device) == {(T0 + step, "m"): 1.0 for step in range(5)} | {(T0 + 100, "m"): 2.0}
    assert rig.owner.stats.missing_records == 37
