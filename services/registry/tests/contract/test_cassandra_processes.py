"""The Cassandra store as several processes use it: rivals, a process that dies at any moment, a late mark."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from tidewire_kit.cassandra import CassandraSettings
from tidewire_kit.errors import Unavailable
from tidewire_kit.filter import parse
from tidewire_kit.ids import TenantId, Uid, new_uid
from tidewire_registry.adapters.cassandra import CassandraStore
from tidewire_registry.adapters.cassandra.plan import CommitPlan
from tidewire_registry.domain.changes import Kind, Tombstone, ref_of
from tidewire_registry.domain.credentials import Algorithm, Credential
from tidewire_registry.domain.devices import Device, DeviceState
from tidewire_registry.ports import Conflict, DeviceLimit, Replay, WriteSet
from tidewire_testkit.cassandra import connected
from tidewire_testkit.faults.injection import Crash, Fault, Schedule, every_call
from tidewire_testkit.faults.losing_session import LosingReplies

pytestmark = pytest.mark.servers

Opener = Callable[..., Awaitable[CassandraStore]]


@pytest.fixture
async def open_store(cassandra: CassandraSettings) -> AsyncIterator[Opener]:
    """Opens a store as one more process would; `ahead_us`: by how much its clock is ahead."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_(ahead_us: int = 0) -> CassandraStore:
            from tidewire_registry.adapters.cassandra.store import _wall_clock_us

            store = CassandraStore(cassandra, now_us=lambda: _wall_clock_us() + ahead_us)
            await store.start()
            stack.push_async_callback(store.close)
            return store

        yield open_


def changed(device: Device, **fields: object) -> Device:
    return replace(device, revision=device.revision + 1, **fields)  # type: ignore[arg-type]


def buried(device: Device) -> Tombstone:
    return Tombstone(Kind.DEVICE, device.tenant, device.uid, device.id, None, device.revision + 1, 7)


async def one(store: CassandraStore, tenant: TenantId, id_: str) -> Device | None:
    return (await store.devices(tenant, [id_])).get(id_)


async def outcomes(*work: Awaitable[None]) -> list[BaseException | None]:
    return await asyncio.gather(*work, return_exceptions=True)


# Rivals


async def test_of_processes_that_change_the_same_device_one_wins(open_store: Opener, make) -> None:
    stores = [await open_store() for _ in range(3)]
    tenant = await make.stored_tenant(stores[0])
    device = make.device(tenant, "d")
    await stores[0].commit(tenant, WriteSet(puts=[device]))
    for round_ in range(5):
        rivals = [changed(device, display_name=f"{round_}-{i}") for i in range(6)]
        ended = await outcomes(
            *(stores[i % 3].commit(tenant, WriteSet(puts=[rival])) for i, rival in enumerate(rivals))
        )
        assert sum(outcome is None for outcome in ended) == 1, ended
        assert sum(isinstance(outcome, Conflict) for outcome in ended) == 5
        (winner,) = [rival for rival, outcome in zip(rivals, ended, strict=True) if outcome is None]
        for store in stores:
            assert await one(store, tenant, "d") == winner
        device = winner


async def test_a_limit_holds_for_all_processes_together(open_store: Opener, make) -> None:
    stores = [await open_store() for _ in range(2)]
    tenant = await make.stored_tenant(stores[0])
    batches = [[make.device(tenant, f"d{i}-{j}") for j in range(3)] for i in range(8)]
    ended = await outcomes(
        *(
            stores[i % 2].commit(tenant, WriteSet(puts=batch, device_limit=10))
            for i, batch in enumerate(batches)
        )
    )
    assert sum(outcome is None for outcome in ended) == 3
    assert all(outcome is None or isinstance(outcome, DeviceLimit) for outcome in ended)
    for store in stores:
        assert await store.counts(tenant) == (9, 0)
        assert len((await store.list_devices(tenant, None, "", 100)).items) == 9


async def test_a_name_and_a_request_make_one_tenant(open_store: Opener, make) -> None:
    stores = [await open_store() for _ in range(2)]
    rivals = [make.tenant("acme") for _ in range(6)]
    ended = await outcomes(
        *(stores[i % 2].commit(rival.uid, WriteSet(puts=[rival])) for i, rival in enumerate(rivals))
    )
    (winner,) = [rival for rival, outcome in zip(rivals, ended, strict=True) if outcome is None]
    assert sum(isinstance(outcome, Conflict) for outcome in ended) == 5
    assert await stores[1].tenant_by_id("acme") == winner
    assert [tenant.uid for tenant in (await stores[0].tenants("", 10)).items] == [winner.uid]

    twins = [make.tenant(f"twin-{i}") for i in range(4)]
    none = TenantId(bytes(16))
    ended = await outcomes(
        *(
            stores[i % 2].commit(
                twin.uid, WriteSet(puts=[twin], replay=Replay("r", b"p", [twin.id], [Uid(twin.uid)], 5))
            )
            for i, twin in enumerate(twins)
        )
    )
    (made,) = [twin for twin, outcome in zip(twins, ended, strict=True) if outcome is None]
    replay = await stores[1].replay(none, "r")
    assert replay == Replay("r", b"p", [made.id], [Uid(made.uid)], 5)
    for twin in twins:
        if twin is not made:  # its name is free again
            await stores[0].commit(twin.uid, WriteSet(puts=[twin]))


async def test_a_claim_whose_tenant_never_came_is_taken_over_and_it_can_come_no_more(
    open_store: Opener, make
) -> None:
    slow, later = await open_store(), await open_store(ahead_us=31_000_000)
    stalled, tenant = make.tenant("acme"), make.tenant("acme")
    request = Replay("r", b"p", ["acme"], [Uid(stalled.uid)], 5)
    await slow._claims.claim(stalled, request, 0)  # and there it stops for a while
    assert await later.replay(TenantId(bytes(16)), "r") is None
    assert await later.tenant_by_id("acme") is None
    near = await open_store()
    with pytest.raises(Conflict):  # it may be about to come
        await near.commit(tenant.uid, WriteSet(puts=[tenant]))
    own = replace(request, object_uids=[Uid(tenant.uid)])
    await later.commit(tenant.uid, WriteSet(puts=[tenant], replay=own))
    with pytest.raises(Conflict):
        await slow.commit(stalled.uid, WriteSet(puts=[stalled], replay=request))
    assert await slow.tenant_by_id("acme") == tenant
    assert await slow.replay(TenantId(bytes(16)), "r") == own


# Death and lost replies


async def whole(store: CassandraStore, tenant: TenantId) -> dict[str, Device]:
    """What is there, after checking that its parts agree with each other."""
    await store._journal.settle(tenant)
    devices = {d.id: d for d in (await store.list_devices(tenant, None, "", 1000)).items}
    credentials = 0
    for device in devices.values():
        held = (await store.credentials(tenant, device.uid)).items
        credentials += len(held)
        for key in held:
            assert await store.credential(tenant, key.uid) == key
        below = {d.id for d in await store.descendants(tenant, device.uid)}
        assert below == {d.id for d in devices.values() if device.uid in d.ancestors}
    assert await store.counts(tenant) == (len(devices), credentials)
    condition = parse("labels.a = y", "acme")
    listed = {d.id for d in (await store.list_devices(tenant, condition, "", 1000)).items}
    assert listed == {d.id for d in devices.values() if d.labels.get("a") == "y"}
    noted = {(ref_of(change), change.revision) for change in await store.unpublished(1000)}
    assert {(ref_of(device), device.revision) for device in devices.values()} <= noted
    return devices


@pytest.mark.timeout(300, func_only=True)
@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name.lower())
async def test_a_commit_is_whole_whichever_of_its_calls_fails(
    open_store: Opener, cassandra: CassandraSettings, make, fault: Fault
) -> None:
    healthy = await open_store()
    points = 0
    async with connected(cassandra) as session:
        tenant, before, after = TenantId(b""), dict[str, Device](), dict[str, Device]()

        async def run(schedule: Schedule) -> None:
            """Three devices; one commit that changes one, moves one, deletes one, and makes one with a key."""
            nonlocal tenant, before, after
            tenant = await make.stored_tenant(healthy, f"t{points}")
            gw = make.device(tenant, "gw")
            leaf = make.device(tenant, "leaf", gw, labels={"a": "x"}, type="pump")
            old = make.device(tenant, "old", gw, labels={"a": "x"})
            new = make.device(tenant, "new", gw, labels={"a": "y"}, type="pump")
            await healthy.commit(tenant, WriteSet(puts=[gw, leaf, old]))
            key = Credential(tenant, new.uid, "new", new_uid(), "PEM", Algorithm.ES256, None, 1)
            moved = changed(leaf, parent_id="", ancestors=(), labels={"a": "y"}, type="")
            blocked = changed(gw, state=DeviceState.BLOCKED)
            before = {"gw": gw, "leaf": leaf, "old": old}
            after = {"gw": blocked, "leaf": moved, "new": new}
            losing = LosingReplies(session, schedule)
            store = CassandraStore(cassandra, session=losing)
            await store.start()
            with contextlib.suppress(Crash, Unavailable):
                await store.commit(
                    tenant, WriteSet(puts=[blocked, moved, new, key], tombstones=[buried(old)])
                )
            await losing.drain()
            with contextlib.suppress(Crash):
                await store.close()

        async for _ in every_call(fault, run):
            points += 1
            found = await whole(healthy, tenant)
            assert found in (before, after), found
            # The next commit stands on what is there, whole.
            await healthy.commit(tenant, WriteSet(puts=[changed(found["gw"], display_name="next")]))
            with pytest.raises(Conflict):
                await healthy.commit(tenant, WriteSet(puts=[changed(found["gw"], display_name="stale")]))
            assert (await healthy.counts(tenant))[0] == 3
    assert points >= 5


async def test_the_sweep_completes_what_a_dead_process_left(
    open_store: Opener, cassandra: CassandraSettings, make
) -> None:
    class DiesAfterTheCommitPoint:
        def next(self, what: str) -> Fault | None:
            return Fault.CRASH_BEFORE if what.startswith("batch") else None

    healthy = await open_store()
    tenant = await make.stored_tenant(healthy)
    async with connected(cassandra) as session:
        store = CassandraStore(cassandra, session=LosingReplies(session, DiesAfterTheCommitPoint()))
        await store.start()
        with pytest.raises(Crash):
            await store.commit(tenant, WriteSet(puts=[make.device(tenant, "d")]))
        with contextlib.suppress(Crash):
            await store.close()
    assert await one(healthy, tenant, "d") is None
    assert await healthy._journal.sweep(older_than_seconds=0) == 1
    assert await one(healthy, tenant, "d") is not None
    assert await healthy.counts(tenant) == (1, 0)
    assert len(await healthy.unpublished(10)) == 2


# Publishing


async def test_what_one_process_left_unpublished_another_finds_and_marks(open_store: Opener, make) -> None:
    first, second = await open_store(), await open_store()
    tenant = await make.stored_tenant(first)
    devices = [make.device(tenant, f"d{i}") for i in range(250)]
    await first.commit(tenant, WriteSet(puts=devices))
    # Marks of what it did not read before: it has published it for a caller.
    await second.mark_published(devices[:100])
    left = await second.unpublished(1000)
    assert {change.uid for change in left} == {tenant, *(device.uid for device in devices[100:])}
    assert len(await second.unpublished(7)) == 7
    await second.mark_published(left)
    for store in (first, second):
        assert await store.unpublished(1000) == []


async def test_a_mark_that_comes_after_a_newer_revision_has_the_present_one_published_again(
    open_store: Opener, make
) -> None:
    first, second = await open_store(), await open_store()
    tenant = await make.stored_tenant(first)
    device = make.device(tenant, "d")
    await first.mark_published(await first.unpublished(10))
    await first.commit(tenant, WriteSet(puts=[device]))  # its publish is held up
    newer = changed(device, type="pump")
    await second.commit(tenant, WriteSet(puts=[newer]))
    await second.mark_published([newer])
    await first.mark_published([device])  # now it is through, perhaps behind the newer one
    for store in (first, second):
        assert await store.unpublished(10) == [newer]
    await second.mark_published([newer])
    assert await first.unpublished(10) == []
    grave = buried(newer)
    await second.commit(tenant, WriteSet(tombstones=[grave]))
    await second.mark_published([grave])
    await first.mark_published([newer])
    assert await second.unpublished(10) == [grave]


async def test_periods_that_are_over_are_forgotten_and_late_notes_are_not(open_store: Opener, make) -> None:
    store, later = await open_store(), await open_store(ahead_us=120_000_000)
    tenant = await make.stored_tenant(store)
    await store.mark_published(await store.unpublished(10))
    assert await store._notes._periods() != []
    assert await later.unpublished(10) == []
    assert await later._notes._periods() == []
    device = make.device(tenant, "d")
    await later.commit(tenant, WriteSet(puts=[device]))
    await later.mark_published([device])
    assert await later.unpublished(10) == []
    # What a commit of long ago left is completed only now, by a process that was started since.
    plan = CommitPlan(tenant, store._notes.period(), noted=[(Kind.DEVICE, "d", device.uid, 1)])
    newest = await open_store(ahead_us=120_000_000)
    version = time.time_ns() // 1_000
    await newest._notes.write(plan, version, version)
    assert await later.unpublished(10) == [device]


# Against a model


@pytest.mark.timeout(180, func_only=True)
@pytest.mark.parametrize("seed", range(3))
async def test_processes_at_random_do_what_one_would(open_store: Opener, make, seed: int) -> None:
    """Each commit either conflicts or takes effect as a whole, as a dictionary of devices does."""
    chance = random.Random(seed)
    stores = [await open_store() for _ in range(3)]
    tenant = await make.stored_tenant(stores[0])
    model: dict[str, Device] = {}
    for _ in range(40):
        store = chance.choice(stores)
        id_ = f"d{chance.randrange(6)}"
        held = model.get(id_)
        parents = [device for device in model.values() if device.id < id_ and not device.ancestors]
        match chance.randrange(3):
            case 0:
                device = make.device(tenant, id_, chance.choice([None, *parents]), labels={"a": "x"})
                writes, wins, result = WriteSet(puts=[device]), held is None, device
            case 1 if held is not None:
                base = held if chance.random() < 0.7 else replace(held, revision=held.revision + 1)
                device = changed(base, labels={"a": chance.choice("xy")})
                writes, wins, result = WriteSet(puts=[device]), base is held, device
            case _ if held is not None:
                below = sum(held.uid in device.ancestors for device in model.values())
                said = below if chance.random() < 0.7 else below + 1
                writes = WriteSet(tombstones=[buried(held)], descendants=(held.uid, said))
                wins, result = said == below, None
            case _:
                continue
        try:
            await store.commit(tenant, writes)
            assert wins, writes
        except Conflict:
            assert not wins, writes
            continue
        if result is None:
            del model[id_]
        else:
            model[id_] = result
        for other in stores:
            assert {d.id: d for d in (await other.list_devices(tenant, None, "", 100)).items} == model
            assert await other.counts(tenant) == (len(model), 0)
            condition = parse("labels.a = y", "acme")
            labelled = {d.id for d in (await other.list_devices(tenant, condition, "", 100)).items}
            assert labelled == {d.id for d in model.values() if d.labels == {"a": "y"}}
