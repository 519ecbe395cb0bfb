"""Storage in depth: what readings take once they are sealed and merged, and how quickly questions are answered.

The whole platform takes in the standard data through its API, seals it by command and merges it by itself; then each
question is asked again and again through gRPC, one at a time, as a dashboard would.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.date_pb2 import Date

from benchmarks.data import DAY_US, Fleet
from benchmarks.figures import Figure, Scale, pss_bytes
from benchmarks.whole_platform import TENANT, Platform, running_platform
from tidewire.ingestion.v1 import ingestion_pb2_grpc
from tidewire.storage.v1 import storage_pb2, storage_pb2_grpc
from tidewire.type.v1 import telemetry_pb2

START_US = 1_700_006_400_000_000
"""2023-11-15T00:00:00Z: so that no month ends within the data."""
READINGS = 100_000_000
_BATCH_ROWS = 10_000
_IN_FLIGHT = 4
_OPTIONS = [("grpc.max_receive_message_length", 4 << 20), ("grpc.max_send_message_length", 4 << 20)]
_MERGE_SECONDS = 600

_GOALS_MS = {"last value": 1, "a day of one series": 3, "hourly averages of one series": 3}
_GOALS_MS |= {"report of 3,000 devices": 50, "last of 15,000 series": 50}


def run(scale: Scale) -> list[Figure]:
    """Bytes a reading, memory, and the median time of five questions."""
    readings = READINGS if scale.rounds > 1 else 1_000_000
    # Days of log time end while one waits.
    with running_platform(environ={"TIDEWIRE_STORAGE_MERGE_SECONDS": "10"}) as platform:
        accepted, rows = _fill(platform, readings)
        platform.wait_stored(accepted, 300)
        _seal(platform, accepted)
        with grpc.insecure_channel(platform.address("storage"), options=_OPTIONS) as channel:
            stub = storage_pb2_grpc.StorageServiceStub(channel)
            (usage,) = stub.GetStorageUsage(
                storage_pb2.GetStorageUsageRequest(tenant=TENANT), metadata=platform.metadata()
            ).usages
            size = usage.stored_bytes / usage.stored_readings
            days = rows / Fleet().device_count / 1440
            figures = _questions(platform, stub, scale, days)
        storage = [int(str(process["pid"])) for process in platform.endpoints["storage"]]
        memory = pss_bytes(storage) / 2**20
    note = f"{usage.stored_readings / 1e6:.0f} M readings, {days:.1f} days of 3,000 devices; rollups included"
    return [
        Figure("bytes a reading, sealed and merged", size, "B/reading", 1.3, note, at_most=True),
        Figure("memory of storage after it", memory, "MiB PSS", 400, "", at_most=True),
        *figures,
    ]


def _fill(platform: Platform, readings: int) -> tuple[int, int]:
    """Publishes the fleet's readings as they come; returns (accepted, rows of all devices, lost ones included)."""
    fleet = Fleet()
    accepted = first = 0
    waiting: deque[Any] = deque()
    with grpc.insecure_channel(platform.address("ingestion"), options=_OPTIONS) as channel:
        stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
        while accepted < readings or waiting:
            if accepted + len(waiting) * _BATCH_ROWS * 5 < readings and len(waiting) < _IN_FLIGHT:
                device, times, values = fleet.rows(first, _BATCH_ROWS, START_US)
                first += int(_BATCH_ROWS / (1 - fleet.lost_share)) + 64
                used, local = np.unique(device, return_inverse=True)
                frame = telemetry_pb2.TelemetryFrame(
                    metrics=fleet.metrics,
                    device_index=local.astype(np.uint32).tolist(),
                    time_unix_us=times.tolist(),
                    values=values.ravel().tolist(),
                )
                batch = telemetry_pb2.TelemetryBatch(
                    devices=[fleet.devices[number] for number in used], frames=[frame]
                )
                waiting.append(stub.PublishTelemetry.future(batch, metadata=platform.metadata()))
            else:
                accepted += waiting.popleft().result().accepted_readings
    return accepted, first


def _seal(platform: Platform, accepted: int) -> None:
    """Returns when everything is sealed and merged."""
    with grpc.insecure_channel(platform.address("storage")) as channel:
        stub = storage_pb2_grpc.StorageServiceStub(channel)
        stub.SealEpochs(storage_pb2.SealEpochsRequest(), metadata=platform.metadata(admin=True), timeout=120)
    deadline = time.monotonic() + _MERGE_SECONDS
    while platform.sealed()[1] < accepted:
        if time.monotonic() > deadline:
            raise RuntimeError(f"not merged after {_MERGE_SECONDS} s")
        time.sleep(0.5)


def _questions(
    platform: Platform, stub: storage_pb2_grpc.StorageServiceStub, scale: Scale, days: float
) -> list[Figure]:
    metadata = platform.metadata()
    rng = np.random.default_rng(1)
    day_us = START_US + int(days // 2) * DAY_US

    def device() -> str:
        return f"bench-{rng.integers(3_000):05d}"

    def last_value() -> int:
        ask = storage_pb2.GetLatestRequest(parent=TENANT, devices=[device()], metrics=["temperature"])
        return len(stub.GetLatest(ask, metadata=metadata).values)

    def day_of_series() -> int:
        ask = storage_pb2.ReadSeriesRequest(
            device=f"{TENANT}/devices/{device()}",
            metrics=["temperature"],
            start_time=_timestamp(day_us),
            end_time=_timestamp(day_us + DAY_US),
        )
        return sum(len(part.columns.time_unix_us) for part in stub.ReadSeries(ask, metadata=metadata))

    def hourly_averages() -> int:
        ask = storage_pb2.AggregateRequest(
            parent=TENANT,
            devices=[device()],
            metrics=["temperature"],
            functions=[storage_pb2.AVG],
            bucket_duration=Duration(seconds=3600),
        )
        (series,) = stub.Aggregate(ask, metadata=metadata).series
        return len(series.bucket_start_unix_us)

    def report() -> int:
        ask = storage_pb2.ReportRequest(
            parent=TENANT, month=Date(year=2023, month=11), granularity=storage_pb2.REPORT_GRANULARITY_MONTH
        )
        return sum(len(part.subject_index) for part in stub.Report(ask, metadata=metadata))

    def last_of_all() -> int:
        ask = storage_pb2.GetLatestRequest(parent=TENANT, page_size=15_000)
        return len(stub.GetLatest(ask, metadata=metadata).values)

    asked: list[tuple[str, Callable[[], int], int]] = [
        ("last value", last_value, 1),
        ("a day of one series", day_of_series, 1),
        ("hourly averages of one series", hourly_averages, 1),
        ("report of 3,000 devices", report, 15_000),
        ("last of 15,000 series", last_of_all, 15_000),
    ]
    return [_timed(name, ask, least, scale) for name, ask, least in asked]


def _timed(name: str, ask: Callable[[], int], least: int, scale: Scale) -> Figure:
    """Median time of a question in milliseconds."""
    number = ask()
    if number < least:
        raise RuntimeError(f"{name}: {number} rows where at least {least} were expected")
    seconds = []
    until = time.perf_counter() + scale.seconds
    while time.perf_counter() < until or len(seconds) < 5:
        began = time.perf_counter()
        number = ask()
        seconds.append(time.perf_counter() - began)
    note = f"{len(seconds)} times, p99 {np.percentile(seconds, 99) * 1e3:.1f} ms; {number:,} rows"
    return Figure(
        f"{name}, through gRPC, p50",
        statistics.median(seconds) * 1e3,
        "ms",
        _GOALS_MS[name],
        note,
        at_most=True,
    )


def _timestamp(time_us: int) -> Timestamp:
    return Timestamp(seconds=time_us // 1_000_000, nanos=time_us % 1_000_000 * 1000)
