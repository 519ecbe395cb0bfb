"""From the log to the answers, by the real owner, store and catalog."""

import itertools
import math

import pytest

from tidewire_kit import topics
from tidewire_kit.errors import Unavailable
from tidewire_kit.ids import new_uid
from tidewire_storage.application.gather import EpochLimits
from tidewire_storage.application.ingest import IngestLimits
from tidewire_storage.consumer import GROUP
from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_testkit.polling import until
from tidewire_testkit.telemetry import joined, make_table, put_tables, put_values

NAN = math.nan
SECOND = 1_000_000
T0 = 1_700_000_000 * SECOND

embedded_only = pytest.mark.parametrize("backend", ["embedded"], indirect=True)
"""By nature: a full disk is found by the process itself on one machine, and by the nodes of Cassandra elsewhere."""


async def test_what_was_published_is_read_back(rig) -> None:
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "pump-1")
    other = rig.world.add_device(tenant, "pump-2")
    await rig.publish(device, ["temp", "level"], [(T0 + 2, [2.0, NAN]), (T0 + 1, [1.0, 10.0])])
    await rig.publish(other, ["temp"], [(T0, [99.0])])
    await rig.publish(device, ["volt"], [(T0 + 1, [230.5])])
    await rig.settled()
    assert await rig.read(device) == {
        (T0 + 1, "temp"): 1.0,
        (T0 + 1, "level"): 10.0,
        (T0 + 1, "volt"): 230.5,
        (T0 + 2, "temp"): 2.0,
    }
    assert await rig.read(device, ["temp"], T0 + 2) == {(T0 + 2, "temp"): 2.0}
    assert await rig.read(device, ["temp"], None, T0 + 2) == {(T0 + 1, "temp"): 1.0}
    assert await rig.read(device, ["unheard_of"]) == {}
    assert await rig.difference() == 0


async def test_a_retry_counts_once_and_another_digest_is_new(rig) -> None:
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "a")
    batch = new_uid()
    await rig.publish(device, ["m"], [(T0, [1.0]), (T0 + 1, [2.0])], batch)
    await rig.publish(device, ["m"], [(T0, [1.0]), (T0 + 1, [2.0])], batch)
    await rig.publish(device, ["m"], [(T0, [1.0]), (T0 + 1, [2.0]), (T0 + 2, [3.0])], batch)
    await rig.settled()
    assert await rig.read(device) == {(T0, "m"): 1.0, (T0 + 1, "m"): 2.0, (T0 + 2, "m"): 3.0}
    (line,) = (await rig.accounts.ledger(tenant.uid, 0, 1 << 62)).account.lines
    assert (line.accepted, line.stored, line.duplicate, line.present) == (7, 5, 2, 5)
    assert line.difference == 0


async def test_a_retry_after_a_restart_counts_once(rig) -> None:
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "a")
    batch = new_uid()
    await rig.publish(device, ["m"], [(T0, [1.0])], batch)
    await rig.settled()
    await rig.stop()
    await rig.start()
    await rig.publish(device, ["m"], [(T0, [1.0])], batch)
    await rig.settled()
    assert rig.owner.stats.duplicate_segments == 1
    assert await rig.difference() == 0


async def test_the_latest_arrival_wins_and_an_empty_cell_erases_nothing(rig) -> None:
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "a")
    await rig.publish(device, ["m", "n"], [(T0, [1.0, 5.0]), (T0, [2.0, NAN])])
    await rig.settled()
    assert await rig.read(device) == {(T0, "m"): 2.0, (T0, "n"): 5.0}
    await rig.publish(device, ["m"], [(T0, [3.0])])
    await rig.settled()
    await rig.publish(device, ["n", "m"], [(T0, [NAN, 4.0])])
    await rig.settled()
    assert await rig.read(device) == {(T0, "m"): 4.0, (T0, "n"): 5.0}


async def test_within_one_block_two_metric_sets_keep_their_order(rig) -> None:
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "a")
    narrow = [make_table(tenant.uid, ["m"], [(device.uid, T0, [value])]) for value in (1.0, 3.0)]
    wide = make_table(tenant.uid, ["m", "n"], [(device.uid, T0, [2.0, 20.0])])
    late = make_table(tenant.uid, ["n", "k"], [(device.uid, T0, [30.0, 7.0])])
    await put_tables(rig.log, rig.partition(device), narrow[0], wide, narrow[1], late)
    await rig.settled()
    assert await rig.read(device) == {(T0, "m"): 3.0, (T0, "n"): 30.0, (T0, "k"): 7.0}
    page = await rig.series.page(tenant.uid, [], [], 10, "")
    assert {entry.metric: entry.value for entry in page.entries} == {"m": 3.0, "n": 30.0, "k": 7.0}


async def test_many_small_segments_of_many_devices_in_one_record(rig) -> None:
    tenant = rig.world.add_tenant("acme")
    devices = [rig.world.add_device(tenant, f"d{number}") for number in range(200)]
    mine = [device for device in devices if rig.partition(device) == 0]
    tables = [
        make_table(tenant.uid, ["m"], [(device.uid, T0 + n, [float(n)]) for n in range(3)]) for device in mine
    ]
    await put_tables(rig.log, 0, joined(tables + tables[:5]))
    await rig.settled()
    assert rig.owner.stats.duplicate_segments == 5
    for device in mine[:10]:
        assert await rig.read(device) == {(T0 + n, "m"): float(n) for n in range(3)}
    assert await rig.difference() == 0


async def test_the_log_commit_follows_the_effect(rig) -> None:
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "a")
    await rig.publish(device, ["m"], [(T0, [1.0])])
    await rig.settled()

    async def committed() -> bool:
        return (await rig.log.committed(GROUP, topics.TELEMETRY)).get(rig.partition(device)) == 1

    await until(committed)


async def test_stored_progress_wins_over_the_logs(new_rig) -> None:
    """A kill between the catalog's commit and the log's: the record is there twice for the log, once for us."""
    rig = new_rig()
    await rig.start()
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "a")
    commit = rig.log.consume

    async def consume_without_commit(*args):
        consumer = await commit(*args)
        consumer.commit = _forgetful
        return consumer

    await rig.stop()
    await rig.start(own=False)
    rig.log.consume = consume_without_commit
    commit = type(rig.log).consume.__get__(rig.log)
    await rig.owner.start()
    await rig.publish(device, ["m"], [(T0, [1.0])])
    await rig.settled()
    assert (await rig.log.committed(GROUP, topics.TELEMETRY)).get(rig.partition(device), 0) == 0
    await rig.stop()
    await rig.start()
    await rig.publish(device, ["m"], [(T0 + 1, [2.0])])
    await rig.settled()
    assert rig.owner.stats.records == 1
    assert await rig.read(device) == {(T0, "m"): 1.0, (T0 + 1, "m"): 2.0}
    assert await rig.difference() == 0


async def _forgetful(offsets) -> None:
    return None


async def test_poison_is_counted_and_does_not_stop_the_rest(rig) -> None:
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "a")
    await put_values(rig.log, rig.partition(device), b"\xff\xff\xff")
    await rig.publish(device, ["m"], [(T0, [1.0])])
    await rig.settled()
    assert await rig.read(device) == {(T0, "m"): 1.0}
    assert rig.owner.stats.dead_letters == 1
    assert len(await rig.log.read(topics.DEAD_LETTER, 0, 0)) == 1
    assert await rig.difference() == 0


@embedded_only
async def test_a_full_disk_stops_reading_turns_health_red_and_recovers(rig) -> None:
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "a")
    rig.free_bytes = 1000
    await rig.publish(device, ["m"], [(T0, [1.0])])
    assert "make room" in await until(rig.owner.check)
    await rig.publish(device, ["m"], [(T0 + 1, [2.0])])
    rig.free_bytes = 1 << 40
    await rig.settled()
    await until(lambda: rig.owner.check() is None)
    assert await rig.read(device) == {(T0, "m"): 1.0, (T0 + 1, "m"): 2.0}
    assert await rig.difference() == 0


@embedded_only
async def test_a_stop_on_a_full_disk_loses_nothing(rig) -> None:
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "a")
    rig.free_bytes = 1000
    await rig.publish(device, ["m"], [(T0, [1.0])])
    await until(rig.owner.check)
    await rig.stop()
    rig.free_bytes = 1 << 40
    await rig.start()
    await rig.settled()
    assert await rig.read(device) == {(T0, "m"): 1.0}
    assert await rig.difference() == 0


async def test_blocks_end_with_their_epoch_and_epochs_are_covered(new_rig) -> None:
    rig = new_rig()
    rig.limits = IngestLimits(flush_seconds=0.3, epochs=EpochLimits(gathered_bytes=200))
    await rig.start()
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "a")
    for number in range(40):
        await rig.publish(device, ["m"], [(T0 + number, [float(number)])])
    await rig.settled()
    place = TopicPartitionKey(rig.log.incarnation(topics.TELEMETRY), rig.partition(device))
    epochs = await rig.store.epochs(place)
    assert len(epochs) == 4, "20 bytes a row"
    assert [epoch.epoch for epoch in epochs] == list(range(4))
    for before, after in itertools.pairwise(epochs):
        assert before.complete
        assert before.end_offset == after.first_offset
    assert not epochs[-1].complete
    for block in await rig.store.find(tenant.uid, place, 0, 1 << 62):
        epoch = epochs[block.key.epoch]
        assert epoch.first_offset <= block.key.first_offset < block.key.end_offset <= epoch.covered_offset
    assert len(await rig.read(device)) == 40

    await rig.lose_epoch(place, 1)
    assert [epoch.complete for epoch in await rig.store.epochs(place)] == [True, False, True, False]


async def test_a_history_of_many_blocks_is_looked_up_in_pages(rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidewire_storage.application.sweep._PAGE_BLOCKS", 2)
    monkeypatch.setattr("tidewire_storage.application.sweep._FIRST_BLOCKS", 1)
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "a")
    expected = {}
    for number in range(7):  # blocks that overlap, the later ones reaching back
        rows = [
            (T0 + 100 - 10 * number, [float(number)]),
            (T0 + 50 + number, [float(number)]),
            (T0 + 500, [1.0 * number]),
        ]
        await rig.publish(device, ["m"], rows)
        await rig.settled()
        expected |= {(time, "m"): value for time, (value,) in rows}
    assert len(await rig.store.find(tenant.uid, None, 0, 1 << 62)) == 7
    assert await rig.read(device) == expected
    late = {key: value for key, value in expected.items() if key[0] >= T0 + 60}
    assert await rig.read(device, [], T0 + 60) == late


async def test_cut_epochs_cuts_what_has_begun(rig) -> None:
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "a")
    await rig.publish(device, ["m"], [(T0, [1.0])])
    assert await rig.accounts.cut_epochs() <= 1
    await rig.settled()
    await rig.accounts.cut_epochs()
    assert await rig.accounts.cut_epochs() == 0, "nothing came since"
    await rig.publish(device, ["m"], [(T0 + 1, [2.0])])
    await rig.settled()
    assert await rig.accounts.cut_epochs() == 1
    place = TopicPartitionKey(rig.log.incarnation(topics.TELEMETRY), rig.partition(device))
    epochs = await rig.store.epochs(place)
    assert len(epochs) == 2
    assert all(epoch.complete for epoch in epochs)


async def test_cut_epochs_without_an_owner_says_so(new_rig) -> None:
    rig = new_rig()
    await rig.start(own=False)
    with pytest.raises(Unavailable, match="4 of 4 partitions have no owner"):
        await rig.accounts.cut_epochs(max_seconds=0.2)


async def test_series_states_survive_a_crash_before_they_were_written(new_rig) -> None:
    """They are written behind the blocks; whoever owns next folds in what is missing."""
    rig = new_rig()
    rig.limits = IngestLimits(flush_seconds=0.05, series_seconds=3600)
    await rig.start(own=False)
    rig.ingest._series_written_at = rig.clock.monotonic()
    await rig.owner.start()
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "a")
    await rig.publish(device, ["m"], [(T0, [1.0])])
    await rig.settled()
    await rig.publish(device, ["m"], [(T0 + 5, [2.0]), (T0 - 5, [0.0])])
    await rig.settled()
    rig.ingest._series.drop(tenant.uid)  # as a kill would
    await rig.stop()
    await rig.start(own=False)
    assert await rig.store.series(tenant.uid, [device.uid]) == []
    await rig.stop()
    rig.limits = IngestLimits(flush_seconds=0.05, series_seconds=0.0)
    await rig.start()

    async def entries():
        return (await rig.series.page(tenant.uid, ["a"], [], 10, "")).entries

    (entry,) = await until(entries)
    assert (entry.first_us, entry.last_us, entry.value) == (T0 - 5, T0 + 5, 2.0)


async def test_two_owners_share_the_work_and_one_store(new_rig) -> None:
    rig = new_rig()
    await rig.start()
    tenant = rig.world.add_tenant("acme")
    devices = [rig.world.add_device(tenant, f"d{number}") for number in range(8)]
    second = new_rig()
    second.path, second.world = rig.path, rig.world
    for number in range(30):
        for device in devices:
            await rig.publish(device, ["m"], [(T0 + number, [float(number)])])
        if number == 5:
            await second.start()
        if number == 15:
            await until(lambda: len(rig.owner.partitions) == 2 and len(second.owner.partitions) == 2)
        if number == 20:
            await second.stop()
    await rig.settled()
    expected = {(T0 + number, "m"): float(number) for number in range(30)}
    for device in devices:
        assert await rig.read(device) == expected
    assert await rig.difference() == 0
    if rig.keyspace is None:
        assert len(rig.block_files()) >= 2


async def test_it_is_visible_to_another_process_at_once(rig) -> None:
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "a")
    other = rig.new_store()
    await other.open()
    try:
        await rig.publish(device, ["m"], [(T0, [1.0])])
        await rig.settled()
        assert len(await other.find(tenant.uid, None, 0, 1 << 62)) == 1
        assert [states.value.tolist() for states in await other.series(tenant.uid, [device.uid])] == [[[1.0]]]
    finally:
        await other.close()
