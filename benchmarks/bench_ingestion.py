"""Ingestion alone: readings per CPU second of its process, durable in a real log, beside a bare gRPC echo.

The service runs as it does in the platform, as a process over a data directory. The registry's part is played by this
process: it puts tenant, devices, key and heartbeats on the registry's topic. The loader is a third process.
"""

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.data import Fleet
from benchmarks.figures import ROOT, Figure, Scale, cpu_seconds, load
from tidewire_kit import topics
from tidewire_kit.clock import SystemClock
from tidewire_kit.identity import Role
from tidewire_kit.ids import TenantId, new_uid
from tidewire_kit.log.embedded import EmbeddedLog, EmbeddedLogSettings
from tidewire_kit.log.port import MessageLog
from tidewire_kit.settings import CommonSettings
from tidewire_testkit.directory import (
    TestDevice,
    TestTenant,
    device_change,
    heartbeat_change,
    key_change,
    tenant_change,
)
from tidewire_testkit.tokens import new_signer, user_token

MILLION = 1_000_000
SHAPES: dict[str, dict[str, Any]] = {
    "unary 1,000": {"mode": "unary", "readings": 1_000, "connections": 4, "window": 16},
    "stream 10,000": {"mode": "stream", "readings": 10_000, "connections": 2, "window": 8},
    "unary 1": {"mode": "unary", "readings": 1, "connections": 4, "window": 16, "payloads": 64},
}


@dataclass(slots=True)
class Target:
    """A server process under load."""

    address: str
    pid: int
    token_file: Path | None


def run(scale: Scale) -> list[Figure]:
    """Unary batches of 1,000, streamed batches of 10,000, single readings."""
    return asyncio.run(_run(scale))


async def _run(scale: Scale) -> list[Figure]:
    async with (
        running_ingestion() as ingestion,
        running_echo() as echo,
        running_echo("uvloop") as echo_on_uvloop,
    ):
        medians = {}
        for name, shape in SHAPES.items():
            # In turn, so that the machine's moods hit both.
            rounds = [
                [await measure(target, scale.seconds, shape) for target in (ingestion, echo, echo_on_uvloop)]
                for _ in range(scale.rounds)
            ]
            medians[name] = tuple(statistics.median(each) for each in zip(*rounds, strict=True))
    figures = []
    for name in ("unary 1,000", "unary 1"):
        own, bare, on_uvloop = medians[name]
        readings = SHAPES[name]["readings"]
        reference = (
            f"{own:,.0f} calls/s/core of {bare:,.0f} echoed, {own / on_uvloop * 100:.0f} % of an echo on uvloop; "
            f"{own * readings / MILLION:.2f} M readings/s/core"
        )
        figures.append(
            Figure(f"ingestion, {name}, durable, of a bare echo", own / bare * 100, "%", 75, reference)
        )
    own, bare, on_uvloop = medians["stream 10,000"]
    reference = f"{own:,.0f} batches/s/core; bare echo {bare:,.0f}, on uvloop {on_uvloop:,.0f}"
    figures.insert(
        1, Figure("ingestion, stream of 10,000, durable", own / 100, "M readings/s/core", 10, reference)
    )
    return figures


async def measure(target: Target, seconds: float, shape: dict[str, Any]) -> float:
    """Batches answered per CPU second of the server."""
    before = cpu_seconds([target.pid])
    result = await asyncio.to_thread(
        load, target=target.address, token_file=target.token_file or "", seconds=seconds, **shape
    )
    used = cpu_seconds([target.pid]) - before
    if result["failures"] or result["refused"]:
        raise RuntimeError(f"{result['failures']} batches failed: {result['first_failure']}")
    if os.environ.get("BENCH_VERBOSE"):
        print(shape["mode"], shape["readings"], result, f"server {used:.2f} s", file=sys.stderr)
    return float(result["batches"] / used)


@contextlib.asynccontextmanager
async def running_ingestion(**environ: str) -> AsyncIterator[Target]:
    """The service with the benchmark fleet registered, in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="tidewire-bench-") as directory:
        root = Path(directory)
        env = {
            **os.environ,
            "TIDEWIRE_DATA_DIR": directory,
            "TIDEWIRE_INGESTION_PORT": "0",
            "TIDEWIRE_INGESTION_METRICS_PORT": "0",
            "TIDEWIRE_LOG_LEVEL": "warning",
            **environ,
        }
        clock = SystemClock()
        process = start_module("tidewire_ingestion", env=env)
        log = EmbeddedLog(root, EmbeddedLogSettings())
        beats: asyncio.Task[None] | None = None
        try:
            address = await _address(root, process)
            await log.start()
            await log.ensure_topics(topics.specs(CommonSettings().partitions))
            token_file = root / "bench.token"
            token_file.write_text(await register(log, clock))
            beats = asyncio.create_task(beat(log, clock))
            await asyncio.sleep(2)
            yield Target(address, process.pid, token_file)
        finally:
            if beats is not None:
                beats.cancel()
            process.terminate()
            await asyncio.to_thread(process.wait, 30)
            await log.close()


@contextlib.asynccontextmanager
async def running_echo(*arguments: str) -> AsyncIterator[Target]:
    """The bare echo, or with the argument `uvloop` one on the services' event loop."""
    process = start_module("benchmarks.echo", *arguments, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        address = await asyncio.to_thread(process.stdout.readline)
        yield Target(address.decode().strip(), process.pid, None)
    finally:
        process.kill()
        process.communicate()


def start_module(module: str, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Starts `python -m module`."""
    return subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=ROOT, **options)


async def _address(root: Path, process: subprocess.Popen[bytes]) -> str:
    for _ in range(1_000):
        with contextlib.suppress(OSError, ValueError, KeyError):
            endpoints = json.loads((root / "run" / "endpoints.json").read_text())
            return str(endpoints["ingestion"][0]["address"])
        if process.poll() is not None:
            break
        await asyncio.sleep(0.02)
    raise RuntimeError("ingestion did not come up")


async def register(log: MessageLog, clock: SystemClock) -> str:
    """Puts the fleet on the registry's topic; returns an operator's token."""
    signer, tenant = new_signer(clock), TestTenant(TenantId(new_uid()), "bench")
    items = [
        (b"-/key/bench", key_change(signer).SerializeToString()),
        (f"{tenant.uid.hex()}/tenant/{tenant.uid.hex()}".encode(), tenant_change(tenant).SerializeToString()),
    ]
    for name in Fleet().devices:
        device = TestDevice(tenant, new_uid(), name)
        key = f"{tenant.uid.hex()}/device/{device.uid.hex()}".encode()
        items.append((key, device_change(device, clock).SerializeToString()))
    await log.put(topics.REGISTRY, items)
    return user_token(signer, tenant.uid, Role.OPERATOR, ttl_seconds=36_000)


async def beat(log: MessageLog, clock: SystemClock) -> None:
    """Keeps replicas fresh, as the registry does, until cancelled."""
    while True:
        await log.put(
            topics.REGISTRY, [(b"-/heartbeat/registry", heartbeat_change(clock).SerializeToString())]
        )
        await asyncio.sleep(2)
