"""The log reaches its cap while storage stands still: ingestion refuses for now, and all goes on by itself."""

import os
import signal
import time
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest

from tidewire.type.v1 import telemetry_pb2
from tidewire_testkit.whole.platform import running, until
from tidewire_testkit.whole.readback import count_readings, settled_ledger

pytestmark = [pytest.mark.platform, pytest.mark.embedded, pytest.mark.timeout(120)]

ROWS = 20_000
CAP_BYTES = 16 << 20


async def test_at_the_cap_batches_are_refused_for_now_and_none_is_lost(data_dir: Path) -> None:
    async with running(data_dir, environ={"TIDEWIRE_LOG_CAP_BYTES": str(CAP_BYTES)}) as up:
        access = await up.create_tenant("eager")
        await up.create_devices(access, "sensor")
        publish = up.ingestion().PublishTelemetry
        start = time.time_ns() // 1000 - 86_400_000_000
        chance = np.random.default_rng(3)

        def batch(number: int) -> telemetry_pb2.TelemetryBatch:
            times = start + (number * ROWS + np.arange(ROWS)) * 1_000
            frame = telemetry_pb2.TelemetryFrame(
                metrics=["level"], time_unix_us=times.tolist(), values=chance.random(ROWS).tolist()
            )
            return telemetry_pb2.TelemetryBatch(devices=["sensor"], frames=[frame])

        storage = up.endpoints("storage")[0].pid
        os.kill(storage, signal.SIGSTOP)
        accepted, refused = 0, None
        try:
            while refused is None:
                assert accepted < 200, "the cap does not hold"
                try:
                    answer = await publish(batch(accepted), metadata=access.metadata, timeout=20)
                    assert answer.accepted_readings == ROWS
                    accepted += 1
                except grpc.aio.AioRpcError as error:
                    refused = error
        finally:
            os.kill(storage, signal.SIGCONT)
        assert refused.code() in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}
        assert "log" in (refused.details() or "")
        size = sum(path.stat().st_blocks * 512 for path in (data_dir / "log").rglob("*.seg"))
        assert size < 2 * CAP_BYTES

        async def taken() -> bool:
            answer = await publish(batch(accepted), metadata=access.metadata, timeout=20)
            return bool(answer.accepted_readings == ROWS)

        await until(taken, "the same batch is taken once storage has caught up", 30)

        async def all_visible() -> bool:
            return await count_readings(up, access, ["sensor"], ["level"]) == (accepted + 1) * ROWS

        await until(all_visible, "all that was acknowledged is visible", 30)
        ledger = await until(lambda: settled_ledger(up), "the ledger is settled")
        assert ledger.difference_readings == 0
