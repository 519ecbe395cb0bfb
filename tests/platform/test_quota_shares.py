"""A quota holds once over several processes of ingestion, and wherever its tenant publishes it is all there."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from tidewire_testkit.whole.platform import TenantAccess, UpProcess, running, until
from tidewire_testkit.whole.readback import batch_of

pytestmark = [pytest.mark.platform, pytest.mark.timeout(180)]

QUOTA = 1_000
ROWS = 50


class Load:
    """Publishers that ask one process for more than the quota, until they are told to stop."""

    def __init__(self, up: UpProcess, access: TenantAccess, address: str) -> None:
        self._up = up
        self._access = access
        self._address = address
        self.accepted = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        tasks = [asyncio.create_task(self._publish()) for _ in range(4)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    async def _publish(self) -> None:
        stub = self._up.ingestion(self._address)
        while True:
            now = time.time_ns() // 1000
            batch = batch_of("pump", {now + row: {"level": 1.0} for row in range(ROWS)})
            try:
                answer = await stub.PublishTelemetry(batch, metadata=self._access.metadata, timeout=10)
                self.accepted += answer.accepted_readings
                delay = answer.retry_delay.ToMilliseconds() / 1e3
            except grpc.aio.AioRpcError as error:
                if error.code() not in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}:
                    raise
                delay = 0.1
            await asyncio.sleep(min(delay, 0.02))


async def _rate(loads: list[Load], readings: int) -> float:
    """Readings per second that are accepted altogether, seen over about `readings` of them."""

    def accepted() -> int:
        return sum(load.accepted for load in loads)

    before, started = accepted(), time.monotonic()

    async def enough() -> bool:
        return accepted() - before >= readings

    await until(enough, f"{readings} readings are accepted", 60)
    return (accepted() - before) / (time.monotonic() - started)


async def test_a_quota_holds_once_over_two_processes_and_outlives_one(data_dir: Path) -> None:
    async with running(data_dir, "--ingestion-processes", "2") as up:
        access = await up.create_tenant("acme", readings_per_second=QUOTA, burst_readings=QUOTA // 2)
        await up.create_devices(access, "pump")
        left, right = up.endpoints("ingestion")
        loads = [Load(up, access, endpoint.address) for endpoint in (left, right)]

        async def is_all_of_it() -> bool:
            return 0.85 * QUOTA <= await _rate(loads, QUOTA) <= 1.25 * QUOTA

        with loads[0].running():
            await until(is_all_of_it, "a tenant on one process has all of its quota")
            with loads[1].running():
                await _rate(loads, 5 * QUOTA)  # until both have heard of it
                assert 0.85 * QUOTA <= await _rate(loads, 4 * QUOTA) <= 1.25 * QUOTA
                os.kill(right.pid, signal.SIGKILL)
                await _rate(loads[:1], 5 * QUOTA)
        with loads[0].running():
            await until(is_all_of_it, "the part of the killed process comes back")
        await up.wait_serving()
