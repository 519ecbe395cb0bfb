"""Events while storage and ingestion are killed again and again: what was acknowledged is listed once."""

import asyncio
import random
import urllib.request
import uuid
from pathlib import Path

import grpc
import pytest

from tidewire.ingestion.v1 import ingestion_pb2
from tidewire.storage.v1 import storage_pb2
from tidewire.type.v1 import event_pb2
from tidewire_testkit.whole.platform import TenantAccess, UpProcess, running, until

pytestmark = [pytest.mark.platform, pytest.mark.timeout(240)]

METRIC = "tidewire_ledger_difference_events"
KILLS = 6
DEVICES = ("a", "b", "c", "d")


class Publisher:
    """Publishes batches one after the other, each again and again under one id until it is acknowledged."""

    def __init__(self, up: UpProcess, access: TenantAccess, name: str) -> None:
        self._up = up
        self._access = access
        self._name = name
        self._rng = random.Random(name)
        self.acknowledged: list[str] = []
        self.calls = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; the last batch is still brought to its acknowledgement."""
        number = 0
        while not stop.is_set():
            kinds = [f"{self._name}.n{number}.e{n}" for n in range(self._rng.randint(1, 5))]
            await self._publish(kinds)
            self.acknowledged += kinds
            number += 1
            await asyncio.sleep(0.01)

    async def _publish(self, kinds: list[str]) -> None:
        request = ingestion_pb2.PublishEventsRequest(batch_id=str(uuid.UUID(int=self._rng.getrandbits(128))))
        for kind in kinds:
            size = self._rng.choice((0, 10, 5_000))
            event = request.events.add(device=self._rng.choice(DEVICES), type=kind, body=b"x" * size)
            event.time.GetCurrentTime()
        thrown_away = self._rng.random() < 0.2
        while True:
            self.calls += 1
            try:
                address = self._rng.choice(self._up.endpoints("ingestion")).address
                answer = await self._up.ingestion(address).PublishEvents(
                    request, metadata=self._access.metadata, timeout=5
                )
            except (grpc.aio.AioRpcError, IndexError):
                await asyncio.sleep(0.05)
                continue
            assert answer.accepted_events == len(kinds)
            assert not answer.refusals
            if not thrown_away:
                return
            thrown_away = False


async def _listed(up: UpProcess, access: TenantAccess) -> list[event_pb2.Event]:
    """All events by pages, newest first."""
    request = storage_pb2.ListEventsRequest(parent=access.name, page_size=500)
    found: list[event_pb2.Event] = []
    while True:
        page = await up.storage().ListEvents(request, metadata=access.metadata, timeout=20)
        found += page.events
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return found


def _metric(up: UpProcess) -> list[float]:
    values = []
    for endpoint in up.endpoints("storage"):
        with urllib.request.urlopen(f"http://{endpoint.metrics_address}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        values += [float(line.rpartition(" ")[2]) for line in lines if line.startswith(METRIC)]
    return values


async def test_what_was_acknowledged_is_listed_once_whatever_is_killed(data_dir: Path) -> None:
    rng = random.Random(11)
    options = ("--ingestion-processes", "2", "--storage-processes", "2")
    environ = {"TIDEWIRE_STORAGE_RECOUNT_SECONDS": "0.5"}
    async with running(data_dir, *options, environ=environ) as up:
        access = await up.create_tenant("events")
        await up.create_devices(access, *DEVICES)
        publishers = [Publisher(up, access, name) for name in ("p", "q")]
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for publisher in publishers:
                tasks.create_task(publisher.run(stop))
            try:
                for number in range(KILLS):
                    service = ("storage", "ingestion")[number % 2]

                    async def both(service: str = service) -> bool:
                        return len(up.endpoints(service)) == 2

                    before = [len(publisher.acknowledged) for publisher in publishers]

                    async def progress(before: list[int] = before) -> bool:
                        now = [len(publisher.acknowledged) for publisher in publishers]
                        return all(a < b for a, b in zip(before, now, strict=True))

                    await until(both, f"both processes of {service} are there before kill {number}", 120)
                    await until(progress, "events are acknowledged", 60)
                    await asyncio.sleep(rng.uniform(0.0, 0.3))
                    up.kill_pid(rng.choice(up.endpoints(service)).pid)
            finally:
                stop.set()

        expected = sorted(kind for publisher in publishers for kind in publisher.acknowledged)

        async def all_there() -> bool:
            try:
                found = await _listed(up, access)
            except grpc.aio.AioRpcError:
                return False  # a process of storage is being started again
            return {event.type for event in found} >= set(expected)

        await until(all_there, "every acknowledged event is listed", 60)
        found = await _listed(up, access)
        assert sorted(event.type for event in found) == expected
        assert len({(event.device, event.event_id) for event in found}) == len(expected)
        assert all(len(event.body) in (0, 10, 5_000) for event in found)
        assert found == sorted(found, key=lambda event: event.time.ToNanoseconds(), reverse=True)

        async def counted() -> bool:
            try:
                values = await asyncio.to_thread(_metric, up)
            except OSError:
                return False
            return len(values) >= 2 and set(values) == {0.0}

        await until(counted, f"{METRIC} is 0 everywhere", 60)
