"""The embedded log between processes: how soon another process sees a record, and what waiting for records costs.

Uses the writer and the reader of `log_latency`, which prints more loads than the two figures need.
"""

import asyncio
import statistics
import tempfile
from pathlib import Path

from benchmarks.figures import Figure, Scale
from benchmarks.log_latency import SPECS, _pace, _Reader
from tidewire_kit.log.embedded import EmbeddedLog

RATE = 500
VALUE_BYTES = 300


def run(scale: Scale) -> list[Figure]:
    """Idle cost first, then visibility at a steady rate, median of the rounds."""
    return asyncio.run(_run(scale.rounds, scale.seconds))


async def _run(rounds: int, seconds: float) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="tidewire-bench-") as directory:
        log = EmbeddedLog(Path(directory))
        await log.start()
        await log.ensure_topics(SPECS)
        reader = await asyncio.to_thread(_Reader, Path(directory))
        await asyncio.sleep(1)  # lets start-up work end, so that idle means idle
        reader.report()
        await asyncio.sleep(seconds)
        idle = reader.report()["cpu_seconds"] / seconds * 100
        wrote, read = [], []
        for _ in range(rounds):
            wrote.append(await _pace(log, RATE, 1, VALUE_BYTES, seconds))
            await asyncio.sleep(0.5)
            read.append(reader.report())
        reader.close()
        await log.close()
    seen = statistics.median(each["p99_ms"] for each in read)
    durable = statistics.median(each["p99_ms"] for each in wrote)
    half = statistics.median(each["p50_ms"] for each in read)
    note = (
        f"p50 {half:.2f} ms at {RATE} records/s from the call of produce; durable after p99 {durable:.2f} ms"
    )
    return [
        Figure("log: seen by another process, p99", seen, "ms", 5, note, at_most=True),
        Figure("log: idle reader, CPU", idle, "% of a core", 1, "one process", at_most=True),
    ]
