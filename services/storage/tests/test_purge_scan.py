"""What was deleted is in no tier: every byte of every file is looked at, and every column of every block decoded.

Blocks are found in the files themselves, not by the catalog: also those that no row names any more.
"""

import random
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from crash_points.history import DAY0, History
from crash_points.owner import Owner, owning

from tidewire_kit.events import Event, EventRecord
from tidewire_kit.ids import TenantId
from tidewire_storage.adapters.embedded import EmbeddedEventStore, schema, upkeep
from tidewire_storage.domain.block_format import read_block
from tidewire_storage.domain.block_header import BlockHeader
from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_storage.domain.rows import uid_list
from tidewire_storage.ports import EventFilter, EventFlush

DEVICES = ("acme.doomed", "acme.kept", "other.bystander")
(NEEDLE,) = struct.unpack("<d", b"needle\x24\x41")
"""A value that nothing else is, nor its multiples."""
ROWS = 20
"""As many in an hour, so that it is rolled up."""
LEVELS = {"flushed": {0}, "sealed": {1}, "merged": {2, 3, 4, 5}}


def blocks_in(path: Path) -> Iterator[bytes]:
    """The blocks of a file, dead ones too: it holds nothing else."""
    data = path.read_bytes()
    at = 0
    while at < len(data):
        length = BlockHeader(data[at:]).total_bytes
        yield data[at : at + length]
        at += length


def levels_with(directory: Path, uid: bytes) -> dict[int, set[str]]:
    """Level → by what a device shows in blocks of it: its uid, and the columns that hold what it sent."""
    found: dict[int, set[str]] = {}
    for path in sorted((directory / "blocks").glob("*.blk")):
        for data in blocks_in(path):
            header, readers = read_block(data)
            for reader in readers:
                if uid in uid_list(reader.device_uids):
                    found.setdefault(header.key.level, set()).add("uid")
                for name in reader.metrics:
                    column = reader.column(name)
                    if np.isin(column, [NEEDLE * count for count in range(1, ROWS + 1)]).any():
                        found.setdefault(header.key.level, set()).add(name)
    return found


def files_with(directory: Path, text: bytes) -> set[str]:
    """Names of the files that hold these bytes."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {path.name for path in files if text in path.read_bytes()}


async def planted(history: History, owner: Owner, stage: str) -> None:
    """Values of three devices, so far on as `stage` says; the doomed one also has a metric of its own."""
    for number, name in enumerate(DEVICES):
        value, metrics = 1.5 + number, ("level",)
        if name == "acme.doomed":
            value, metrics = NEEDLE, ("level", "secret_metric")
        rows = [(DAY0 + n, [value] * len(metrics)) for n in range(ROWS)]
        history.publish(name, name, metrics, rows)
    for step in {"flushed": ["drain"], "sealed": ["drain", "cut", "seal"]}.get(
        stage, ["drain", "cut", "seal", "merge"]
    ):
        await owner.step(step)


@pytest.mark.parametrize("what", ["acme.doomed", "acme"])
@pytest.mark.parametrize("stage", ["flushed", "sealed", "merged"])
async def test_a_planted_value_leaves_every_tier(tmp_path: Path, stage: str, what: str) -> None:
    history = History(DEVICES)
    uid = history.devices["acme.doomed"].uid
    async with owning(history, tmp_path) as owner:
        await planted(history, owner, stage)
        there = levels_with(tmp_path, uid)
        assert there.keys() >= LEVELS[stage], "the scan finds what is there"
        assert all("uid" in shows and len(shows) > 1 for shows in there.values())
        if stage == "merged":
            sums = {"count", "sum", "min", "max", "first", "last"}
            assert all(len(there[level]) > len(sums) - 2 for level in (3, 4, 5))
        newest = struct.pack("<d", NEEDLE)
        assert files_with(tmp_path, newest) & {"catalog.db", "catalog.db-wal"}, "the newest value"
        assert files_with(tmp_path, b"secret_metric")

        history.deleted.add(what)
        await owner.step("purge")
        assert levels_with(tmp_path, uid) == {}
        assert files_with(tmp_path, newest) == set()
        assert not {name for name in files_with(tmp_path, bytes(uid)) if name.endswith(".blk")}
        if what == "acme":
            assert files_with(tmp_path, b"secret_metric") == set(), "the name of a metric of nobody else"
            assert not {
                name
                for name in files_with(tmp_path, bytes(history.tenants["acme"].uid))
                if name.endswith(".blk")
            }
        else:
            assert await owner.read("acme.kept") == history.readings("acme.kept") != {}
        assert await owner.read("other.bystander") == history.readings("other.bystander") != {}
        assert await owner.store.difference() == 0
    for name in ("acme.doomed", "acme.kept"):
        assert files_with(tmp_path, name.encode()) == set(), "names are the registry's alone"


def test_pages_of_the_catalog_keep_no_copies(tmp_path: Path) -> None:
    """Rows that SQLite has moved from page to page; with this seed it leaves five of them behind."""
    rng = random.Random(4)
    catalog = schema.connect(tmp_path / "catalog.db")
    schema.create(catalog, tmp_path / "catalog.db")
    tenants = [TenantId(rng.randbytes(16)) for _ in range(4)]
    devices = [(rng.choice(tenants), rng.randbytes(16)) for _ in range(300)]
    for _ in range(2):
        rng.shuffle(devices)
        rows = [
            (tenant, device, number, b"NEEDLE%02d...." % tenants.index(tenant) * rng.randint(1, 6))
            for tenant, device in devices
            for number in (1, 2)
        ]
        upsert = "INSERT INTO series VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET state = excluded.state"
        catalog.executemany(upsert, rows)
    upkeep.Buried().bury(catalog, tenants[:1], [])
    assert files_with(tmp_path, b"NEEDLE00") == set()
    assert files_with(tmp_path, b"NEEDLE01") == {"catalog.db"}
    assert catalog.execute("SELECT count(*) FROM series WHERE tenant = ?", (tenants[0],)).fetchone() == (0,)
    kept = [device for tenant, device in devices if tenant != tenants[0]]
    assert catalog.execute("SELECT count(*) FROM series").fetchone() == (2 * len(kept),)
    catalog.close()


async def test_bodies_of_events_leave_the_pages_too(tmp_path: Path) -> None:
    rng = random.Random(16)  # with this seed SQLite leaves copies of bodies behind
    tenant, place = TenantId(rng.randbytes(16)), TopicPartitionKey(rng.randbytes(16), 0)
    devices = [rng.randbytes(16) for _ in range(6)]
    store = EmbeddedEventStore(tmp_path)
    await store.open()
    events = []
    for number in range(200):
        device = rng.randrange(6)
        body = b"NEEDLE%02d" % device * rng.randint(1, 60)
        events.append(
            Event(devices[device], rng.randrange(10**6), f"id-of-{device}-{number}", "door", 1, "", body)
        )
    await store.commit(
        EventFlush(place, None, 1, [(0, EventRecord(tenant, bytes(16), bytes(16), 1, events))])
    )
    assert files_with(tmp_path, b"NEEDLE00")
    for number, device in enumerate(devices[:3]):
        await store.bury([], [(tenant, device)])
        for gone in range(number + 1):
            assert files_with(tmp_path, b"NEEDLE%02d" % gone) == set()
            assert files_with(tmp_path, b"id-of-%d-" % gone) == set()
    anything = EventFilter(None, "", 0, 0, 1 << 62)
    found = await store.page(tenant, anything, None, 1000, 1 << 30)
    assert {stored.event.event_id for stored in found} == {
        event.event_id for event in events if event.device_uid in devices[3:]
    }
    assert (await store.account()).difference == 0
    await store.bury([tenant], [])
    assert files_with(tmp_path, b"NEEDLE") == set()
    await store.close()
