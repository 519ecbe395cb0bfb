"""What only the embedded store can go through: a full disk, SIGKILL, a page of a large fleet without scanning it."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tidewire_kit.errors import FailedPrecondition, Unavailable
from tidewire_kit.filter import parse
from tidewire_kit.ids import TenantId, Uid
from tidewire_registry.adapters.embedded import EmbeddedStore, queries
from tidewire_registry.domain.changes import Kind, Tombstone
from tidewire_registry.domain.devices import Location
from tidewire_registry.ports import WriteSet

WRITER = """
import asyncio, sys
from pathlib import Path
from tidewire_kit.ids import TenantId, new_uid
from tidewire_registry.adapters.embedded import EmbeddedStore
from tidewire_registry.domain.devices import DeviceDraft, created
from tidewire_registry.domain.tenants import Quotas, Retention, Tenant, TenantState
from tidewire_registry.ports import WriteSet

async def main() -> None:
    store = EmbeddedStore(Path(sys.argv[1]))
    await store.start()
    uid = TenantId(bytes(15) + b"t")
    await store.commit(uid, WriteSet([Tenant(uid, "acme", "", TenantState.ACTIVE, Quotas(), Retention(), {}, 1, 1, 1)]))
    async def write(worker: int) -> None:
        for i in range(10**6):
            device = created(DeviceDraft(f"d{worker}-{i}", labels={"w": str(worker)}), uid, new_uid(), (), 1)
            await store.commit(uid, WriteSet([device]))
            print(device.id, flush=True)
    await asyncio.gather(*(write(worker) for worker in range(4)))

asyncio.run(main())
"""


def test_what_was_answered_survives_sigkill_and_nothing_is_half_there(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    answered = [process.stdout.readline().strip() for _ in range(200)]
    os.kill(process.pid, signal.SIGKILL)
    answered += process.stdout.read().split()
    process.wait()
    process.stdout.close()
    answered = [id_ for id_ in answered if id_[-1:].isdigit()]

    async def look() -> None:
        store = EmbeddedStore(tmp_path)
        await store.start()
        tenant = TenantId(bytes(15) + b"t")
        page = await store.list_devices(tenant, None, "", 100_000)
        kept = {device.id for device in page.items}
        # The last line of each writer may have been cut short by the signal.
        assert set(answered[:200]) <= kept
        assert await store.counts(tenant) == (len(kept), 0)
        labelled = await store.list_devices(tenant, parse("labels.w:*", "acme"), "", 100_000)
        assert {device.id for device in labelled.items} == kept
        assert len(await store.unpublished(10**6)) == len(kept) + 1
        await store.close()

    asyncio.run(look())


async def test_a_full_disk_refuses_loses_nothing_and_heals(tmp_path: Path, make) -> None:
    store = EmbeddedStore(tmp_path)
    await store.start()
    tenant = await make.stored_tenant(store)
    await store._write(lambda connection: connection.execute("PRAGMA max_page_count = 60"))
    kept: list[str] = []
    errors: list[Unavailable] = []
    while len(errors) < 3:
        device = make.device(tenant, f"d{len(kept):03}", labels={f"k{j}": "x" * 100 for j in range(20)})
        try:
            await store.commit(tenant, WriteSet(puts=[device]))
            kept.append(device.id)
        except Unavailable as error:
            errors.append(error)
    assert kept
    assert all("disk is full" in error.message for error in errors)
    assert [device.id for device in (await store.list_devices(tenant, None, "", 100)).items] == kept
    await store._write(lambda connection: connection.execute("PRAGMA max_page_count = 100000"))
    await store.commit(tenant, WriteSet(puts=[make.device(tenant, "later")]))
    assert await store.counts(tenant) == (len(kept) + 1, 0)
    await store.close()


async def test_a_closed_store_refuses(tmp_path: Path, make) -> None:
    store = EmbeddedStore(tmp_path)
    await store.start()
    tenant = await make.stored_tenant(store)
    await store.close()
    await store.close()
    with pytest.raises(Unavailable):
        await store.commit(tenant, WriteSet(puts=[make.device(tenant, "d")]))


async def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = EmbeddedStore(tmp_path / "file" / "registry")
    with pytest.raises(FailedPrecondition) as caught:
        await store.start()
    assert caught.value.reason == "DATA_DIR_NOT_WRITABLE"
    assert "TIDEWIRE_DATA_DIR" in caught.value.message
    await store.close()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "type = pump",
        "labels.site = s1",
        "labels.site = s1 AND type = pump",
        "state = BLOCKED",
        "parent = d00001",
        'ancestor("d00001")',
        "name = d0003*",
        "name >= d00300 AND type = pump",
        "within_box(10, 10, 11, 11)",
        "within_radius(10, 10, 5000)",
        "labels.serial = n777 OR labels.serial = n778",
        "labels.site = nowhere AND type = pump",
    ],
)
async def test_a_page_is_found_by_an_index_and_not_by_a_scan(
    tmp_path: Path, make, text: str, monkeypatch
) -> None:
    """Counts SQLite's steps instead of the time: a page of 20 out of 6,000 takes far fewer than a look at each."""
    monkeypatch.setattr(queries, "SPARSE", 300)
    store = EmbeddedStore(tmp_path)
    await store.start()
    tenant = await make.stored_tenant(store)
    root = make.device(tenant, "d00001")
    devices = [root] + [
        make.device(
            tenant,
            f"d{i:05}",
            root if i % 2 else None,
            type="pump" if i > 3000 else "valve",  # clustered: a walk by name would meet 3,000 valves first
            labels={"site": f"s{i % 50}", "serial": f"n{i}"},
            location=Location(i * 0.01, i * 0.01),
        )
        for i in range(2, 6000)
    ]
    await store.commit(tenant, WriteSet(puts=devices))
    condition = parse(text, "acme")

    def steps(connection) -> int:
        count = 0

        def tick() -> int:
            nonlocal count
            count += 1
            return 0

        query = queries.page_query(connection, tenant, condition, "", 20)
        connection.set_progress_handler(tick, 100)
        connection.execute(query.text, query.parameters).fetchall()
        connection.set_progress_handler(None, 0)
        return count * 100

    assert await store._read(steps) < 20_000
    everything = await store.list_devices(tenant, condition, "", 20)
    assert len(everything.items) <= 20
    await store.close()


async def test_no_file_holds_what_was_deleted(tmp_path: Path, make) -> None:
    words = [f"word-{number}-".encode() for number in range(4)]

    def found() -> list[bytes]:
        content = b"".join(path.read_bytes() for path in (tmp_path / "registry").iterdir())
        return [word for word in words if word in content]

    store = EmbeddedStore(tmp_path / "registry")
    await store.start()
    tenant, other = await make.stored_tenant(store, "acme"), await make.stored_tenant(store, "other")
    devices = [
        make.device(
            tenant, f"d{number}", display_name=f"word-{number}-name", labels={"a": f"word-{number}-a"}
        )
        for number in range(2)
    ]
    stays = make.device(other, "d", display_name="word-2-name")
    changed = make.device(other, "e", display_name="word-3-name")
    await store.commit(tenant, WriteSet(puts=devices))
    await store.commit(other, WriteSet(puts=[stays, changed]))
    await store.erase_deleted()
    assert found() == words
    grave = Tombstone(Kind.DEVICE, tenant, devices[0].uid, devices[0].id, None, 2, 7)
    await store.commit(tenant, WriteSet(tombstones=[grave]))
    await store.erase_deleted()
    assert found() == words[1:]
    grave = Tombstone(Kind.TENANT, tenant, Uid(tenant), "acme", None, 2, 7)
    await store.commit(tenant, WriteSet(tombstones=[grave]))
    while refs := await store.purge_candidates(tenant, 100):
        await store.purge(tenant, refs)
    await store.erase_deleted()
    assert found() == words[2:]
    await store.close()
    assert found() == words[2:]
