"""Storage in depth: what readings take once they are sealed and merged, and how quickly questions are answered.

The whole platform takes in the standard data through its API, seals it by command and merges it by itself; then each
question is asked again and again through gRPC, one at a time, as a dashboard would.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.date_pb2 import Date

from benchmarks.data import DAY_US, Fleet
from benchmarks.figures import Figure, PeakMemory, Scale, progress, pss_bytes
from benchmarks.whole_platform import TENANT, Platform, running_platform
from tidewire.ingestion.v1 import ingestion_pb2_grpc
from tidewire.storage.v1 import storage_pb2, storage_pb2_grpc
from tidewire.type.v1 import telemetry_pb2

START_US = 1_700_006_400_000_000
"""2023-11-15T00:00:00Z: so that no month ends within the data."""
_BATCH_ROWS = 10_000
_IN_FLIGHT = 4
_OPTIONS = [("grpc.max_receive_message_length", 4 << 20), ("grpc.max_send_message_length", 4 << 20)]
_MERGE_SECONDS = 600
_SAY_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Goals:
    """What a backend is held to, and how much data shows it."""

    readings: int
    bytes_a_reading: float
    last_value_ms: float
    day_ms: float
    hourly_ms: float
    report_ms: float
    last_of_all_ms: float


EMBEDDED = Goals(100_000_000, 1.3, 1, 3, 3, 50, 50)
_REGULAR_BYTES = 0.7
_QUICK_READINGS = 1_000_000
MERGE_SOON = {"TIDEWIRE_STORAGE_MERGE_SECONDS": "10"}
"""Days of log time end while one waits."""


def run(scale: Scale) -> list[Figure]:
    """Bytes a reading, memory, and the median time of five questions; bytes a reading of devices with regular times."""
    return [*depth(scale, EMBEDDED), regular(scale)]


def depth(
    scale: Scale,
    goals: Goals,
    environ: Mapping[str, str] | None = None,
    on_disk: Callable[[], int] | None = None,
) -> list[Figure]:
    """Figures of the standard data on a platform with these settings. `on_disk` gives the bytes that the store takes
    for its readings; None: storage's own account of it is right."""
    readings = goals.readings if scale.rounds > 1 else _QUICK_READINGS
    with running_platform(environ={**MERGE_SOON, **(environ or {})}) as platform:
        pids = [int(str(process["pid"])) for process in platform.endpoints["storage"]]
        with PeakMemory(pids) as memory:
            began = time.monotonic()
            accepted, rows = _fill(platform, Fleet(), readings)
            platform.wait_stored(accepted, 300)
            filled = accepted / (time.monotonic() - began) / 1e6
            _seal(platform, accepted)
            days = rows / Fleet().device_count / 1440
            with grpc.insecure_channel(platform.address("storage"), options=_OPTIONS) as channel:
                stub = storage_pb2_grpc.StorageServiceStub(channel)
                figures = _questions(platform, stub, goals, scale, days)
        usage = _usage(platform)
        after = pss_bytes(pids) / 2**20
        taken = on_disk() if on_disk else usage.stored_bytes
    blocks = usage.stored_bytes / usage.stored_readings
    note = f"{usage.stored_readings / 1e6:.0f} M readings, {days:.1f} days of 3,000 devices; rollups included"
    if on_disk:
        note += f"; {blocks:.2f} in blocks, the rest is the server's"
    return [
        Figure(
            "bytes a reading, sealed and merged",
            taken / usage.stored_readings,
            "B/reading",
            goals.bytes_a_reading,
            note,
            at_most=True,
        ),
        Figure(
            "memory of storage, peak while filled, sealed, merged and asked",
            memory.peak_mib,
            "MiB PSS",
            400,
            f"filled at {filled:.1f} M readings/s; {after:.0f} MiB in the end",
            at_most=True,
        ),
        *figures,
    ]


def regular(scale: Scale) -> Figure:
    """Bytes a reading when every device sends exactly once a minute: a quarter of the readings, all else the same."""
    readings = EMBEDDED.readings // 4 if scale.rounds > 1 else _QUICK_READINGS
    with running_platform(environ=MERGE_SOON) as platform:
        accepted, rows = _fill(platform, Fleet(jitter_us=0), readings)
        platform.wait_stored(accepted, 300)
        _seal(platform, accepted)
        usage = _usage(platform)
    days = rows / Fleet().device_count / 1440
    return Figure(
        "bytes a reading, regular times",
        usage.stored_bytes / usage.stored_readings,
        "B/reading",
        _REGULAR_BYTES,
        f"{usage.stored_readings / 1e6:.0f} M readings, {days:.1f} days; rollups included",
        at_most=True,
    )


def _usage(platform: Platform) -> storage_pb2.StorageUsage:
    with grpc.insecure_channel(platform.address("storage")) as channel:
        stub = storage_pb2_grpc.StorageServiceStub(channel)
        ask = storage_pb2.GetStorageUsageRequest(tenant=TENANT)
        (usage,) = stub.GetStorageUsage(ask, metadata=platform.metadata()).usages
    return usage


def _fill(platform: Platform, fleet: Fleet, readings: int) -> tuple[int, int]:
    """Publishes the fleet's readings as they come; returns (accepted, rows of all devices, lost ones included)."""
    accepted = first = 0
    waiting: deque[Any] = deque()
    said = time.monotonic()
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
            if time.monotonic() > said + _SAY_SECONDS:
                said = time.monotonic()
                progress(f"{accepted / 1e6:,.0f} of {readings / 1e6:,.0f} M readings accepted")
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
    platform: Platform,
    stub: storage_pb2_grpc.StorageServiceStub,
    goals: Goals,
    scale: Scale,
    days: float,
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

    asked: list[tuple[str, Callable[[], int], int, float]] = [
        ("last value", last_value, 1, goals.last_value_ms),
        ("a day of one series", day_of_series, 1, goals.day_ms),
        ("hourly averages of one series", hourly_averages, 1, goals.hourly_ms),
        ("report of 3,000 devices", report, 15_000, goals.report_ms),
        ("last of 15,000 series", last_of_all, 15_000, goals.last_of_all_ms),
    ]
    return [_timed(name, ask, least, goal, scale) for name, ask, least, goal in asked]


def _timed(name: str, ask: Callable[[], int], least: int, goal: float, scale: Scale) -> Figure:
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
    median = statistics.median(seconds) * 1e3
    progress(f"{name}: {median:.2f} ms")
    note = f"{len(seconds)} times, p99 {np.percentile(seconds, 99) * 1e3:.1f} ms; {number:,} rows"
    return Figure(f"{name}, through gRPC, p50", median, "ms", goal, note, at_most=True)


def _timestamp(time_us: int) -> Timestamp:
    return Timestamp(seconds=time_us // 1_000_000, nanos=time_us % 1_000_000 * 1000)
