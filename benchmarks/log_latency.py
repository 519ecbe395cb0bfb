"""Measures the embedded log between processes: acknowledgement, visibility in another process, CPU, idle cost.

Run it as `python benchmarks/log_latency.py [seconds]`; it prints a table and asserts nothing. One process writes at a
steady pace, another consumes; both are told what they cost in CPU. Values carry CLOCK_MONOTONIC, which all processes
of a machine share.
"""

import asyncio
import json
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tidewire_kit.log import MessageLog, Outgoing, TopicPartition, TopicSpec
from tidewire_kit.log.embedded import EmbeddedLog

TOPIC = "bench.telemetry.v1"
SPECS = [TopicSpec(TOPIC, partitions=16)]
STAMP = struct.Struct("<q")


class _Handler:
    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int] | None:
        return None

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        return None


def percentile(values: list[float], share: float) -> float:
    """The value at a share of the sorted list; NaN when it is empty."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


async def _read(data_dir: Path) -> None:
    """The reading process: obeys lines on stdin, answers in JSON lines on stdout."""
    log = EmbeddedLog(data_dir)
    await log.start()
    await log.ensure_topics(SPECS)
    consumer = await log.consume("bench.reader", [TOPIC], _Handler())
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    command = asyncio.create_task(commands.readline())
    delays: list[float] = []
    seen = 0
    cpu = time.process_time()
    print(json.dumps({"ready": True}), flush=True)
    while True:
        for record in await consumer.poll(0.2):
            (sent,) = STAMP.unpack_from(record.value)
            delays.append((time.monotonic_ns() - sent) / 1e6)
            seen += 1
        if command.done():
            if not command.result().strip():
                break
            answer = {
                "records": seen,
                "p50_ms": percentile(delays, 0.5),
                "p99_ms": percentile(delays, 0.99),
                "cpu_seconds": time.process_time() - cpu,
            }
            print(json.dumps(answer), flush=True)
            delays, seen, cpu = [], 0, time.process_time()
            command = asyncio.create_task(commands.readline())
    await log.close()


class _Reader:
    def __init__(self, data_dir: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--read", str(data_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._line()

    def report(self) -> dict[str, float]:
        assert self._process.stdin is not None
        self._process.stdin.write(b"report\n")
        self._process.stdin.flush()
        return self._line()

    def close(self) -> None:
        self._process.communicate(b"\n")

    def _line(self) -> dict[str, float]:
        assert self._process.stdout is not None
        answer: dict[str, float] = json.loads(self._process.stdout.readline())
        return answer


async def _pace(
    log: MessageLog, calls_per_second: float, partitions: int, value_bytes: int, seconds: float
) -> dict[str, float]:
    """Produces at a steady rate, whether or not earlier calls have been acknowledged."""
    acknowledged: list[float] = []
    filler = bytes(value_bytes - STAMP.size)

    async def call(number: int) -> None:
        started = time.monotonic_ns()
        stamp = STAMP.pack(started)
        await log.produce(
            TOPIC, [Outgoing((number + i) % 16, b"device", [stamp, filler]) for i in range(partitions)]
        )
        acknowledged.append((time.monotonic_ns() - started) / 1e6)

    cpu, begun, number = time.process_time(), time.monotonic(), 0
    async with asyncio.TaskGroup() as group:
        while (now := time.monotonic() - begun) < seconds:
            while number < now * calls_per_second:
                group.create_task(call(number))
                number += 1
            await asyncio.sleep(min(0.001, 1 / calls_per_second))
    cpu = time.process_time() - cpu
    return {
        "calls": number,
        "p50_ms": percentile(acknowledged, 0.5),
        "p99_ms": percentile(acknowledged, 0.99),
        "cpu_us_per_call": cpu / number * 1e6,
        "cpu_seconds_per_m": cpu / (number * partitions * value_bytes / 10) * 1e6,
    }


async def _write(seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="tidewire-log-") as directory:
        data_dir = Path(directory)
        log = EmbeddedLog(data_dir)
        await log.start()
        await log.ensure_topics(SPECS)
        reader = await asyncio.to_thread(_Reader, data_dir)
        await asyncio.sleep(1.0)
        reader.report()
        await asyncio.sleep(seconds)
        idle = reader.report()
        print(f"idle reader: {idle['cpu_seconds'] / seconds:.2%} of a core")
        print(
            f"{'load':34} {'acked p50/p99 ms':>18} {'visible p50/p99 ms':>20} {'CPU µs/call':>12} {'CPU s/M w, r':>16}"
        )
        for name, rate, partitions, size in (
            ("20/s of 300 B", 20, 1, 300),
            ("500/s of 300 B", 500, 1, 300),
            ("2,000/s of 300 B", 2000, 1, 300),
            ("50/s of 16 x 60 KB", 50, 16, 60_000),
            ("5/s of 16 x 900 KB", 5, 16, 900_000),
        ):
            wrote = await _pace(log, rate, partitions, size, seconds)
            await asyncio.sleep(0.5)
            read = reader.report()
            per_m = read["cpu_seconds"] / max(1, read["records"] * size / 10) * 1e6
            print(
                f"{name:34} {wrote['p50_ms']:9.2f}/{wrote['p99_ms']:8.2f} {read['p50_ms']:11.2f}/{read['p99_ms']:8.2f} "
                f"{wrote['cpu_us_per_call']:12.0f} {wrote['cpu_seconds_per_m']:9.4f} {per_m:6.4f}"
            )
        reader.close()
        await log.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        asyncio.run(_read(Path(sys.argv[2])))
    else:
        asyncio.run(_write(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0))
