"""Storage killed with SIGKILL again and again while it stores, seals and merges: each reading once, ledger at zero."""

import asyncio
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tidewire_kit import topics
from tidewire_kit.ids import new_uid
from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_storage.domain.rollups import DAY_US
from tidewire_testkit.polling import until

SCRIPT = Path(__file__).with_name("storage_process.py")
T0 = 1_700_000_000_000_000
KILLS = 5


@pytest.mark.timeout(120)
async def test_killed_at_any_moment_it_stores_every_reading_once(new_rig) -> None:
    rig = new_rig()
    await rig.start(own=False)
    rng = random.Random(7)
    tenant = rig.world.add_tenant("acme")
    devices = [rig.world.add_device(tenant, f"d{number}") for number in range(8)]
    expected: dict[str, dict[tuple[int, str], float]] = {device.id: {} for device in devices}
    sent = 0
    duplicates = 0
    killing = True

    async def publish() -> None:
        nonlocal sent, duplicates
        step = 0
        while killing:
            device = rng.choice(devices)
            batch = new_uid()
            rows = [(T0 + step * 10 + n, [float(step), float(n)]) for n in range(rng.randint(1, 5))]
            await rig.publish(device, ["x", "y"], rows, batch)
            if rng.random() < 0.2:  # the acknowledgement was lost, and the publisher tries again
                await rig.publish(device, ["x", "y"], rows, batch)
                duplicates += 2 * len(rows)
            for time, (x, y) in rows:
                expected[device.id][time, "x"] = x
                expected[device.id][time, "y"] = y
            sent += 2 * len(rows)
            step += 1
            await asyncio.sleep(0.001)

    publishing = asyncio.create_task(publish())

    places = {TopicPartitionKey(_incarnation(rig), rig.partition(device)) for device in devices}

    async def every_partition_sealed() -> bool:
        epochs = [await rig.store.epochs(place) for place in places]
        return all(len(of_place) > 1 and of_place[0].sealed for of_place in epochs)

    for number in range(KILLS):
        process = await asyncio.to_thread(_start, rig)
        if number == 0:
            await until(
                every_partition_sealed, seconds=60, message="the first process seals an epoch everywhere"
            )
        else:
            await asyncio.sleep(rng.uniform(0.02, 0.3))
        process.kill()
        await asyncio.to_thread(process.communicate)
    killing = False
    await publishing

    await rig.owner.start()
    await rig.settled()
    for device in devices:
        assert await rig.read(device) == expected[device.id]

    async def all_sealed() -> bool:  # the partitions of the process that was killed last are ours before long
        await rig.sealing.round()
        cut = [epoch for place in places for epoch in (await rig.store.epochs(place))[:-1]]
        return all(epoch.sealed for epoch in cut)

    await until(all_sealed, seconds=30, message="everything that was cut is sealed")
    for device in devices:
        assert await rig.read(device) == expected[device.id]
    (line_sum,) = [_sums((await rig.accounts.ledger(tenant.uid, 0, 1 << 62)).account.lines)]
    assert line_sum == (sent + duplicates, sent, duplicates, sent), (
        "nothing twice, even where reading would hide it"
    )
    assert await rig.difference() == 0
    await rig.merging.round()
    assert await rig.merging.round() == 0
    for device in devices:
        assert await rig.read(device) == expected[device.id]
        place = TopicPartitionKey(_incarnation(rig), rig.partition(device))
        day = (tenant.uid, place, [device.uid], ["x", "y"], 0, 1 << 60, DAY_US)
        found = await rig.buckets.of(*day)
        assert found.tier is not None
        for metric in ("x", "y"):
            values = [value for (_, name), value in expected[device.id].items() if name == metric]
            assert found.parts[metric].count.tolist() == [len(values)]
            assert found.parts[metric].total.tolist() == [sum(values)]
    assert await rig.difference() == 0
    last_times = {
        (device_id, metric): max(time for time, name in readings if name == metric)
        for device_id, readings in expected.items()
        for metric in {name for _, name in readings}
    }

    async def latest_known() -> bool:  # series states follow their blocks after `series_seconds`
        entries = (await rig.series.page(tenant.uid, [], [], 1000, "")).entries
        return {(entry.device_id, entry.metric): entry.last_us for entry in entries} == last_times

    await until(latest_known, seconds=30, message="every series knows its last reading")
    for place in places:
        *cut, _ = await rig.store.epochs(place)
        assert cut
        assert all(epoch.complete for epoch in cut)


def _start(rig) -> subprocess.Popen[str]:
    keyspace = [] if rig.keyspace is None else [rig.keyspace.contact_points, rig.keyspace.keyspace]
    command = [sys.executable, str(SCRIPT), str(rig.path), *keyspace]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "owning\n"
    return process


def _incarnation(rig) -> bytes:
    return rig.log.incarnation(topics.TELEMETRY)


def _sums(lines) -> tuple[int, int, int, int]:
    return (
        sum(line.accepted for line in lines),
        sum(line.stored for line in lines),
        sum(line.duplicate for line in lines),
        sum(line.present for line in lines),
    )
