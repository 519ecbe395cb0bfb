"""Storage alone: CPU to take records from the log, drop duplicates, sort, compress, and store them durably.

The log is filled before, by records as ingestion writes them (one batch of 50,000 readings split by partition), and
read by the real owner, processor and store in a process of their own.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from benchmarks.data import Fleet
from benchmarks.figures import ROOT, Figure, Scale, median
from tidewire_kit import topics
from tidewire_kit.clock import SystemClock
from tidewire_kit.ids import TenantId, partition_of
from tidewire_kit.log.embedded import EmbeddedLog, EmbeddedLogSettings
from tidewire_kit.log.port import MessageLog, Outgoing
from tidewire_kit.settings import CommonSettings
from tidewire_kit.telemetry.record import Table, encode_record
from tidewire_storage.adapters.embedded import EmbeddedStore
from tidewire_storage.application.ingest import IngestLimits, IngestReadings
from tidewire_storage.consumer import telemetry_owner

PARTITIONS = CommonSettings().partitions
GOAL_CPU_SECONDS = 0.10
GOAL_BYTES = 1.5
GOAL_RSS_MIB = 400
START_US = 1_700_000_000_000_000
_SETTINGS = EmbeddedLogSettings(min_free_bytes=0)


def run(scale: Scale) -> list[Figure]:
    """CPU seconds per million readings, bytes per reading, and memory, at full speed from a filled log."""
    readings = 12_000_000 if scale.rounds > 1 else 3_000_000
    directory = Path(tempfile.mkdtemp(prefix="tidewire-bench-"))
    try:
        asyncio.run(_fill_embedded(directory, readings))
        results: list[dict[str, float]] = []

        def once() -> float:
            results.append(_consume(directory))
            return results[-1]["cpu_seconds_per_million"]

        cpu = median(once, scale.rounds)
    finally:
        shutil.rmtree(directory)
    last = results[-1]
    speed = float(np.median([result["readings_per_second"] for result in results]))
    rss = max(result["peak_rss_mib"] for result in results)
    reference = f"{speed / 1e6:.1f} M readings/s by one process; batches of 50,000"
    return [
        Figure(
            "storage: read, decode, sort, compress, store",
            cpu,
            "CPU s/M readings",
            GOAL_CPU_SECONDS,
            reference,
            at_most=True,
        ),
        Figure(
            "storage: bytes in L0 blocks",
            last["bytes_per_reading"],
            "B/reading",
            GOAL_BYTES,
            "raw: 10.4",
            at_most=True,
        ),
        Figure(
            "storage: memory at full speed",
            rss,
            "MiB RSS",
            GOAL_RSS_MIB,
            "pages of the log included",
            at_most=True,
        ),
    ]


async def _fill_embedded(directory: Path, readings: int) -> None:
    log = await _open(directory)
    await fill(log, PARTITIONS, readings)
    await log.close()


async def fill(log: MessageLog, partitions: int, readings: int, batch: int = 50_000) -> None:
    """Writes records as ingestion makes them of batches of `batch` readings: one for each partition."""
    fleet = Fleet()
    rng = np.random.default_rng(fleet.seed)
    tenant = TenantId(rng.bytes(16))
    uids = np.frombuffer(rng.bytes(16 * fleet.device_count), np.uint8).reshape(-1, 16)
    partition = np.array([partition_of(tenant, uid.tobytes(), partitions) for uid in uids])
    rows = batch // len(fleet.metrics)
    for number in range(readings // batch):
        device, times, values = fleet.rows(number * (rows + 20), rows, START_US)
        batch_id = rng.bytes(16)
        out = []
        for where in range(partitions):
            mine = np.flatnonzero(partition[device] == where)
            slots, index = np.unique(device[mine], return_inverse=True)
            table = Table(
                tenant,
                tuple(fleet.metrics),
                uids[slots],
                index.astype(np.uint32),
                times[mine],
                np.ascontiguousarray(values[:, mine]),
                np.zeros((1, 16), np.uint8),
                np.frombuffer(batch_id, np.uint8).reshape(1, 16),
                rng.integers(0, 1 << 63, 1).astype(np.uint64),
                np.zeros(1, np.uint64),
                np.array([len(mine)], np.uint32),
                np.array([values[:, mine].size], np.uint32),
                np.zeros(1, np.int64),
            )
            out.append(Outgoing(where, b"", encode_record([table], values[:, mine].size, 0)))
        await log.produce(topics.TELEMETRY, out)


async def _open(directory: Path) -> EmbeddedLog:
    log = EmbeddedLog(directory, _SETTINGS)
    await log.start()
    await log.ensure_topics(topics.specs(PARTITIONS))
    return log


def _consume(directory: Path) -> dict[str, float]:
    """One run in a new process, over a copy of nothing: the store is new, the log is read from its beginning."""
    command = [sys.executable, "-m", "benchmarks.bench_storage", str(directory)]
    out = subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True, env=dict(os.environ)
    ).stdout
    result: dict[str, float] = json.loads(out)
    return result


async def _child(directory: Path) -> dict[str, float]:
    store_directory = Path(tempfile.mkdtemp(dir=directory))
    log = await _open(directory)
    store = EmbeddedStore(store_directory)
    await store.open()
    clock = SystemClock()
    incarnation = log.incarnation(topics.TELEMETRY)
    ingest = IngestReadings(store, clock, incarnation, IngestLimits())
    owner = telemetry_owner(log, clock, ingest)
    ends = await log.end_offsets(topics.TELEMETRY)
    process = psutil.Process()
    before, began, peak = sum(process.cpu_times()[:2]), time.monotonic(), 0
    await owner.start()
    while sum((await store.progress_offsets(incarnation)).values()) < sum(ends):
        await asyncio.sleep(0.05)
        peak = max(peak, process.memory_info().rss)
        if why := owner.check():
            raise RuntimeError(why)
    cpu, seconds = sum(process.cpu_times()[:2]) - before, time.monotonic() - began
    (usage,) = await store.usage(None)
    await owner.close()
    await store.close()
    await log.close()
    shutil.rmtree(store_directory)
    millions = usage.stored_readings / 1e6
    return {
        "cpu_seconds_per_million": cpu / millions,
        "readings_per_second": usage.stored_readings / seconds,
        "bytes_per_reading": usage.stored_bytes / usage.stored_readings,
        "peak_rss_mib": peak / (1 << 20),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    print(json.dumps(asyncio.run(_child(parser.parse_args().directory))))
