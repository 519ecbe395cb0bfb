"""The contract of `RegistryStore` on tenants: A neither reads, lists, counts, pages into nor infers B."""

import pytest

from tidewire_kit.filter import parse
from tidewire_kit.ids import TenantId, Uid
from tidewire_registry.domain.changes import Kind, Tombstone, ref_of
from tidewire_registry.domain.credentials import Algorithm, Credential
from tidewire_registry.domain.devices import Device, Location
from tidewire_registry.ports import Conflict, Guard, RegistryStore, Replay, WriteSet

FILTERS = [
    "",
    "type = pump",
    "labels.site = s1",
    "labels.site:*",
    "parent = gw",
    'ancestor("gw")',
    "state = ENROLLED",
    "within_box(-90, -180, 90, 180)",
    "within_radius(1, 2, 1000)",
    "name = d*",
    "NOT type = valve",
    "labels.site = s1 OR type = pump",
]


async def filled(store: RegistryStore, make, tenant: TenantId) -> list[Device]:
    """The same devices in each tenant: a gateway and three below it."""
    plain = {"type": "pump", "labels": {"site": "s1"}, "location": Location(1, 2)}
    gateway = make.device(tenant, "gw", **plain)
    devices = [gateway, *(make.device(tenant, f"d{i}", gateway, **plain) for i in range(3))]
    key = Credential(
        tenant, gateway.uid, "gw", Uid(bytes([len(devices)]) * 16), "PEM", Algorithm.ED25519, None, 1
    )
    replay = Replay("request", b"p", ["gw"], [gateway.uid], 1)
    await store.commit(tenant, WriteSet(puts=[*devices, key], replay=replay))
    return devices


@pytest.mark.parametrize("text", FILTERS)
async def test_lists_counts_and_pages_stay_within_a_tenant(store, make, text: str) -> None:
    a, b = await make.stored_tenant(store, "a"), await make.stored_tenant(store, "b")
    empty = await make.stored_tenant(store, "empty")
    own = {device.uid for device in await filled(store, make, a)}
    await filled(store, make, b)
    condition = parse(text, "a")
    page = await store.list_devices(a, condition, "", 100)
    assert page.items
    assert {device.uid for device in page.items} <= own
    assert {device.tenant for device in page.items} == {a}
    assert await store.count_devices(a, condition) == len(page.items)
    after_last = await store.list_devices(a, condition, page.items[-1].id, 100)
    assert after_last.items == []
    assert not after_last.more
    assert (await store.list_devices(empty, condition, "", 100)).items == []
    assert await store.count_devices(empty, condition) == 0


async def test_reads_by_id_and_uid_stay_within_a_tenant(store, make) -> None:
    a, b = await make.stored_tenant(store, "a"), await make.stored_tenant(store, "b")
    theirs = await filled(store, make, b)
    gateway = theirs[0]
    (key,) = (await store.credentials(b, gateway.uid)).items
    assert await store.devices(a, [device.id for device in theirs]) == {}
    assert await store.descendants(a, gateway.uid) == []
    assert (await store.credentials(a, gateway.uid)).items == []
    assert await store.credential(a, key.uid) is None
    assert await store.replay(a, "request") is None
    assert await store.counts(a) == (0, 0)
    assert await store.counts(b) == (4, 1)


async def test_writes_do_not_touch_or_probe_another_tenant(store, make) -> None:
    a, b = await make.stored_tenant(store, "a"), await make.stored_tenant(store, "b")
    theirs = await filled(store, make, b)
    gateway = theirs[0]
    guarded = WriteSet(puts=[make.device(a, "x")], guards=[Guard("gw", gateway.uid, 1)])
    with pytest.raises(Conflict):  # as for a device that does not exist
        await store.commit(a, guarded)
    await store.commit(a, WriteSet(puts=[make.device(a, "y")], descendants=(gateway.uid, 0)))
    await store.commit(a, WriteSet(puts=[make.device(a, "gw")], replay=Replay("request", b"q", [], [], 1)))
    grave = Tombstone(Kind.DEVICE, a, theirs[1].uid, theirs[1].id, None, 2, 1)
    with pytest.raises(Conflict):
        await store.commit(a, WriteSet(tombstones=[grave]))
    with pytest.raises(ValueError, match="one tenant"):
        await store.commit(a, WriteSet(puts=[make.device(b, "z")]))
    assert await store.devices(b, ["gw", "d0", "d1", "d2", "z"]) == {device.id: device for device in theirs}


async def test_a_deleted_tenant_is_purged_and_its_neighbours_and_successor_are_not(store, make) -> None:
    a, b = await make.stored_tenant(store, "a"), await make.stored_tenant(store, "b")
    mine = await filled(store, make, a)
    theirs = await filled(store, make, b)
    old = Tombstone(Kind.DEVICE, b, theirs[3].uid, theirs[3].id, None, 2, 1)
    await store.commit(b, WriteSet(tombstones=[old]))
    assert await store.purge_candidates(b, 100) == []  # alive
    grave = Tombstone(Kind.TENANT, b, Uid(b), "b", None, 2, 9)
    await store.commit(b, WriteSet(tombstones=[grave]))

    assert await store.tenant(b) is None
    assert await store.tenant_by_id("b") is None
    assert [tenant.id for tenant in (await store.tenants("", 10)).items] == ["a"]
    assert await store.deleted_tenants() == [b]
    with pytest.raises(Conflict):
        await store.commit(b, WriteSet(puts=[make.device(b, "late")]))
    successor = await make.stored_tenant(store, "b")
    assert (await store.list_devices(successor, None, "", 10)).items == []
    own = await filled(store, make, successor)

    purged = set()
    while refs := await store.purge_candidates(b, 2):
        assert len(refs) <= 2
        await store.purge(b, refs)
        purged.update(refs)
    await store.purge(b, [])
    assert {ref_of(device) for device in theirs} | {ref_of(old)} <= purged
    assert len(purged) == 5  # 3 devices, a device's tombstone, a credential
    assert all(ref.tenant == b for ref in purged)
    assert await store.deleted_tenants() == []
    assert (await store.list_devices(b, None, "", 10)).items == []
    assert await store.replay(b, "request") is None

    for tenant, devices in ((a, mine), (successor, own)):
        assert await store.devices(tenant, [d.id for d in devices]) == {d.id: d for d in devices}
        assert await store.counts(tenant) == (4, 1)
        assert len((await store.list_devices(tenant, parse("labels.site = s1", "x"), "", 10)).items) == 4
        assert len(await store.descendants(tenant, devices[0].uid)) == 3
        await store.purge(tenant, [ref_of(device) for device in devices])  # of a live tenant: nothing happens
        assert await store.counts(tenant) == (4, 1)
        assert len((await store.list_devices(tenant, None, "", 10)).items) == 4
    # The tombstone stays: it is how the other services learn what to purge.
    await store.unpublish_all()
    assert grave in await store.unpublished(1000)
