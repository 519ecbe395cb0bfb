"""What has to hold of storage whenever it is at rest, and however it was stopped before."""

import sqlite3
from pathlib import Path

import numpy as np

from crash_points.owner import FILE_BYTES, Owner
from tidewire_storage.adapters.embedded import EmbeddedStore
from tidewire_storage.domain.block_format import read_block
from tidewire_storage.domain.rollups import DAY_US
from tidewire_storage.domain.rows import uid_list

EVER = (0, 1 << 62)


async def check_everything(owner: Owner) -> None:
    """All that was acknowledged is visible once, ledger and rollups add up, newest values are right."""
    history = owner.history
    assert await owner.store.difference() == 0
    totals = await owner.totals()
    assert sum(accepted for accepted, *_ in totals.values()) == history.accepted()
    for accepted, stored, duplicate, purged, present in totals.values():
        assert (accepted, stored - purged) == (stored + duplicate, present)
    uids = await uids_in_blocks(owner)
    for name, device in history.devices.items():
        expected = history.readings(name)
        if history.gone(name):
            assert device.uid not in uids, name
            assert await owner.store.series(device.tenant.uid, [device.uid]) == []
            continue
        assert await owner.read(name) == expected, name
        if name.startswith("brief."):
            continue  # newest values and rollups outlive its readings
        page = await owner.series.page(device.tenant.uid, [device.id], [], 10, "")
        newest = {entry.metric: entry for entry in page.entries}
        metrics = sorted({metric for _, metric in expected})
        assert sorted(newest) == metrics
        place = (device.tenant.uid, history.place, [device.uid], metrics, *EVER, DAY_US)
        parts = (await owner.buckets.of(*place)).parts if metrics else {}
        for metric in metrics:
            times = sorted(time for time, of in expected if of == metric)
            entry, part = newest[metric], parts[metric]
            assert (entry.first_us, entry.last_us) == (times[0], times[-1])
            assert entry.value == expected[times[-1], metric]
            values = np.array([expected[time, metric] for time in times])
            assert (part.count.sum(), part.total.sum()) == (len(values), values.sum())
            assert (part.least.min(), part.greatest.max()) == (values.min(), values.max())


async def check_what_is_stored(owner: Owner, but: str) -> None:
    """What is visible before anything was repaired: each reading of what is stored, and the ledger says as many.

    Not asked for are devices that were deleted, whose bytes may be there still, and those whose name begins with `but`.
    """
    assert await owner.store.difference() == 0
    await owner.totals()
    history = owner.history
    stored = (await owner.store.progress([history.place]))[history.place].next_offset
    for name in history.devices:
        if not history.gone(name) and not name.startswith(but):
            assert await owner.read(name) == history.readings(name, stored or 0), name


async def uids_in_blocks(owner: Owner) -> set[bytes]:
    """Devices of which any block, of readings or rollups, has rows."""
    found: set[bytes] = set()
    epochs = await owner.store.epochs(owner.history.place)
    blocks = [await owner.store.blocks_of_epoch(owner.history.place, epoch.epoch) for epoch in epochs]
    for data in await owner.store.read([block for some in blocks for block in some]):
        assert data is not None
        for reader in read_block(data)[1]:
            found.update(uid_list(reader.device_uids))
    return found


async def check_no_orphans(owner: Owner, directory: Path) -> None:
    """Every byte of every block file is named by the catalog. Closes the owner."""
    await owner.store.close()
    tidy = EmbeddedStore(directory, file_bytes=FILE_BYTES)
    await tidy.open()
    await tidy.sweep()
    await tidy.close()
    catalog = sqlite3.connect(directory / "catalog.db")
    named = dict(catalog.execute("SELECT file_id, max(position + length) FROM blocks GROUP BY file_id"))
    files = {number for (number,) in catalog.execute("SELECT file_id FROM files")}
    catalog.close()
    there = {int(path.stem): path.stat().st_size for path in (directory / "blocks").glob("*.blk")}
    assert (there, set(there)) == (named, files)
