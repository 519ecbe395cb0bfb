"""Connections of a second's age under a publisher and unary calls: nothing is lost, sent twice or noticed."""

import asyncio
import re
import urllib.request
from pathlib import Path

import pytest

from tidewire_client import AsyncConnection, AsyncTelemetryPublisher
from tidewire_testkit.whole.platform import UpProcess, running, until
from tidewire_testkit.whole.readback import wait_visible

pytestmark = [pytest.mark.platform, pytest.mark.timeout(180)]

STREAMS = 4


def _metric(up: UpProcess, service: str, pattern: str) -> float:
    """The sum of all series of all processes of a service whose line begins like `pattern`."""
    total = 0.0
    for endpoint in up.endpoints(service):
        with urllib.request.urlopen(f"http://{endpoint.metrics_address}/metrics", timeout=10) as answer:
            total += sum(
                float(line.rpartition(" ")[2])
                for line in answer.read().decode().splitlines()
                if re.match(pattern, line)
            )
    return total


async def test_streams_are_opened_again_at_their_age(data_dir: Path) -> None:
    async with running(data_dir, environ={"TIDEWIRE_MAX_CONNECTION_AGE_SECONDS": "1"}) as up:
        access = await up.create_tenant("acme")
        await up.create_devices(access, "pump")
        rows: dict[int, dict[str, float]] = {}
        calls = 0

        async def several_ages_have_passed() -> bool:
            ended = await asyncio.to_thread(
                _metric, up, "ingestion", r'tidewire_grpc_requests_total(?=.*"StreamTelemetry")(?=.*"OK")'
            )
            return ended >= STREAMS

        async with (
            AsyncConnection(up.address("registry"), token=access.token, tenant="acme") as connection,
            AsyncConnection(
                up.address("registry"), token=access.token, tenant="acme", retry_seconds=0
            ) as impatient,
            AsyncTelemetryPublisher(connection, linger_seconds=0.005) as publisher,
        ):
            waiting = asyncio.create_task(until(several_ages_have_passed, "streams have ended", 60))
            time_us = 1_700_000_000_000_000
            while not waiting.done():
                time_us += 1_000
                rows[time_us] = {"level": float(len(rows))}
                await publisher.add("pump", time_us, rows[time_us])
                await impatient.services()
                calls += 1
                await asyncio.sleep(0.01)
            await waiting
            totals = await publisher.flush()
            assert totals.accepted == len(rows)
            assert totals.resent_batches == 0
            assert publisher.trouble is None
        assert calls > STREAMS
        await wait_visible(up, access, "pump", rows)
        assert (
            await asyncio.to_thread(_metric, up, "storage", "tidewire_storage_duplicate_segments_total") == 0
        )
