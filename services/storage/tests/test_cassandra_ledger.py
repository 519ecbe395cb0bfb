"""The loss ledger must show what is missing in Cassandra, and what was deleted or has expired must be gone from it."""

import asyncio
import dataclasses
import itertools

import pytest

from tidewire_kit import topics
from tidewire_kit.cassandra.steps import SchemaSet
from tidewire_kit.errors import TidewireError
from tidewire_storage.adapters.cassandra import SCHEMA_DIRECTORY, rows
from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_testkit.cassandra import assert_steps_make_snapshot

pytestmark = [
    pytest.mark.servers,
    pytest.mark.timeout(120, func_only=True),
    pytest.mark.parametrize("backend", ["cassandra"], indirect=True),
]

SECOND = 1_000_000
DAY = 86_400 * SECOND
T0 = 1_700_000_000 * SECOND
EVER = 1 << 62

CATALOG_KEY = [
    "tenant",
    "incarnation",
    "log_partition",
    "day",
    "level",
    "min_time_us",
    "max_time_us",
    "epoch",
    "first_offset",
    "slice",
]
EPOCH_KEY = ["incarnation", "log_partition", "epoch", "first_offset", "tenant", "slice"]
BYTES_KEY = [
    "tenant",
    "incarnation",
    "log_partition",
    "slice",
    "epoch",
    "first_offset",
    "end_offset",
    "attempt",
]


async def filled(rig, devices: int = 3, steps: int = 5):
    """A tenant with devices, a row of each in every step."""
    tenant = rig.world.add_tenant("acme")
    found = [rig.world.add_device(tenant, f"d{number}") for number in range(devices)]
    for step in range(steps):
        for device in found:
            await rig.publish(device, ["m"], [(T0 + step, [float(step)])])
    await rig.settled()
    return tenant, found


async def delete_row(rig, table: str, columns: list[str], key: tuple) -> None:
    """Behind the store's back, whose own timestamps are of this moment at most."""
    where = " AND ".join(f"{column} = ?" for column in columns)
    await rig.cql(f"DELETE FROM {table} WHERE {where}", *key)


@pytest.mark.parametrize("table", ["storage_blocks", "storage_catalog", "storage_epoch_blocks"])
async def test_a_deleted_row_shows(rig, table: str) -> None:
    tenant, _ = await filled(rig)
    assert await rig.difference() == 0
    block = (await rig.store.find(tenant.uid, None, 0, EVER))[0]
    columns, key = {
        "storage_blocks": (BYTES_KEY, rows.bytes_key(block.key, rows.token_of(block).attempt)),
        "storage_catalog": (CATALOG_KEY, rows.catalog_key(block)),
        "storage_epoch_blocks": (EPOCH_KEY, rows.epoch_block_key(block)),
    }[table]
    await delete_row(rig, table, columns, key)
    assert await rig.difference() == block.facts.readings > 0
    assert await rig.difference(tenant) == block.facts.readings
    assert await rig.store.difference() == block.facts.readings


async def test_a_block_that_is_there_twice_shows(rig) -> None:
    tenant, _ = await filled(rig)
    block = (await rig.store.find(tenant.uid, None, 0, EVER))[0]
    other = dataclasses.replace(block, key=dataclasses.replace(block.key, slice=7))
    for name, values in rows.put(other):
        prepared = rig.store._tables._mutations[name]
        await rig.store._session.execute(prepared, (*values, 1))
    prepared = await rig.store._session.prepare(
        "INSERT INTO storage_blocks (tenant, incarnation, log_partition, slice, epoch, first_offset, end_offset, "
        "attempt, chunk, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?)"
    )
    (data,) = await rig.store.read([block])
    await rig.store._session.execute(
        prepared, (*rows.bytes_key(other.key, rows.token_of(other).attempt), data)
    )
    assert await rig.difference() == -block.facts.readings
    assert await rig.store.difference() == -block.facts.readings


async def test_missing_bytes_are_not_answered(rig) -> None:
    tenant, devices = await filled(rig, devices=1, steps=1)
    (block,) = await rig.store.find(tenant.uid, None, 0, EVER)
    await delete_row(
        rig, "storage_blocks", BYTES_KEY, rows.bytes_key(block.key, rows.token_of(block).attempt)
    )
    with pytest.raises(TidewireError, match="damaged"):
        await rig.read(devices[0])


async def test_a_deleted_device_leaves_no_rows(rig) -> None:
    tenant, (doomed, kept, _) = await filled(rig)
    rig.world.delete_device(doomed)
    await rig.housekeeping.purge()
    assert len(await rig.read(kept)) == 5
    assert await rig.store.series(tenant.uid, [doomed.uid]) == []
    for data in await rig.store.read(await rig.store.find(tenant.uid, None, 0, EVER)):
        assert doomed.uid not in data
    (line,) = (await rig.accounts.ledger(tenant.uid, 0, EVER)).account.lines
    assert (line.accepted, line.stored, line.purged, line.present, line.difference) == (15, 15, 5, 10, 0)
    states = await rig.cql("SELECT tenant, states FROM storage_series")
    assert not any(doomed.uid in row.states for row in states if row.tenant == tenant.uid)
    chunks = await rig.cql("SELECT tenant, data FROM storage_blocks")
    assert not any(doomed.uid in row.data for row in chunks if row.tenant == tenant.uid)


async def test_a_deleted_tenant_leaves_counts_only(rig) -> None:
    tenant, _ = await filled(rig)
    other = rig.world.add_tenant("other")
    bystander = rig.world.add_device(other, "x")
    await rig.publish(bystander, ["m"], [(T0, [1.0])])
    await rig.settled()
    rig.world.delete_tenant(tenant)
    await rig.housekeeping.purge()
    assert len(await rig.read(bystander)) == 1
    for table in (
        "storage_blocks",
        "storage_catalog",
        "storage_epoch_blocks",
        "storage_days",
        "storage_series",
    ):
        left = await rig.cql(f"SELECT tenant FROM {table}")
        assert tenant.uid not in {row.tenant for row in left}
    (usage,) = await rig.store.usage(tenant.uid)
    assert (usage.accepted_readings, usage.stored_readings, usage.stored_bytes) == (15, 0, 0)
    assert await rig.difference() == 0


async def test_a_tombstone_that_came_while_storage_was_down_is_heeded(rig) -> None:
    tenant, devices = await filled(rig)
    await rig.stop()
    rig.world.delete_device(devices[0])
    await rig.start()
    await rig.housekeeping.purge()
    assert await rig.store.series(tenant.uid, [devices[0].uid]) == []
    assert len(await rig.read(devices[1])) == 5
    assert await rig.difference() == 0


async def test_expired_blocks_go_and_are_counted(rig) -> None:
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "a")
    now = rig.clock.now_us()
    await rig.publish(device, ["m"], [(now - 7200 * SECOND + step, [0.0]) for step in range(20)])
    await rig.settled()
    await rig.publish(device, ["m"], [(now - 7200 * SECOND, [1.0]), (now - 10 * SECOND, [1.0])])
    await rig.settled()
    view = rig.world.directory.tenant(tenant.uid)
    view.retention = type(view.retention)(raw_seconds=3600.0)
    await rig.housekeeping.expire()
    assert len(await rig.read(device)) == 2, "a block goes when all of it is too old"
    lines = (await rig.accounts.ledger(tenant.uid, 0, EVER)).account.lines
    assert [
        sum(counts) for counts in zip(*((x.stored, x.purged, x.present) for x in lines), strict=True)
    ] == [
        22,
        20,
        2,
    ]
    assert await rig.difference() == 0


async def test_bytes_end_by_themselves_after_retention_and_are_counted_before(rig) -> None:
    rig.store._writing._retention = lambda tenant, rollups: 3600.0
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "a")
    await rig.publish(device, ["m"], [(rig.clock.now_us(), [1.0])])
    await rig.settled()
    (row,) = [
        row
        for row in await rig.cql("SELECT tenant, TTL(data) AS ttl FROM storage_blocks")
        if row.tenant == tenant.uid
    ]
    assert 2 * 86_400 < row.ttl <= 2 * 86_400 + 3600
    assert await rig.store.expire(tenant.uid, 0) == 0, "it is neither old, nor about to go"
    (block,) = await rig.store.find(tenant.uid, None, 0, EVER)
    assert rows.token_of(block).expires_us > rig.clock.now_us() + 2 * DAY
    assert await rig.store.expire(tenant.uid, EVER) == 1
    assert await rig.difference() == 0


async def test_blocks_of_any_span_are_found(rig) -> None:
    """They lie apart by how long a span they cover; what overlaps is found in order, in pages of any size."""
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "a")
    spans = [(0, 1), (5, 40), (0, 3000), (100, 1200), (39, 39), (40, 41), (2999, 2999), (7, 7)]
    for first, last in spans:
        await rig.publish(device, ["m"], [(T0 + first * DAY, [1.0]), (T0 + last * DAY, [2.0])])
        await rig.settled()
    place = TopicPartitionKey(rig.log.incarnation(topics.TELEMETRY), rig.partition(device))
    for start, end in itertools.combinations([-1, 0, 1, 7, 8, 39, 40, 41, 42, 1200, 2999, 3001], 2):
        expected = sorted((first, last) for first, last in spans if first < end and last >= start)
        for where in (place, None):
            found = []
            limit = 3 if where else None
            page = await rig.store.find(tenant.uid, where, T0 + start * DAY, T0 + end * DAY, limit=limit)
            while page:
                found += page
                page = await rig.store.find(
                    tenant.uid, where, T0 + start * DAY, T0 + end * DAY, after=page[-1], limit=3
                )
            assert [
                ((b.facts.min_time_us - T0) // DAY, (b.facts.max_time_us - T0) // DAY) for b in found
            ] == expected


async def test_a_large_block_lies_in_chunks(rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidewire_storage.adapters.cassandra.rows.CHUNK_BYTES", 100)
    tenant, devices = await filled(rig, devices=1)
    (block, *_) = await rig.store.find(tenant.uid, None, 0, EVER)
    assert rows.token_of(block).chunks > 1
    assert len(await rig.read(devices[0])) == 5
    assert await rig.difference() == 0
    rig.world.delete_tenant(tenant)
    await rig.housekeeping.purge()
    assert await rig.difference() == 0


async def test_two_processes_that_learn_of_a_deletion_at_different_times(rig, new_rig) -> None:
    second = new_rig()
    second.path, second.world = rig.path, rig.world
    tenant, (doomed, kept, _) = await filled(rig)
    await second.start(own=False)
    rig.world.delete_device(doomed)
    await second.housekeeping.purge()
    await rig.publish(doomed, ["m"], [(T0 + 99, [1.0])])  # the owner has not heard of it yet
    await rig.settled()
    await rig.housekeeping.purge()
    for data in await rig.store.read(await rig.store.find(tenant.uid, None, 0, EVER)):
        assert doomed.uid not in data
    assert await second.store.series(tenant.uid, [doomed.uid]) == []
    assert len(await rig.read(kept)) == 5
    assert await rig.difference() == 0
    await second.stop()


async def test_the_recount_looks_at_what_is_new_and_remembers_the_rest(rig) -> None:
    tenant, _ = await filled(rig)
    rig.store._recount._verify_seconds = 3600.0
    assert await rig.store.difference() == 0
    block = (await rig.store.find(tenant.uid, None, 0, EVER))[0]
    await delete_row(
        rig, "storage_blocks", BYTES_KEY, rows.bytes_key(block.key, rows.token_of(block).attempt)
    )
    assert await rig.store.difference() == 0, "seen less than an hour ago"
    rig.store._recount._verify_seconds = 0.0
    assert await rig.store.difference() == block.facts.readings


async def test_the_snapshot_is_what_the_steps_make(backend, cassandra_contact_points: str) -> None:
    await asyncio.shield(
        assert_steps_make_snapshot(cassandra_contact_points, SchemaSet("storage", SCHEMA_DIRECTORY))
    )
