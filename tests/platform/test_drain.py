"""SIGTERM under load: what is in flight is answered, the rest refused for now, and nothing acknowledged is lost."""

import asyncio
import os
import signal
import time
from pathlib import Path

import grpc
import grpc.aio
import pytest

from tidewire_testkit.whole.platform import TenantAccess, UpProcess, running, until
from tidewire_testkit.whole.readback import batch_of, read_device, settled_ledger

pytestmark = [pytest.mark.platform, pytest.mark.timeout(120)]


class Publisher:
    """Publishes one row after the other by unary calls, each once, until it is refused."""

    def __init__(self, up: UpProcess, access: TenantAccess, device: str) -> None:
        self.device = device
        self.sent: set[int] = set()
        self.acknowledged: set[int] = set()
        self.ended_by = grpc.StatusCode.OK
        self._publish = up.ingestion().PublishTelemetry  # of the process that is there now, also when it goes
        self._metadata = access.metadata

    async def run(self) -> None:
        time_us = time.time_ns() // 1000
        while True:
            time_us += 1
            self.sent.add(time_us)
            try:
                batch = batch_of(self.device, {time_us: {"level": 1.0}})
                answer = await self._publish(batch, metadata=self._metadata, timeout=20)
            except grpc.aio.AioRpcError as error:
                self.ended_by = error.code()
                return
            assert answer.accepted_readings == 1
            self.acknowledged.add(time_us)


@pytest.mark.parametrize("whole", [True, False], ids=["the platform", "one process"])
async def test_what_was_acknowledged_before_a_stop_under_load_is_there_afterwards(
    data_dir: Path, whole: bool
) -> None:
    # One ingestion process on every backend: all publishers shall notice that it stops.
    up = UpProcess(data_dir, "--ingestion-processes", "1")
    up.start()
    try:
        await up.wait_serving()
        access = await up.create_tenant("stopped")
        names = [f"sensor-{number}" for number in range(8)]
        await up.create_devices(access, *names)
        publishers = [Publisher(up, access, name) for name in names]
        tasks = [asyncio.create_task(publisher.run()) for publisher in publishers]

        async def busy() -> bool:
            return all(len(publisher.acknowledged) > 20 for publisher in publishers)

        await until(busy, "everybody publishes")

        os.kill(up.pid if whole else up.endpoints("ingestion")[0].pid, signal.SIGTERM)
        await asyncio.wait_for(asyncio.gather(*tasks), 60)
        # gRPC itself cancels a call that arrives while the listener closes. The SDK repeats after either.
        assert {publisher.ended_by for publisher in publishers} <= {
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.CANCELLED,
        }
        assert await up.stop() == 0
        assert up.logged_errors() == []
    finally:
        await up.ensure_ended()
    async with running(data_dir) as up:
        await until(lambda: settled_ledger(up), "everything is stored")
        for publisher in publishers:
            visible = {time_us for _, time_us, _ in await read_device(up, access, publisher.device)}
            assert publisher.acknowledged <= visible <= publisher.sent
