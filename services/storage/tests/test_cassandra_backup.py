"""Cassandra's snapshots are backups: restored, storage goes on from where they stand, and the log brings the rest."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidewire_kit.cassandra import CassandraSettings
from tidewire_kit.cassandra.schema import apply
from tidewire_kit.cassandra.steps import SchemaSet
from tidewire_storage.adapters.cassandra import SCHEMA_DIRECTORY
from tidewire_testkit.cassandra import administrator, fresh_keyspace
from tidewire_testkit.servers.managed import ManagedCassandra

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600, func_only=True)]

SECOND = 1_000_000
T0 = 1_700_000_000 * SECOND
SETS = [SchemaSet("storage", SCHEMA_DIRECTORY)]


@pytest.fixture(scope="module")
def cassandra() -> Iterator[ManagedCassandra]:
    with ManagedCassandra() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def keyspace(cassandra: ManagedCassandra) -> Iterator[CassandraSettings]:
    with fresh_keyspace(cassandra.contact_points, SETS, drop=False) as settings:
        yield settings


async def lose_keyspace(settings: CassandraSettings) -> None:
    """All is gone; then the tables are made again, empty, as `tidewire schema apply` does."""
    async with administrator(settings) as session:
        await session.execute_cql(f"DROP KEYSPACE {settings.keyspace}", timeout_seconds=60.0)
        await apply(session, SETS)


async def test_a_restored_snapshot_goes_on_and_the_log_brings_what_came_after_it(
    cassandra: ManagedCassandra, keyspace: CassandraSettings, rig_type, tmp_path: Path
) -> None:
    rig = rig_type(tmp_path / "rig", keyspace)
    tenant = rig.world.add_tenant("acme")
    devices = [rig.world.add_device(tenant, f"d{number}") for number in range(6)]
    wanted = {device.id: {} for device in devices}

    async def publish(first: int, steps: int) -> None:
        for step in range(first, first + steps):
            for device in devices:
                await rig.publish(device, ["m"], [(T0 + step * SECOND, [float(step)])])
                wanted[device.id][T0 + step * SECOND, "m"] = float(step)
        await rig.settled()

    await rig.start()
    await publish(0, 10)
    await rig.stop()  # so that all tables are of one moment

    snapshot = "before"
    await asyncio.to_thread(cassandra.nodetool, "snapshot", "-t", snapshot, keyspace.keyspace)
    kept = {}
    for table, directory in cassandra.snapshots(keyspace.keyspace, snapshot).items():
        kept[table] = tmp_path / "snapshot" / keyspace.keyspace / table
        shutil.copytree(directory, kept[table])
    assert {"storage_heads", "storage_blocks", "storage_ledger"} <= kept.keys()

    await rig.start()
    await publish(10, 5)
    assert await rig.difference() == 0
    await rig.stop()

    await lose_keyspace(keyspace)
    for table, directory in kept.items():
        if any(directory.glob("*-Data.db")):
            await asyncio.to_thread(
                cassandra.nodetool, "import", "--copy-data", keyspace.keyspace, table, str(directory)
            )

    try:
        await rig.start(own=False)
        for device in devices:
            assert len(await rig.read(device)) == 10, "as at the snapshot"
        assert await rig.difference() == 0
        await rig.stop()

        await rig.start()
        await rig.settled()
        for device in devices:
            assert await rig.read(device) == wanted[device.id], "the log has brought the rest"
        await publish(15, 3)
        for device in devices:
            assert await rig.read(device) == wanted[device.id]
        assert await rig.difference() == 0
        assert await rig.store.difference() == 0
    finally:
        await rig.stop()
