"""Two registries over one store and one log: in whatever order publishes land, the topic ends with the present."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tidewire.events.v1.registry_change_pb2 import RegistryChange
from tidewire.registry.v1 import registry_pb2 as pb
from tidewire.registry.v1.resources_pb2 import Device
from tidewire_kit.log.port import TableItem
from tidewire_kit.topics import REGISTRY
from tidewire_registry.application import upkeep
from tidewire_testkit.polling import until

pytestmark = pytest.mark.parametrize(
    "start", [pytest.param("cassandra", marks=pytest.mark.servers)], indirect=True
)

ACME = "tenants/acme"


class SlowLog:
    """A real log whose puts of devices wait while `held`."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self.free = asyncio.Event()
        self.free.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def put(self, topic: str, items: Sequence[TableItem]) -> None:
        if topic == REGISTRY and any(b"/device/" in key for key, _ in items):
            await self.free.wait()
        await self._log.put(topic, items)


async def test_a_publish_that_was_held_up_does_not_leave_the_topic_behind(start) -> None:
    logs: list[SlowLog] = []

    def wrap(log: Any) -> Any:
        logs.append(SlowLog(log))
        return logs[-1]

    async with start(wrap) as first, start(beside=first) as second:
        tenant = await first.admin(pb.CreateTenantRequest(tenant_id="acme"))
        device = await second.admin(pb.CreateDeviceRequest(parent=ACME, device_id="d"))
        key = f"{tenant.uid}/device/{device.uid}"
        logs[0].free.clear()
        slow = asyncio.create_task(first.admin(pb.BlockDeviceRequest(name=device.name)))

        async def blocked() -> bool:
            now = await second.admin(pb.GetDeviceRequest(name=device.name))
            return bool(now.state == Device.BLOCKED)

        await until(blocked, message="the block is stored, and its publish held up")
        unblocked = await second.admin(pb.UnblockDeviceRequest(name=device.name))
        assert (await first.topic())[key].revision == 3
        logs[0].free.set()
        assert (await slow).state == Device.BLOCKED

        async def present() -> bool:
            change = (await first.topic())[key]
            return change.revision == 3 and change.device.device == unblocked

        await until(present, message="the topic has the present state")
        await _settled(first, key, 3)


async def test_a_topic_that_went_back_after_its_writer_died_is_made_good(start, monkeypatch) -> None:
    monkeypatch.setattr(upkeep, "_WATCH_SECONDS", 0.1)
    async with start() as first, start(beside=first) as second:
        tenant = await first.admin(pb.CreateTenantRequest(tenant_id="acme"))
        device = await first.admin(pb.CreateDeviceRequest(parent=ACME, device_id="d"))
        key = f"{tenant.uid}/device/{device.uid}"
        old = (await first.topic())[key].SerializeToString()
        await second.admin(pb.BlockDeviceRequest(name=device.name))
        assert (await first.topic())[key].revision == 2
        await first.log.put(REGISTRY, [(key.encode(), old)])
        await _settled(first, key, 2)
        await second.admin(pb.DeleteDeviceRequest(name=device.name))
        await first.log.put(REGISTRY, [(key.encode(), old)])
        await _settled(first, key, 3)
        assert (await first.topic())[key].deleted


async def test_each_sees_at_once_what_the_other_was_answered(start) -> None:
    async with start() as first, start(beside=first) as second:
        await first.admin(pb.CreateTenantRequest(tenant_id="acme"))
        makers = [first.admin, second.admin]
        requests = [pb.CreateDeviceRequest(parent=ACME, device_id=f"d{i}") for i in range(20)]
        made = await asyncio.gather(*(makers[i % 2](request) for i, request in enumerate(requests)))
        for reader in makers:
            listed = await reader(pb.ListDevicesRequest(parent=ACME, page_size=100, count_total=True))
            assert sorted(device.uid for device in listed.devices) == sorted(device.uid for device in made)
            assert listed.total_size == 20
        changes = [change for key, change in (await first.topic()).items() if "/device/" in key]
        assert len(changes) == 20
        await first.admin(pb.DeleteTenantRequest(name=ACME))

        async def purged() -> bool:
            return not any("/device/" in key for key in await second.topic())

        await until(purged, message="both purge, and do each other no harm")
        again = await second.admin(pb.CreateTenantRequest(tenant_id="acme"))
        assert (await first.admin(pb.ListDevicesRequest(parent=again.name))).devices == []


async def _settled(platform: Any, key: str, revision: int) -> None:
    async def there() -> bool:
        change: RegistryChange | None = (await platform.topic()).get(key)
        return change is not None and change.revision == revision

    await until(there, message=f"revision {revision} is on the topic")
