"""The loss ledger must show what is missing, and deletion must leave neither rows nor bytes."""

import math
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tidewire_kit.errors import TidewireError
from tidewire_kit.ids import TenantId
from tidewire_storage.application.ingest import IngestLimits
from tidewire_testkit.polling import until

SECOND = 1_000_000
T0 = 1_700_000_000 * SECOND
NAN = math.nan

pytestmark = pytest.mark.parametrize("backend", ["embedded"], indirect=True)
"""By nature: these look for bytes in files, and damage them. test_cassandra_ledger.py does the same to rows."""


def needle(number: int) -> float:
    """A value whose eight bytes are easily found in a file: small blocks are not compressed."""
    return struct.unpack("<d", b"needle" + struct.pack("<H", 0x4000 + number))[0]


def bytes_on_disk(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file())


async def filled(rig, devices: int = 3, rows: int = 5):
    """A tenant with devices whose values are needles."""
    tenant = rig.world.add_tenant("acme")
    found = [rig.world.add_device(tenant, f"d{number}") for number in range(devices)]
    for step in range(rows):
        for number, device in enumerate(found):
            await rig.publish(device, ["m"], [(T0 + step, [needle(number)])])
    await rig.settled()
    return tenant, found


def catalog(rig) -> sqlite3.Connection:
    return sqlite3.connect(rig.path / "storage" / "catalog.db", isolation_level=None)


async def test_a_deleted_catalog_row_shows(rig) -> None:
    await filled(rig)
    assert await rig.difference() == 0
    connection = catalog(rig)
    (lost,) = connection.execute(
        "DELETE FROM blocks WHERE block_id = (SELECT min(block_id) FROM blocks) RETURNING readings"
    ).fetchone()
    connection.close()
    assert await rig.difference() == lost > 0
    assert await rig.store.difference() == lost


async def test_a_deleted_file_shows(rig) -> None:
    tenant, _ = await filled(rig)
    assert await rig.difference() == 0
    (file,) = rig.block_files()
    file.unlink()
    assert await rig.difference() == 15
    assert await rig.difference(tenant) == 15


async def test_a_truncated_file_shows(rig) -> None:
    await filled(rig)
    (file,) = rig.block_files()
    with file.open("r+b") as open_file:
        open_file.truncate(file.stat().st_size - 1)
    assert await rig.difference() > 0


@pytest.mark.parametrize("known", [True, False])
async def test_overwritten_bytes_show(rig, known: bool) -> None:
    """The header's at the first look already, the contents' once the file was seen in order."""
    await filled(rig)
    if known:
        assert await rig.difference() == 0
    (file,) = rig.block_files()
    with file.open("r+b") as open_file:
        open_file.seek(-8 if known else 20, 2 if known else 0)
        open_file.write(b"\x00" * 8 if not known else b"\xff" * 8)
    assert await rig.difference() > 0


async def test_a_block_that_is_there_twice_shows(rig) -> None:
    await filled(rig)
    connection = catalog(rig)
    connection.execute(
        "INSERT INTO blocks SELECT NULL, tenant, incarnation, partition, 7, epoch, first_offset, end_offset, hour_us, "
        "file_id, position, length, rows, readings, min_time_us, max_time_us, sets, level, "
        "head_bytes FROM blocks LIMIT 1"
    )
    connection.close()
    assert await rig.difference() < 0


async def test_damaged_contents_are_not_answered(rig) -> None:
    _, devices = await filled(rig, devices=1, rows=1)
    (file,) = rig.block_files()
    with file.open("r+b") as open_file:
        open_file.seek(-1, 2)
        open_file.write(b"\x01")
    with pytest.raises(TidewireError, match="damaged"):
        await rig.read(devices[0])


async def test_a_deleted_device_leaves_no_rows_and_no_bytes(rig) -> None:
    tenant, devices = await filled(rig)
    doomed, kept = devices[0], devices[1]
    text = struct.pack("<d", needle(0))
    assert text in bytes_on_disk(rig.path / "storage" / "blocks")
    rig.world.delete_device(doomed)
    await rig.housekeeping.purge()
    assert text not in bytes_on_disk(rig.path / "storage")
    assert struct.pack("<d", needle(1)) in bytes_on_disk(rig.path / "storage" / "blocks")
    assert len(await rig.read(kept)) == 5
    assert await rig.store.series(tenant.uid, [doomed.uid]) == []
    (line,) = (await rig.accounts.ledger(tenant.uid, 0, 1 << 62)).account.lines
    assert (line.accepted, line.stored, line.purged, line.present) == (15, 15, 5, 10)
    assert line.difference == 0
    before = rig.block_files()
    await rig.housekeeping.purge()
    await rig.store.sweep()
    assert rig.block_files() == before, "nothing is left to do"


async def test_what_still_lies_in_the_log_of_a_deleted_device_is_dropped_and_counted(new_rig) -> None:
    rig = new_rig()
    await rig.start(own=False)
    tenant = rig.world.add_tenant("acme")
    doomed, kept = rig.world.add_device(tenant, "a"), rig.world.add_device(tenant, "b")
    for step in range(4):
        await rig.publish(doomed, ["m"], [(T0 + step, [1.0])])
        await rig.publish(kept, ["m"], [(T0 + step, [2.0])])
    rig.world.delete_device(doomed)
    await rig.housekeeping.purge()
    await rig.owner.start()
    await rig.settled()
    assert len(await rig.read(kept)) == 4
    assert await rig.store.series(tenant.uid, [doomed.uid]) == []
    (line,) = (await rig.accounts.ledger(tenant.uid, 0, 1 << 62)).account.lines
    assert (line.accepted, line.stored, line.purged, line.present, line.difference) == (8, 8, 4, 4, 0)


async def test_a_deleted_tenant_is_gone_and_another_of_its_name_sees_nothing(rig) -> None:
    tenant, _ = await filled(rig)
    other = rig.world.add_tenant("other")
    bystander = rig.world.add_device(other, "x")
    await rig.publish(bystander, ["m"], [(T0, [needle(9)])])
    await rig.settled()
    rig.world.delete_tenant(tenant)
    await rig.housekeeping.purge()
    disk = bytes_on_disk(rig.path / "storage")
    assert not any(struct.pack("<d", needle(number)) in disk for number in range(3))
    assert struct.pack("<d", needle(9)) in disk
    assert await rig.store.find(tenant.uid, None, 0, 1 << 62) == []
    assert len(await rig.read(bystander)) == 1
    (usage,) = [usage for usage in await rig.store.usage(None) if usage.tenant == tenant.uid]
    assert (usage.stored_readings, usage.stored_bytes) == (0, 0)
    assert await rig.difference() == 0
    again = rig.world.add_tenant("acme")
    twin = rig.world.add_device(again, "d0")
    assert await rig.read(twin) == {}
    assert (await rig.series.page(again.uid, [], [], 10, "")).entries == []


async def test_a_tombstone_that_came_while_storage_was_down_is_heeded(rig) -> None:
    _, devices = await filled(rig)
    await rig.stop()
    rig.world.delete_device(devices[0])
    await rig.start()
    await rig.housekeeping.purge()
    assert struct.pack("<d", needle(0)) not in bytes_on_disk(rig.path / "storage" / "blocks")
    assert len(await rig.read(devices[1])) == 5
    assert await rig.difference() == 0


async def test_what_waits_for_room_on_the_disk_is_not_stored_when_it_is_deleted_meanwhile(rig) -> None:
    tenant = rig.world.add_tenant("acme")
    doomed, kept = rig.world.add_device(tenant, "a"), rig.world.add_device(tenant, "b")
    await rig.publish(kept, ["m"], [(T0, [needle(1)])])
    await rig.settled()
    rig.free_bytes = 1000
    await rig.publish(doomed, ["m"], [(T0, [needle(0)])])
    await rig.publish(kept, ["m"], [(T0 + 1, [needle(1)])])
    await until(rig.owner.check)
    rig.world.delete_device(doomed)
    await rig.housekeeping.purge()
    rig.free_bytes = 1 << 40
    await rig.settled()
    await rig.housekeeping.purge()
    assert struct.pack("<d", needle(0)) not in bytes_on_disk(rig.path / "storage")
    assert len(await rig.read(kept)) == 2
    assert await rig.difference() == 0


async def test_files_of_another_process_are_cleaned_by_it(new_rig) -> None:
    """Neither touches a file that the other appends to; each cleans its own."""
    rig, second = new_rig(), new_rig()
    second.path, second.world = rig.path, rig.world
    await rig.start()
    await second.start()
    await until(lambda: len(rig.owner.partitions) == 2 and len(second.owner.partitions) == 2)
    tenant = rig.world.add_tenant("acme")
    devices = [rig.world.add_device(tenant, f"d{number}") for number in range(12)]
    for number, device in enumerate(devices):
        await rig.publish(device, ["m"], [(T0, [needle(number)])])
    await rig.settled()
    assert len(rig.block_files()) == 2
    for one in (rig, second):
        await one.housekeeping.purge()
    rig.world.delete_tenant(tenant)
    await rig.housekeeping.purge()
    for device in devices:  # the second has not heard of it yet, and stores its share
        await rig.publish(device, ["m"], [(T0 + 1, [needle(20)])])
    await rig.settled()
    await second.housekeeping.purge()
    disk = bytes_on_disk(rig.path / "storage")
    assert not any(struct.pack("<d", needle(number)) in disk for number in [*range(12), 20])
    assert await rig.store.find(tenant.uid, None, 0, 1 << 62) == []
    assert await rig.difference() == 0


async def test_expired_blocks_go_and_are_counted(rig) -> None:
    tenant = rig.world.add_tenant("acme")
    device = rig.world.add_device(tenant, "a")
    now = rig.clock.now_us()
    await rig.publish(device, ["m"], [(now - 7200 * SECOND + step, [needle(0)]) for step in range(20)])
    await rig.settled()
    await rig.publish(device, ["m"], [(now - 7200 * SECOND, [needle(1)]), (now - 10 * SECOND, [needle(1)])])
    await rig.settled()
    view = rig.world.directory.tenant(tenant.uid)
    view.retention = type(view.retention)(raw_seconds=3600.0)
    await rig.housekeeping.expire()
    assert len(await rig.read(device)) == 2, "a block goes when all of it is too old"
    (line,) = (await rig.accounts.ledger(tenant.uid, 0, 1 << 62)).account.lines
    assert (line.stored, line.purged, line.present, line.difference) == (22, 20, 2, 0)
    await rig.stop()
    await rig.start()
    await rig.housekeeping.expire()
    assert struct.pack("<d", needle(0)) not in bytes_on_disk(rig.path / "storage" / "blocks")
    assert struct.pack("<d", needle(1)) in bytes_on_disk(rig.path / "storage" / "blocks")
    assert await rig.difference() == 0


async def test_a_reader_that_found_a_block_before_it_was_moved_still_gets_it(rig) -> None:
    tenant, devices = await filled(rig)
    found = await rig.store.find(tenant.uid, None, 0, 1 << 62)
    rig.world.delete_device(devices[0])
    await rig.housekeeping.purge()
    read = await rig.store.read(found)
    alive = len(await rig.store.find(tenant.uid, None, 0, 1 << 62))
    assert len([data for data in read if data is not None]) == alive > 0
    assert rig.block_files()[0].name != "0000000001.blk", "they lie elsewhere now"


async def test_bytes_that_no_row_names_are_cut_off(new_rig: Callable[[], object]) -> None:
    rig = new_rig()
    rig.limits = IngestLimits(flush_seconds=0.05)
    await rig.start()
    _, devices = await filled(rig, devices=1)
    await rig.stop()
    (file,) = rig.block_files()
    size = file.stat().st_size
    with file.open("ab") as open_file:
        open_file.write(b"torn flush" * 100)
    (rig.path / "storage" / "blocks" / "0000009999.blk").write_bytes(b"never named")
    await rig.start()
    await rig.store.sweep()
    assert [path.stat().st_size for path in rig.block_files()] == [size]
    assert len(await rig.read(devices[0])) == 5
    assert await rig.difference() == 0


async def test_nothing_is_found_of_a_tenant_nobody_knows(rig) -> None:
    await filled(rig)
    stranger = TenantId(bytes(16))
    assert await rig.store.find(stranger, None, 0, 1 << 62) == []
    assert await rig.store.usage(stranger) == []
