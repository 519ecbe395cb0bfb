"""Every change reaches the registry topic: before the answer, after failures, after restarts, on a new log."""

import asyncio
import errno
import shutil
import sqlite3
from collections.abc import Sequence
from typing import Any

import grpc
import pytest

from tidewire.registry.v1 import registry_pb2 as pb
from tidewire.registry.v1.resources_pb2 import Device
from tidewire_kit.errors import FailedPrecondition, Unavailable
from tidewire_kit.log.port import TableItem
from tidewire_kit.topics import REGISTRY
from tidewire_registry.adapters.embedded import EmbeddedStore
from tidewire_registry.application import upkeep
from tidewire_testkit.polling import until

ACME = "tenants/acme"
EMBEDDED = pytest.mark.parametrize("start", ["embedded"], indirect=True)


class FailingLog:
    """A real log whose `put`s to the registry topic fail while `failing`; before the record is written, or after."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self.failing = False
        self.written_all_the_same = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def put(self, topic: str, items: Sequence[TableItem]) -> None:
        changes = [item for item in items if not item[0].startswith(b"-/")]
        if topic == REGISTRY and changes and self.failing:
            if self.written_all_the_same:
                await self._log.put(topic, items)
            raise Unavailable("message log", "was told to fail")
        await self._log.put(topic, items)


async def test_a_change_is_on_the_topic_before_it_is_answered(platform) -> None:
    admin = platform.admin
    tenant = await admin(pb.CreateTenantRequest(tenant_id="acme"))
    topic = await platform.topic()
    assert topic[f"{tenant.uid}/tenant/{tenant.uid}"].tenant == tenant
    revisions = []
    key = ""
    for step in range(5):
        if step == 0:
            device = await admin(pb.CreateDeviceRequest(parent=ACME, device_id="d"))
            key = f"{tenant.uid}/device/{device.uid}"
        elif step % 2:
            device = await admin(pb.BlockDeviceRequest(name=f"{ACME}/devices/d"))
        else:
            device = await admin(pb.UnblockDeviceRequest(name=f"{ACME}/devices/d"))
        change = (await platform.topic())[key]
        assert change.device.device == device
        assert change.device.tenant_uid.hex() == tenant.uid
        assert change.device.device_uid.hex() == device.uid
        revisions.append(change.revision)
    assert revisions == [1, 2, 3, 4, 5]
    await admin(pb.DeleteDeviceRequest(name=device.name))
    change = (await platform.topic())[key]
    assert change.deleted
    assert change.revision == 6
    assert change.device.device == Device(name=device.name, uid=device.uid)


async def test_keys_and_heartbeats_are_on_the_topic(platform) -> None:
    topic = await platform.topic()
    (key,) = [change.signing_key for name, change in topic.items() if name.startswith("-/key/")]
    assert key.algorithm == "ES256"
    assert "BEGIN PUBLIC KEY" in key.public_key_pem
    first = topic["-/heartbeat/registry"].heartbeat.write_time

    async def later() -> bool:
        now = (await platform.topic())["-/heartbeat/registry"].heartbeat.write_time
        return now.ToNanoseconds() > first.ToNanoseconds()

    await until(later, message="a further heartbeat")


@pytest.mark.parametrize("written", [False, True])
async def test_a_lost_publish_is_answered_unavailable_and_made_up_for(start, written: bool) -> None:
    logs: list[FailingLog] = []

    def wrap(log: Any) -> FailingLog:
        logs.append(FailingLog(log))
        return logs[-1]

    async with start(wrap) as platform:
        admin = platform.admin
        tenant = await admin(pb.CreateTenantRequest(tenant_id="acme"))
        await admin(pb.CreateDeviceRequest(parent=ACME, device_id="d"))
        logs[0].failing, logs[0].written_all_the_same = True, written
        with pytest.raises(Exception, match="NOT_YET_PUBLISHED") as caught:
            await admin(pb.BlockDeviceRequest(name=f"{ACME}/devices/d"))
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE
        await until(lambda: "publishing" in platform.service.server.health.failures, message="health tells")
        device = await admin(pb.GetDeviceRequest(name=f"{ACME}/devices/d"))
        assert device.state == Device.BLOCKED
        logs[0].failing = False

        async def published() -> bool:
            change = (await platform.topic())[f"{tenant.uid}/device/{device.uid}"]
            return change.device.device == device and change.revision == 2

        await until(published, message="the sweeper has published the block")
        assert (await admin(pb.UnblockDeviceRequest(name=device.name))).state == Device.ENROLLED
        await until(lambda: not platform.service.server.health.failures, message="health tells")


@EMBEDDED
async def test_a_store_that_could_not_be_read_for_a_while_is_no_trouble_afterwards(
    start, monkeypatch
) -> None:
    unreadable, read = False, EmbeddedStore.unpublished

    async def unpublished(store: EmbeddedStore, limit: int) -> Any:
        if unreadable:
            raise Unavailable("store", "was told to fail")
        return await read(store, limit)

    monkeypatch.setattr(EmbeddedStore, "unpublished", unpublished)
    async with start() as platform:
        health = platform.service.server.health
        unreadable = True
        await until(lambda: "publishing" in health.failures, message="health tells")
        unreadable = False
        await until(lambda: not health.failures, message="health tells, though there was nothing to publish")


async def test_what_a_dead_process_left_is_published_at_the_next_start(start) -> None:
    logs: list[FailingLog] = []

    def wrap(log: Any) -> FailingLog:
        logs.append(FailingLog(log))
        return logs[-1]

    async with start(wrap, sweep_seconds=60) as platform:
        tenant = await platform.admin(pb.CreateTenantRequest(tenant_id="acme"))
        logs[0].failing = True
        with pytest.raises(Exception, match="NOT_YET_PUBLISHED"):
            await platform.admin(pb.CreateDeviceRequest(parent=ACME, device_id="d"))
        assert not any("/device/" in key for key in await platform.topic())
    async with start() as platform:
        device = await platform.admin(pb.GetDeviceRequest(name=f"{ACME}/devices/d"))
        assert f"{tenant.uid}/device/{device.uid}" in await platform.topic()


async def test_a_repeated_request_is_answered_only_when_it_is_published(start) -> None:
    logs: list[FailingLog] = []

    def wrap(log: Any) -> FailingLog:
        logs.append(FailingLog(log))
        return logs[-1]

    request = pb.CreateDeviceRequest(
        parent=ACME, device_id="d", request_id="6f1c2f9e-9a39-4d1b-9a58-0f6f6a1d2b3c"
    )
    async with start(wrap, sweep_seconds=60) as platform:
        admin = platform.admin
        tenant = await admin(pb.CreateTenantRequest(tenant_id="acme"))
        logs[0].failing = True
        for _ in range(2):
            with pytest.raises(Exception, match="NOT_YET_PUBLISHED"):
                await admin(request)
        logs[0].failing = False
        device = await admin(request)
        assert f"{tenant.uid}/device/{device.uid}" in await platform.topic()


async def test_a_new_log_gets_everything(start, tmp_path) -> None:
    async with start() as platform:
        admin = platform.admin
        await admin(pb.CreateTenantRequest(tenant_id="acme"))
        requests = [pb.CreateDeviceRequest(device_id=f"d{i}") for i in range(50)]
        await admin(pb.BatchCreateDevicesRequest(parent=ACME, requests=requests))
        await admin(pb.DeleteDeviceRequest(name=f"{ACME}/devices/d7"))
        await admin(pb.CreateTenantRequest(tenant_id="gone"))
        await admin(pb.DeleteTenantRequest(name="tenants/gone"))
        before = {key: (c.revision, c.deleted) for key, c in (await platform.topic()).items()}
    shutil.rmtree(tmp_path / "data" / "log")
    async with start() as platform:
        after = {key: (c.revision, c.deleted) for key, c in (await platform.topic()).items()}
        assert after == before
        assert len(after) == 54  # 2 tenants, 50 devices (2 of all these are tombstones), key, heartbeat


@EMBEDDED
async def test_a_second_registry_on_the_same_directory_is_refused(start) -> None:
    async with start():
        with pytest.raises(FailedPrecondition) as caught:
            async with start():
                pass
        assert caught.value.reason == "REGISTRY_RUNNING"
        assert "stop it first" in caught.value.message


@EMBEDDED
async def test_a_database_of_a_newer_format_is_refused_by_name(start, tmp_path) -> None:
    async with start():
        pass
    connection = sqlite3.connect(tmp_path / "data" / "registry" / "registry.db")
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(FailedPrecondition, match="format 2") as caught:
        async with start():
            pass
    assert caught.value.reason == "FORMAT_NEWER"


@EMBEDDED
async def test_a_damaged_database_is_refused_by_name(start, tmp_path) -> None:
    async with start():
        pass
    file = tmp_path / "data" / "registry" / "registry.db"
    file.write_bytes(b"not a database, " * 1000)
    with pytest.raises(FailedPrecondition, match="backup") as caught:
        async with start():
            pass
    assert caught.value.reason == "REGISTRY_DAMAGED"
    assert str(file) in caught.value.message


async def test_publishing_and_heartbeats_outlive_an_error_that_nobody_foresaw(start, monkeypatch) -> None:
    """Also a fault of ours must not end them: every later change would wait for ever, with the health green."""
    monkeypatch.setattr(upkeep, "HEARTBEAT_SECONDS", 0.02)
    left = {"heartbeat": 1, "device": 1}

    class Faulty(FailingLog):
        async def put(self, topic: str, items: Sequence[TableItem]) -> None:
            for kind in left:
                if left[kind] and any(f"/{kind}/".encode() in key for key, _ in items) and self.failing:
                    left[kind] -= 1
                    raise OSError(errno.EMFILE, "Too many open files")
            await super().put(topic, items)

    logs: list[FailingLog] = []

    def wrap(log: Any) -> FailingLog:
        logs.append(Faulty(log))
        return logs[-1]

    async with start(wrap, sweep_seconds=0.05) as platform:
        await platform.admin(pb.CreateTenantRequest(tenant_id="acme"))
        logs[0].failing = True
        with pytest.raises(Exception, match="NOT_YET_PUBLISHED"):
            async with asyncio.timeout(5):
                await platform.admin(pb.CreateDeviceRequest(parent=ACME, device_id="d"))
        await until(lambda: not left["heartbeat"])
        logs[0].failing = False

        async def published() -> bool:
            return any("/device/" in key for key in await platform.topic())

        await until(published)
        before = (await platform.topic())["-/heartbeat/registry"]

        async def beats() -> bool:
            return (await platform.topic())["-/heartbeat/registry"] != before

        await until(beats)
