"""The contract of `RegistryStore`, run over every adapter: what a commit does or does not do, and what reads see."""

import asyncio
from dataclasses import replace

import pytest

from tidewire_kit.ids import TenantId, Uid, new_uid
from tidewire_registry.domain.changes import Kind, ObjectRef, Tombstone, ref_of
from tidewire_registry.domain.credentials import Algorithm, Credential
from tidewire_registry.domain.devices import Device, DeviceState, Location
from tidewire_registry.domain.tenants import Quotas, Retention, TenantState
from tidewire_registry.ports import Conflict, DeviceLimit, Guard, RegistryStore, Replay, WriteSet


def credential(device: Device) -> Credential:
    return Credential(device.tenant, device.uid, device.id, new_uid(), "PEM", Algorithm.ES256, 99, 1)


def tombstone(device: Device) -> Tombstone:
    return Tombstone(Kind.DEVICE, device.tenant, device.uid, device.id, None, device.revision + 1, 7)


def changed(device: Device, **fields: object) -> Device:
    return replace(device, revision=device.revision + 1, **fields)  # type: ignore[arg-type]


async def stored(store: RegistryStore, tenant: TenantId, id_: str) -> Device | None:
    return (await store.devices(tenant, [id_])).get(id_)


async def ids(store: RegistryStore, tenant: TenantId) -> list[str]:
    return [device.id for device in (await store.list_devices(tenant, None, "", 1000)).items]


# Tenants


async def test_a_tenant_is_read_as_it_was_written(store, make) -> None:
    tenant = replace(
        make.tenant("acme"),
        display_name="Acme · GmbH",
        quotas=Quotas(readings_per_second=5, stored_bytes=2**60),
        retention=Retention(3_600_000_000, None),
        labels={"a": "é"},
        state=TenantState.BLOCKED,
    )
    await store.commit(tenant.uid, WriteSet(puts=[tenant]))
    assert await store.tenant(tenant.uid) == tenant
    assert await store.tenant_by_id("acme") == tenant
    assert await store.tenant(TenantId(new_uid())) is None
    assert await store.tenant_by_id("acm") is None


async def test_an_id_belongs_to_one_tenant(store, make) -> None:
    await make.stored_tenant(store, "acme")
    other = make.tenant("acme")
    with pytest.raises(Conflict):
        await store.commit(other.uid, WriteSet(puts=[other]))
    assert await store.tenant(other.uid) is None


async def test_a_tenant_changes_from_the_revision_that_was_read(store, make) -> None:
    uid = await make.stored_tenant(store)
    tenant = await store.tenant(uid)
    second = replace(tenant, display_name="second", revision=2)
    await store.commit(uid, WriteSet(puts=[second]))
    for late in (second, replace(tenant, display_name="late", revision=2), replace(tenant, revision=4)):
        with pytest.raises(Conflict):
            await store.commit(uid, WriteSet(puts=[late]))
    assert await store.tenant(uid) == second


async def test_tenants_are_listed_by_id(store, make) -> None:
    for id_ in ("b", "a-2", "a", "c"):
        await make.stored_tenant(store, id_)
    page = await store.tenants("", 3)
    assert [tenant.id for tenant in page.items] == ["a", "a-2", "b"]
    assert page.more
    page = await store.tenants("b", 3)
    assert [tenant.id for tenant in page.items] == ["c"]
    assert not page.more


# Devices


async def test_a_device_is_read_as_it_was_written(store, make) -> None:
    tenant = await make.stored_tenant(store)
    gateway = make.device(tenant, "gw")
    device = make.device(
        tenant,
        "A0:b1.c_d-e",
        gateway,
        display_name="Ünïcode",
        type="pump",
        labels={"site": "s'1", "a.b-c": '"'},
        location=Location(-12.5, 179.999),
    )
    await store.commit(tenant, WriteSet(puts=[gateway, device]))
    assert await stored(store, tenant, device.id) == device
    assert await store.devices(tenant, ["gw", "GW", "nobody"]) == {"gw": gateway}
    assert await store.counts(tenant) == (2, 0)


async def test_an_id_belongs_to_one_device_and_a_batch_is_all_or_nothing(store, make) -> None:
    tenant = await make.stored_tenant(store)
    first = make.device(tenant, "d1", labels={"a": "1"})
    await store.commit(tenant, WriteSet(puts=[first]))
    with pytest.raises(Conflict):
        await store.commit(tenant, WriteSet(puts=[make.device(tenant, f"d{i}") for i in (0, 1, 2)]))
    assert await ids(store, tenant) == ["d1"]
    assert await stored(store, tenant, "d1") == first
    assert await store.counts(tenant) == (1, 0)


async def test_a_device_changes_from_the_revision_that_was_read(store, make) -> None:
    tenant = await make.stored_tenant(store)
    device = make.device(tenant, "d", labels={"a": "1", "b": "2"})
    await store.commit(tenant, WriteSet(puts=[device]))
    second = changed(device, labels={"b": "3"}, state=DeviceState.BLOCKED)
    await store.commit(tenant, WriteSet(puts=[second]))
    wrong_uid = replace(changed(second), uid=new_uid())
    for late in (second, changed(device), replace(second, revision=9), wrong_uid):
        with pytest.raises(Conflict):
            await store.commit(tenant, WriteSet(puts=[late]))
    assert await stored(store, tenant, "d") == second


async def test_writes_in_a_tenant_that_is_not_there_conflict(store, make) -> None:
    tenant = TenantId(new_uid())
    with pytest.raises(Conflict):
        await store.commit(tenant, WriteSet(puts=[make.device(tenant, "d")]))
    assert await ids(store, tenant) == []


async def test_a_guard_must_hold(store, make) -> None:
    tenant = await make.stored_tenant(store)
    gateway = make.device(tenant, "gw")
    await store.commit(tenant, WriteSet(puts=[gateway]))
    child = make.device(tenant, "child", gateway)
    for guard in (
        Guard("gw", gateway.uid, 2),
        Guard("gw", new_uid(), 1),
        Guard("nobody", gateway.uid, 1),
    ):
        with pytest.raises(Conflict):
            await store.commit(tenant, WriteSet(puts=[child], guards=[guard]))
    await store.commit(tenant, WriteSet(puts=[child], guards=[Guard("gw", gateway.uid, 1)]))
    assert await ids(store, tenant) == ["child", "gw"]


async def test_descendants_are_found_and_counted(store, make) -> None:
    tenant = await make.stored_tenant(store)
    site = make.device(tenant, "site")
    gateway = make.device(tenant, "gw", site)
    leaf = make.device(tenant, "leaf", gateway)
    await store.commit(tenant, WriteSet(puts=[leaf, gateway, site]))
    assert {d.id for d in await store.descendants(tenant, site.uid)} == {"gw", "leaf"}
    assert {d.id for d in await store.descendants(tenant, leaf.uid)} == set()
    for count in (0, 1, 3):
        with pytest.raises(Conflict):
            await store.commit(tenant, WriteSet(puts=[changed(site)], descendants=(site.uid, count)))
    moved = changed(leaf, parent_id="site", ancestors=(site.uid,))
    await store.commit(tenant, WriteSet(puts=[moved], descendants=(gateway.uid, 1)))
    assert await store.descendants(tenant, gateway.uid) == []
    await store.commit(tenant, WriteSet(tombstones=[tombstone(gateway)], descendants=(gateway.uid, 0)))
    assert [d.id for d in await store.descendants(tenant, site.uid)] == ["leaf"]


async def test_the_device_limit_holds_also_for_callers_at_once(store, make) -> None:
    tenant = await make.stored_tenant(store)
    batches = [[make.device(tenant, f"d{i}-{j}") for j in range(3)] for i in range(10)]
    outcomes = await asyncio.gather(
        *(store.commit(tenant, WriteSet(puts=batch, device_limit=10)) for batch in batches),
        return_exceptions=True,
    )
    assert sum(outcome is None for outcome in outcomes) == 3
    assert all(outcome is None or isinstance(outcome, DeviceLimit) for outcome in outcomes)
    assert await store.counts(tenant) == (9, 0)
    assert len(await ids(store, tenant)) == 9


async def test_a_deleted_name_is_free_for_another_device(store, make) -> None:
    tenant = await make.stored_tenant(store)
    old = make.device(tenant, "d", labels={"a": "1"})
    await store.commit(tenant, WriteSet(puts=[old]))
    await store.commit(tenant, WriteSet(tombstones=[tombstone(old)]))
    assert await stored(store, tenant, "d") is None
    with pytest.raises(Conflict):
        await store.commit(tenant, WriteSet(tombstones=[tombstone(old)]))
    new = make.device(tenant, "d")
    await store.commit(tenant, WriteSet(puts=[new]))
    assert await stored(store, tenant, "d") == new
    assert await store.counts(tenant) == (1, 0)


async def test_pages_follow_one_another_without_gap_or_repetition(store, make) -> None:
    tenant = await make.stored_tenant(store)
    names = sorted(f"{prefix}{i}" for prefix in ("Z", "a", "é:"[1:], "0.") for i in range(25))
    names = [name for name in names if name[0].isalnum()]
    await store.commit(tenant, WriteSet(puts=[make.device(tenant, name) for name in reversed(names)]))
    seen: list[str] = []
    while True:
        page = await store.list_devices(tenant, None, seen[-1] if seen else "", 7)
        seen += [device.id for device in page.items]
        if not page.more:
            break
        assert len(page.items) == 7
    assert seen == sorted(names)


# Credentials


async def test_credentials_are_kept_by_device(store, make) -> None:
    tenant = await make.stored_tenant(store)
    device, other = make.device(tenant, "d"), make.device(tenant, "e")
    keys = sorted((credential(device) for _ in range(5)), key=lambda key: key.uid)
    await store.commit(tenant, WriteSet(puts=[device, other, *reversed(keys), credential(other)]))
    assert await store.counts(tenant) == (2, 6)
    assert (await store.credentials(tenant, device.uid)).items == keys
    page = await store.credentials(tenant, device.uid, keys[1].id, 2)
    assert page.items == keys[2:4]
    assert page.more
    assert await store.credential(tenant, keys[0].uid) == keys[0]
    gone = Tombstone(Kind.CREDENTIAL, tenant, keys[0].uid, "d", device.uid, 2, 7)
    with pytest.raises(Conflict):
        await store.commit(tenant, WriteSet(tombstones=[gone], credentials_below=(device.uid, 4)))
    await store.commit(tenant, WriteSet(tombstones=[gone], credentials_below=(device.uid, 5)))
    assert await store.credential(tenant, keys[0].uid) is None
    assert await store.counts(tenant) == (2, 5)


# Requests


async def test_a_request_is_remembered_once_and_forgotten_later(store, make) -> None:
    tenant = await make.stored_tenant(store)
    device = make.device(tenant, "d")
    kept = Replay("id-1", b"print", ["d"], [device.uid], 1000)
    await store.commit(tenant, WriteSet(puts=[device], replay=kept))
    assert await store.replay(tenant, "id-1") == kept
    assert await store.replay(tenant, "id-2") is None
    with pytest.raises(Conflict):
        await store.commit(tenant, WriteSet(puts=[make.device(tenant, "e")], replay=kept))
    assert await stored(store, tenant, "e") is None
    await store.forget_replays(1000)
    assert await store.replay(tenant, "id-1") == kept
    await store.forget_replays(1001)
    assert await store.replay(tenant, "id-1") is None


# Publishing


async def unpublished(store: RegistryStore) -> set[tuple[ObjectRef, int]]:
    return {(ref_of(change), change.revision) for change in await store.unpublished(1000)}


async def test_every_write_is_unpublished_until_it_is_marked(store, make) -> None:
    uid = await make.stored_tenant(store)
    tenant = await store.tenant(uid)
    device = make.device(uid, "d")
    key = credential(device)
    await store.commit(uid, WriteSet(puts=[device, key]))
    assert await unpublished(store) == {(ref_of(change), 1) for change in (tenant, device, key)}
    await store.mark_published([tenant, key])
    assert await store.unpublished(10) == [device]
    second = changed(device, type="pump")
    await store.commit(uid, WriteSet(puts=[second]))
    await store.mark_published([device])  # the older revision: the newer is not on the topic yet
    assert await store.unpublished(10) == [second]
    await store.mark_published([second])
    assert await store.unpublished(10) == []
    grave = tombstone(second)
    await store.commit(uid, WriteSet(tombstones=[grave]))
    assert await store.unpublished(10) == [grave]
    await store.mark_published([grave])
    assert await store.unpublished(10) == []


async def test_what_was_published_is_published_again_when_the_topic_has_gone_back(store, make) -> None:
    uid = await make.stored_tenant(store)
    tenant = await store.tenant(uid)
    device = make.device(uid, "d")
    key = credential(device)
    await store.commit(uid, WriteSet(puts=[device, key, make.device(uid, "other")]))
    await store.mark_published(await store.unpublished(10))
    await store.unpublish([(ref_of(device), "d"), (ref_of(key), "d"), (ref_of(tenant), "acme")])
    assert await unpublished(store) == {(ref_of(change), 1) for change in (tenant, device, key)}
    await store.mark_published(await store.unpublished(10))
    assert await store.unpublished(10) == []
    grave = tombstone(device)
    await store.commit(uid, WriteSet(tombstones=[grave]))
    await store.mark_published([grave])
    await store.unpublish([(ref_of(device), "d"), (ObjectRef(Kind.DEVICE, uid, new_uid()), "nobody")])
    assert await store.unpublished(10) == [grave]


async def test_a_new_topic_gets_everything_tombstones_too(store, make) -> None:
    uid = await make.stored_tenant(store)
    gone = await make.stored_tenant(store, "gone")
    devices = [make.device(uid, f"d{i}") for i in range(3)]
    await store.commit(uid, WriteSet(puts=[*devices, credential(devices[1])]))
    await store.commit(uid, WriteSet(tombstones=[tombstone(devices[0])]))
    lost = make.device(gone, "lost")
    await store.commit(gone, WriteSet(puts=[lost]))
    grave = Tombstone(Kind.TENANT, gone, Uid(gone), "gone", None, 2, 7)
    await store.commit(gone, WriteSet(tombstones=[grave]))
    everything = await unpublished(store)
    assert (ref_of(grave), 2) in everything
    assert len(everything) == 6  # tenant, 2 devices, a device's and a tenant's tombstone, credential
    await store.mark_published(await store.unpublished(1000))
    assert await unpublished(store) == set()
    await store.unpublish_all()
    assert await unpublished(store) == everything
    assert await store.published_topic() == b""
    await store.set_published_topic(b"one")
    await store.set_published_topic(b"two")
    assert await store.published_topic() == b"two"


# Many at once


async def test_of_callers_that_change_the_same_device_one_wins(store, make) -> None:
    tenant = await make.stored_tenant(store)
    device = make.device(tenant, "d")
    await store.commit(tenant, WriteSet(puts=[device]))
    rivals = [changed(device, display_name=str(i)) for i in range(20)]
    outcomes = await asyncio.gather(
        *(store.commit(tenant, WriteSet(puts=[rival])) for rival in rivals), return_exceptions=True
    )
    winners = [rival for rival, outcome in zip(rivals, outcomes, strict=True) if outcome is None]
    assert [await stored(store, tenant, "d")] == winners
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 19
