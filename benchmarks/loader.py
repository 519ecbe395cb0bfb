"""A load generator that costs little: sends prepared batches and counts what is acknowledged.

The benchmarks start it as a process of its own (`python -m benchmarks.loader --help`), so that its CPU seconds are not
the server's. Batches are encoded once; before each send only the batch id and the time column are changed in place, so
that every batch is new to the platform. Prints one JSON object when it ends.
"""

import argparse
import asyncio
import json
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import psutil
import uvloop

from benchmarks.data import Fleet
from tidewire.ingestion.v1 import ingestion_pb2
from tidewire.type.v1 import telemetry_pb2

METHOD = "/tidewire.ingestion.v1.IngestionService/"
OPTIONS = [("grpc.max_receive_message_length", 4 << 20), ("grpc.max_send_message_length", 4 << 20)]
MINUTE_US = 60_000_000


@dataclass(slots=True)
class Payload:
    """An encoded batch whose id and times can be changed in place. `readings` counts cells that are not NaN."""

    data: bytearray
    id_at: int
    times: np.ndarray
    readings: int

    def next(self, step_us: int) -> bytes:
        """The batch again, `step_us` later and with a new id."""
        self.data[self.id_at : self.id_at + 32] = uuid.uuid4().hex.encode()
        self.times += step_us
        return bytes(self.data)


def payloads(fleet: Fleet, rows: int, count: int, start_us: int) -> list[Payload]:
    """`count` batches of `rows` rows each, consecutive rows of the fleet from `start_us` on."""
    made = []
    for number in range(count):
        device_index, times, values = fleet.rows(number * rows, rows, start_us)
        used, local = np.unique(device_index, return_inverse=True)
        batch = telemetry_pb2.TelemetryBatch(
            batch_id="0" * 32,
            devices=[fleet.devices[i] for i in used],
            frames=[
                telemetry_pb2.TelemetryFrame(
                    metrics=fleet.metrics,
                    device_index=local.astype(np.uint32).tolist(),
                    time_unix_us=times.tolist(),
                    values=values.ravel().tolist(),
                )
            ],
        )
        data = bytearray(batch.SerializeToString())
        at = data.index(times.astype("<i8").tobytes())
        view = np.frombuffer(data, dtype="<i8", count=rows, offset=at)
        made.append(Payload(data, data.index(b"0" * 32), view, int(np.count_nonzero(~np.isnan(values)))))
    return made


@dataclass(slots=True)
class Tally:
    """What was acknowledged, and how long each acknowledgement took."""

    accepted: int = 0
    refused: int = 0
    batches: int = 0
    failures: int = 0
    first_failure: str = ""

    def add(self, answer: bytes) -> None:
        response = ingestion_pb2.PublishTelemetryResponse.FromString(answer)
        self.batches += 1
        if response.HasField("status"):
            self.failures += 1
            self.first_failure = self.first_failure or response.status.message
        self.accepted += response.accepted_readings
        self.refused += response.refused_readings


async def stream_connection(args, channel, metadata, mine, step_us, until, tally, waits):
    """Streams batches with at most `--window` unacknowledged, until the time is up; then waits for the rest."""
    call = channel.stream_stream(METHOD + "StreamTelemetry")(metadata=metadata)
    window = asyncio.Semaphore(args.window)
    sent: asyncio.Queue[float | None] = asyncio.Queue()

    async def read() -> None:
        while (at := await sent.get()) is not None:
            answer = await call.read()
            waits.append(time.perf_counter() - at)
            tally.add(answer)
            window.release()

    reader = asyncio.create_task(read())
    number = 0
    pace = Pace(args)
    while time.perf_counter() < until and not reader.done():
        await pace.wait(mine[number % len(mine)].readings)
        await window.acquire()
        sent.put_nowait(time.perf_counter())
        await call.write(mine[number % len(mine)].next(step_us))
        number += 1
    sent.put_nowait(None)
    await reader
    await call.done_writing()


async def unary_connection(args, channel, metadata, mine, step_us, until, tally, waits):
    """Calls PublishTelemetry from `--window` tasks until the time is up."""
    publish = channel.unary_unary(METHOD + "PublishTelemetry")
    pace = Pace(args)
    numbers = iter(range(1 << 62))

    async def caller() -> None:
        while time.perf_counter() < until:
            payload = mine[next(numbers) % len(mine)]
            await pace.wait(payload.readings)
            body = payload.next(step_us)
            at = time.perf_counter()
            try:
                answer = await publish(body, metadata=metadata, timeout=30)
            except grpc.aio.AioRpcError as error:
                tally.failures += 1
                tally.first_failure = tally.first_failure or f"{error.code().name}: {error.details()}"
                await asyncio.sleep(0.1)
                continue
            waits.append(time.perf_counter() - at)
            tally.add(answer)

    await asyncio.gather(*(caller() for _ in range(args.window)))


class Pace:
    """Holds a connection to its part of `--rate` readings per second; 0: as fast as it goes."""

    def __init__(self, args):
        self.per_second = args.rate / args.connections
        self.start = time.perf_counter()
        self.sent = 0

    async def wait(self, readings: int) -> None:
        if not self.per_second:
            return
        due = self.start + self.sent / self.per_second
        self.sent += readings
        if (delay := due - time.perf_counter()) > 0:
            await asyncio.sleep(delay)


async def run(args) -> dict:
    """Runs the load and returns the figures."""
    fleet = Fleet()
    rows = max(1, args.readings // len(fleet.metrics))
    count = args.connections * args.payloads
    start_us = time.time_ns() // 1000 - args.hours_back * 3_600_000_000
    made = payloads(fleet, rows, count, start_us)
    step_us = -(-count * rows // len(fleet.devices)) * MINUTE_US
    metadata = (
        [("authorization", "Bearer " + Path(args.token_file).read_text().strip())] if args.token_file else []
    )
    tally, waits = Tally(), []
    process = psutil.Process()
    channels = [
        grpc.aio.insecure_channel(args.target, options=[*OPTIONS, ("grpc.use_local_subchannel_pool", 1)])
        for _ in range(args.connections)
    ]
    connection = stream_connection if args.mode == "stream" else unary_connection
    cpu_before, began = process.cpu_times(), time.perf_counter()
    await asyncio.gather(
        *(
            connection(
                args,
                channel,
                metadata,
                made[i * args.payloads : (i + 1) * args.payloads],
                step_us,
                began + args.seconds,
                tally,
                waits,
            )
            for i, channel in enumerate(channels)
        )
    )
    seconds = time.perf_counter() - began
    cpu = process.cpu_times()
    for channel in channels:
        await channel.close()
    waits_ms = np.sort(np.asarray(waits)) * 1e3
    return {
        "accepted": tally.accepted,
        "refused": tally.refused,
        "batches": tally.batches,
        "failures": tally.failures,
        "first_failure": tally.first_failure,
        "seconds": seconds,
        "loader_cpu_seconds": cpu.user + cpu.system - cpu_before.user - cpu_before.system,
        "ack_p50_ms": float(np.percentile(waits_ms, 50)) if waits else None,
        "ack_p99_ms": float(np.percentile(waits_ms, 99)) if waits else None,
    }


def main() -> None:
    """Parses arguments, runs, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True, help="host:port of ingestion (or of an echo server)")
    parser.add_argument("--token-file", default="", help="file with the bearer token")
    parser.add_argument("--mode", choices=["stream", "unary"], default="stream")
    parser.add_argument("--readings", type=int, default=10_000, help="readings a batch")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--window", type=int, default=8, help="unacknowledged batches a connection")
    parser.add_argument("--payloads", type=int, default=8, help="different batches a connection")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=float, default=0, help="readings per second in all; 0: unlimited")
    parser.add_argument(
        "--hours-back", type=int, default=24 * 365 * 5, help="event time of the first reading"
    )
    print(json.dumps(uvloop.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
