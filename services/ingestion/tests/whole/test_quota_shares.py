"""Several processes of ingestion over one log: a tenant has its quota once, wherever it publishes."""

import asyncio
import contextlib
import dataclasses
import sys
import textwrap
import time
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from tidewire.events.v1.registry_change_pb2 import RegistryChange
from tidewire.ingestion.v1.ingestion_pb2_grpc import IngestionServiceStub
from tidewire.registry.v1.resources_pb2 import TenantQuotas
from tidewire.type.v1.telemetry_pb2 import TelemetryBatch, TelemetryFrame
from tidewire_ingestion.main import build
from tidewire_ingestion.settings import Settings
from tidewire_kit.clock import SystemClock
from tidewire_kit.datadir import open_data_dir
from tidewire_kit.directory import Directory
from tidewire_kit.fairshare import board, exchange, shares
from tidewire_kit.identity import Role
from tidewire_kit.service import RunningService, running_service
from tidewire_kit.settings import CommonSettings
from tidewire_testkit.directory import TestTenant, World, key_change
from tidewire_testkit.polling import until

ROWS = 20
QUOTA = 1000
DEVICE_QUOTA = 300
BOUND = 1.25
"""Of the quota; what all shares together may be while demand moves."""


class _All:
    """What the world tells reaches the directories of all processes."""

    def __init__(self, directories: list[Directory]) -> None:
        self._directories = directories

    def apply(self, change: RegistryChange) -> None:
        for directory in self._directories:
            directory.apply(change)


class Process:
    """One process of ingestion, with a publisher that asks for more than it gets while it is told to."""

    def __init__(self, service: RunningService, channel: aio.Channel) -> None:
        self.service = service
        self.stub: Any = IngestionServiceStub(channel)
        self.accepted = 0

    async def share(self, tenant: str) -> float:
        """This process's part of the tenant's readings per second, as its metrics show it."""
        url = f"http://{self.service.metrics_address}/metrics"
        text = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=10).read().decode())
        sample = f'tidewire_ingestion_quota_share_ratio{{quota="readings_per_second",tenant="{tenant}"}} '
        return next(
            (float(line.removeprefix(sample)) for line in text.splitlines() if line.startswith(sample)), -1.0
        )

    async def publish(self, metadata: Any, device: str) -> None:
        """A publisher that comes back as soon as it may, for ever."""
        while True:
            now = SystemClock().now_us()
            frame = TelemetryFrame(
                metrics=["level"], time_unix_us=[now + row for row in range(ROWS)], values=[1.0] * ROWS
            )
            batch = TelemetryBatch(batch_id=str(uuid.uuid4()), devices=[device], frames=[frame])
            delay = 0.1
            try:
                answer = await self.stub.PublishTelemetry(batch, metadata=metadata, timeout=20)
                self.accepted += answer.accepted_readings
                delay = answer.retry_delay.ToMilliseconds() / 1e3
            except aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017
            await asyncio.sleep(min(delay, 0.02))


class Several:
    """Processes over one data directory, and a world that all of them hear of."""

    def __init__(self, processes: list[Process]) -> None:
        self.processes = processes
        self.world = World(SystemClock(), 4)
        self.world.directory = _All([each.service.directory for each in processes])  # type: ignore[assignment]
        self.world.directory.apply(key_change(self.world.signer))

    async def beat(self) -> None:
        """Lets the registry seem alive."""
        while True:
            self.world.heartbeat()
            await asyncio.sleep(1)

    def tenant(self, **quotas: int) -> TestTenant:
        tenant = self.world.add_tenant("acme", TenantQuotas(**quotas))
        self.world.add_device(tenant, "pump")
        return tenant

    @contextlib.contextmanager
    def load(self, process: Process, tenant: TestTenant) -> Iterator[None]:
        metadata = (("authorization", f"Bearer {self.world.token(tenant, Role.OPERATOR)}"),)
        tasks = [asyncio.create_task(process.publish(metadata, "pump")) for _ in range(4)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    async def rate(self, readings: int) -> float:
        """Readings per second that all processes accept, seen over about `readings` of them."""
        started, before = time.monotonic(), self._accepted()
        await until(lambda: self._accepted() - before >= readings, seconds=30)
        return (self._accepted() - before) / (time.monotonic() - started)

    def _accepted(self) -> int:
        return sum(each.accepted for each in self.processes)


@pytest.fixture
async def several(tmp_path: Path) -> AsyncIterator[Several]:
    open_data_dir(tmp_path).service_token_file.write_text("token")
    common = dataclasses.replace(CommonSettings(data_dir=tmp_path), partitions=4)
    async with contextlib.AsyncExitStack() as stack:
        processes = []
        for _ in range(2):
            service = await stack.enter_async_context(
                running_service("ingestion", Settings(port=0, metrics_port=0), common, build)
            )
            channel = await stack.enter_async_context(aio.insecure_channel(service.address))
            processes.append(Process(service, channel))
        await until(lambda: all(len(each.service.log.members("ingestion")) == 2 for each in processes))
        several = Several(processes)
        beats = asyncio.create_task(several.beat())
        yield several
        beats.cancel()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that shares wait for takes a quarter of its time."""
    for module, name in (
        (exchange, "REPORT_SECONDS"),
        (shares, "AVERAGE_SECONDS"),
        (board, "FRESH_SECONDS"),
        (board, "FADE_SECONDS"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name) / 4)


@pytest.mark.usefixtures("hurried")
async def test_a_tenant_has_its_quota_once_and_a_publisher_on_one_process_has_all_of_it(
    several: Several,
) -> None:
    acme = several.tenant(readings_per_second=QUOTA, burst_readings=QUOTA // 2)
    left, right = several.processes
    with several.load(left, acme):
        await until(lambda: _is(left.share("acme"), 1.0), message="all of it is where the demand is")
        assert 0.8 * QUOTA <= await several.rate(2 * QUOTA) <= BOUND * QUOTA
        with several.load(right, acme):

            async def both() -> bool:
                parts = [await each.share("acme") for each in several.processes]
                return all(0.35 <= part <= 0.65 for part in parts)

            await until(both, message="two that ask for the same have the same")
            assert 0.8 * QUOTA <= await several.rate(3 * QUOTA) <= BOUND * QUOTA
    with several.load(right, acme):
        await until(lambda: _is(right.share("acme"), 1.0), message="the demand has moved")


async def _is(share: Any, wanted: float) -> bool:
    return abs(await share - wanted) < 0.05


@pytest.mark.usefixtures("hurried")
async def test_a_device_has_its_quota_once(several: Several) -> None:
    acme = several.tenant(device_readings_per_second=DEVICE_QUOTA)
    left, right = several.processes
    with several.load(left, acme), several.load(right, acme):
        await several.rate(16 * DEVICE_QUOTA)  # the bursts, with time to spare
        assert 0.8 * DEVICE_QUOTA <= await several.rate(2 * DEVICE_QUOTA) <= BOUND * DEVICE_QUOTA
    with several.load(left, acme):

        async def all_of_it() -> bool:
            return await several.rate(DEVICE_QUOTA) >= 0.8 * DEVICE_QUOTA

        await until(all_of_it, seconds=20)


OTHER = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from tidewire_kit import topics
    from tidewire_kit.clock import SystemClock
    from tidewire_kit.fairshare import DemandExchange, TenantDemand
    from tidewire_kit.log.embedded import EmbeddedLog
    from tidewire_kit.log.port import MemberProfile

    class Busy:
        def demand(self, board, seconds):
            return [TenantDemand(bytes.fromhex(sys.argv[2]), 3e4, 1e3)]

        def adopt(self, board, now):
            pass

    async def main():
        log = EmbeddedLog(Path(sys.argv[1]))
        await log.start()
        await log.ensure_topics(topics.specs(4))
        await log.announce(MemberProfile("ingestion"))
        await DemandExchange(log, SystemClock(), "ingestion").start(Busy())
        await asyncio.Event().wait()

    asyncio.run(main())
""")


async def test_the_share_of_a_killed_process_comes_back(several: Several, tmp_path: Path) -> None:
    acme = several.tenant(readings_per_second=QUOTA, burst_readings=QUOTA // 2)
    left, _ = several.processes
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", OTHER, str(tmp_path), acme.uid.hex())
    try:
        with several.load(left, acme):

            async def given_way() -> bool:
                return 0 < await left.share("acme") <= 0.1

            await until(
                given_way, seconds=20, message="a busier process has most of it, and this one its least part"
            )
            other.kill()
            await other.wait()

            async def back() -> bool:
                return await left.share("acme") >= 0.95

            await until(back, message="all of it again")
    finally:
        with contextlib.suppress(ProcessLookupError):
            other.kill()
        await other.wait()


async def test_an_idle_platform_reports_nothing_and_who_stops_withdraws_its_report(tmp_path: Path) -> None:
    open_data_dir(tmp_path).service_token_file.write_text("token")
    common = dataclasses.replace(CommonSettings(data_dir=tmp_path), partitions=4)
    settings = Settings(port=0, metrics_port=0)
    async with running_service("ingestion", settings, common, build) as stays:
        seen: list[tuple[bytes, bytes | None]] = []
        reader = stays.log.table("tidewire.demand.v1")

        async def follow() -> None:
            async for items in reader:
                seen.extend(items)

        following = asyncio.create_task(follow())
        async with (
            running_service("ingestion", settings, common, build) as goes,
            aio.insecure_channel(goes.address) as channel,
        ):
            several = Several([Process(goes, channel)])
            several.world.heartbeat()
            limited = several.tenant(readings_per_second=QUOTA)
            free = several.world.add_tenant("free")
            several.world.add_device(free, "pump")
            with several.load(several.processes[0], free):
                await several.rate(500)
            assert seen == [], "a tenant without a quota is nobody's business"
            with several.load(several.processes[0], limited):
                await until(lambda: seen)
        await until(lambda: seen[-1][1] is None, message="withdrawn")
        assert len({key for key, _ in seen}) == 1
        await reader.close()
        await following
