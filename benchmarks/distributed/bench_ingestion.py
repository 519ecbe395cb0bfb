"""Ingestion alone on Kafka: readings per CPU second of its process, acknowledged by a broker, beside a bare producer.

Broker, ingestion and loader share the machine; the registry's part is played by this process, as in the embedded
benchmark. The bare producer then sends the very records that ingestion wrote.
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
from pathlib import Path
from typing import Any

from benchmarks.bench_ingestion import Target, beat, measure, register, start_module
from benchmarks.distributed.partitions import PARTITIONS
from benchmarks.figures import ROOT, Figure, Scale, load
from tidewire_kit import topics
from tidewire_kit.clock import SystemClock
from tidewire_kit.log.kafka import KafkaLog, KafkaSettings
from tidewire_kit.settings import load as load_settings
from tidewire_kit.telemetry.record import decode_record
from tidewire_testkit.servers.kafka import KafkaCluster

MILLION = 1_000_000
SHAPES: dict[str, tuple[float, dict[str, Any]]] = {
    "1,000": (1.8, {"mode": "stream", "readings": 1_000, "connections": 4, "window": 32}),
    "10,000": (8.0, {"mode": "stream", "readings": 10_000, "connections": 2, "window": 8}),
}


def run(scale: Scale) -> list[Figure]:
    """Streamed batches of 1,000 and of 10,000, and the share of a bare producer's throughput."""
    with KafkaCluster() as kafka:
        return asyncio.run(_run(scale, kafka))


async def _run(scale: Scale, kafka: KafkaCluster) -> list[Figure]:
    figures = []
    async with running_ingestion(kafka) as (ingestion, log):
        for name, (goal, shape) in SHAPES.items():
            readings = int(shape["readings"])
            rates = [await measure(ingestion, scale.seconds, shape) for _ in range(scale.rounds)]
            figures.append(
                Figure(
                    f"ingestion → Kafka acknowledged, batches of {name}",
                    statistics.median(rates) * readings / MILLION,
                    "M readings/s/core",
                    goal,
                    f"streamed; {PARTITIONS} partitions; lowest {min(rates) * readings / MILLION:.2f}",
                )
            )
        pairs = [await _beside_bare(scale, kafka, ingestion, log) for _ in range(scale.rounds)]
    own, bare = (statistics.median(each) for each in zip(*pairs, strict=True))
    figures.append(
        Figure(
            "ingestion → Kafka, of a bare producer's throughput, all on two cores",
            own / bare * 100,
            "%",
            60,
            f"{own / MILLION:.1f} M readings/s through gRPC, of {bare / MILLION:.1f} M by the bare producer",
        )
    )
    return figures


async def _beside_bare(
    scale: Scale, kafka: KafkaCluster, ingestion: Target, log: KafkaLog
) -> tuple[float, float]:
    """(readings/s through ingestion, readings/s of a bare producer that sends the same records)."""
    begins = await log.end_offsets(topics.TELEMETRY)
    shape = SHAPES["10,000"][1]
    result = await asyncio.to_thread(
        load, target=ingestion.address, token_file=ingestion.token_file, seconds=scale.seconds, **shape
    )
    with tempfile.TemporaryDirectory(prefix="tidewire-bench-") as directory:
        readings = records = 0
        for partition, begin in enumerate(begins):
            for record in await log.read(topics.TELEMETRY, partition, begin, max_bytes=4 << 20):
                value = bytes(record.value)
                (Path(directory) / f"{record.offset - begin:06d}-{partition}").write_bytes(value)
                readings += decode_record(value).readings
                records += 1
        command = [
            *(sys.executable, "-m", "benchmarks.distributed.bare_producer"),
            *("--bootstrap-servers", kafka.bootstrap_servers, "--topic", topics.TELEMETRY),
            *("--records", directory, "--seconds", str(scale.seconds)),
        ]
        done = await asyncio.to_thread(
            subprocess.run, command, cwd=ROOT, check=True, capture_output=True, text=True
        )
    bare = json.loads(done.stdout)
    return result["accepted"] / result["seconds"], bare["records"] / bare["seconds"] * readings / records


@contextlib.asynccontextmanager
async def running_ingestion(kafka: KafkaCluster) -> AsyncIterator[tuple[Target, KafkaLog]]:
    """The service over Kafka with the benchmark fleet registered, and this process's own log."""
    environ = {**kafka.environ(), "TIDEWIRE_KAFKA_PARTITIONS": str(PARTITIONS)}
    clock = SystemClock()
    with tempfile.TemporaryDirectory(prefix="tidewire-bench-") as directory:
        root = Path(directory)
        (root / "service.token").write_text("unused: every device is registered")
        log = KafkaLog(load_settings(KafkaSettings, environ))
        await log.start()
        process: subprocess.Popen[bytes] | None = None
        beats: asyncio.Task[None] | None = None
        try:
            await log.ensure_topics(topics.specs(PARTITIONS))
            token_file = root / "bench.token"
            token_file.write_text(await register(log, clock))
            beats = asyncio.create_task(beat(log, clock))
            process = start_module(
                "tidewire_ingestion",
                env={
                    **os.environ,
                    **environ,
                    "TIDEWIRE_BACKEND": "distributed",
                    "TIDEWIRE_DATA_DIR": directory,
                    "TIDEWIRE_SERVICE_TOKEN_FILE": str(root / "service.token"),
                    "TIDEWIRE_INGESTION_PORT": "0",
                    "TIDEWIRE_INGESTION_METRICS_PORT": "0",
                    "TIDEWIRE_LOG_LEVEL": "warning",
                },
            )
            address = await _address(log, process)
            yield Target(address, process.pid, token_file), log
        finally:
            if beats is not None:
                beats.cancel()
            if process is not None:
                process.terminate()
                await asyncio.to_thread(process.wait, 30)
            await log.close()


async def _address(log: KafkaLog, process: subprocess.Popen[bytes]) -> str:
    for _ in range(1_500):
        for member in log.members("ingestion"):
            if member.pid == process.pid:
                return member.addresses["grpc"]
        if process.poll() is not None:
            break
        await asyncio.sleep(0.02)
    raise RuntimeError("ingestion did not come up")
