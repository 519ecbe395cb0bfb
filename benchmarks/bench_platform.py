"""The figures of the whole embedded platform: through gRPC, fsynced, stored, with the loader on the same two cores."""

import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks.data import METRICS, Fleet
from benchmarks.figures import ROOT, Figure, Scale, cpu_seconds, load, loaded, pss_bytes, start_load
from benchmarks.whole_platform import TENANT, Platform, running_platform
from tidewire.ingestion.v1 import ingestion_pb2_grpc
from tidewire.storage.v1 import storage_pb2, storage_pb2_grpc
from tidewire.type.v1 import telemetry_pb2

MILLION = 1_000_000


def run(scale: Scale) -> list[Figure]:
    """Start-up, idle, throughput in three sizes, latency, visibility and import, each on a fresh platform."""
    return [*start_and_idle(scale), *throughput(scale), *latency(scale), *csv_import(scale)]


def start_and_idle(scale: Scale) -> list[Figure]:
    """Time to SERVING (median), and what the platform uses when nothing happens."""
    starts = []
    for _ in range(scale.rounds):
        with running_platform(register=False) as platform:
            starts.append(platform.start_seconds)
            if len(starts) == scale.rounds:
                time.sleep(5)  # lets start-up work end, so that idle means idle
                pids = platform.pids()
                before, began = cpu_seconds(pids), time.perf_counter()
                time.sleep(max(10, scale.seconds))
                share = (cpu_seconds(pids) - before) / (time.perf_counter() - began) * 100
                memory = pss_bytes(pids) / 2**20
    return [
        Figure(
            "`tidewire up` to all SERVING",
            statistics.median(starts),
            "s",
            3,
            "three services, cold processes",
            at_most=True,
        ),
        Figure("idle platform, CPU", share, "% of a core", 3, f"{len(pids)} processes", at_most=True),
        Figure("idle platform, memory", memory, "MiB PSS", 400, f"{len(pids)} processes", at_most=True),
    ]


def throughput(scale: Scale) -> list[Figure]:
    """Ingested, fsynced, stored and sealed, the time of all of it and the loader's CPU included.

    Epochs of 1,000 rows a device are sealed to the last level: merging keeps them, and rolls them up.
    """
    shapes: list[tuple[str, float, dict[str, Any]]] = [
        (
            "batches of 50,000, streamed",
            7.0,
            # Held to a rate: the log takes more than two cores can store and seal, and the lag would grow.
            {
                "mode": "stream",
                "readings": 50_000,
                "connections": 2,
                "window": 4,
                "payloads": 4,
                "rate": 7_600_000,
            },
        ),
        (
            "requests of 1,000, streamed, 8 connections",
            3.0,
            {"mode": "stream", "readings": 1_000, "connections": 8, "window": 32},
        ),
        (
            "requests of 1,000, unary, 8 connections",
            2.0,
            {"mode": "unary", "readings": 1_000, "connections": 8, "window": 8},
        ),
    ]
    return [figure for name, goal, options in shapes for figure in _throughput(name, goal, options, scale)]


def _throughput(name: str, goal: float, options: dict[str, Any], scale: Scale) -> list[Figure]:
    with running_platform() as platform:
        pids = platform.pids()
        before, spent_before = platform.cpu_by_service(), cpu_seconds(pids)
        loader = start_load(
            target=platform.address("ingestion"),
            token_file=platform.token_file,
            seconds=scale.long_seconds,
            **options,
        )
        lags, largest = [], 0.0
        while loader.poll() is None:
            time.sleep(1)
            lags.append(_lag_seconds(platform))
            largest = max(largest, pss_bytes([int(str(platform.endpoints["storage"][0]["pid"]))]) / 2**20)
        result = loaded(loader)
        sealed, merged = platform.sealed()
        behind = platform.wait_stored(result["accepted"])
        sealing = platform.wait_sealed(result["accepted"])
        millions = result["accepted"] / MILLION
        parts = _spent(platform, before, result, millions)
        server = (cpu_seconds(pids) - spent_before) / millions
    elapsed = result["seconds"] + behind + sealing
    note = (
        f"{millions:.0f} M in {elapsed:.0f} s: acknowledged at {millions / result['seconds']:.2f} M/s, stored "
        f"{behind:.1f} s after the last ack and sealed {sealing:.1f} s later; at the last ack {sealed / MILLION:.0f} M "
        f"were sealed and {merged / MILLION:.0f} M rolled up; lag of the log at most {max(lags):.1f} s, at the end "
        f"{lags[-1]:.1f} s; storage at most {largest:.0f} MiB; {result['failures']} failures"
    )
    return [
        Figure(f"all in and sealed, {name}", millions / elapsed, "M readings/s", goal, note),
        Figure(
            f"the same, CPU of all server processes, {name}",
            server,
            "CPU s/M readings",
            # Requests of 1,000 have a goal of speed only; this is what two cores leave for it.
            0.25 if options["readings"] > 1_000 else 2 / goal,
            f"CPU s/M: {parts}",
            at_most=True,
        ),
    ]


def _lag_seconds(platform: Platform) -> float:
    """Age of the oldest telemetry that storage has not stored."""
    return platform.gauge("storage", 'tidewire_consumer_lag_seconds{group="tidewire.storage",')


def _spent(platform: Platform, before: dict[str, float], result: dict[str, Any], units: float) -> str:
    """Where the CPU seconds went, each per unit of work: what limits a figure on a machine with so many cores."""
    after = platform.cpu_by_service()
    spent = {service: (after[service] - before[service]) / units for service in ("ingestion", "storage")}
    spent["loader"] = result["loader_cpu_seconds"] / units
    return ", ".join(f"{name} {seconds:.3f}" for name, seconds in spent.items())


def latency(
    scale: Scale, rate: int = 100_000, goal_ms: float = 5, environ: Mapping[str, str] | None = None
) -> list[Figure]:
    """Publish → acknowledged at `rate` readings/s in batches of 100, and acknowledged → visible at the same load."""
    with running_platform(environ=environ) as platform:
        # Streamed, as the SDK sends.
        options: dict[str, Any] = {
            "mode": "stream",
            "readings": 100,
            "connections": 4,
            "window": 64,
            "rate": rate,
        }
        before = platform.cpu_by_service()
        result = load(
            target=platform.address("ingestion"),
            token_file=platform.token_file,
            seconds=scale.seconds * 2,
            **options,
        )
        spent = _spent(platform, before, result, result["batches"] / 1000)
        visible = _visible_seconds(platform, scale, options)
    return [
        Figure(
            f"publish → acknowledged, {rate // 1000} k readings/s in batches of 100, p99",
            result["ack_p99_ms"],
            "ms",
            goal_ms,
            f"p50 {result['ack_p50_ms']:.2f} ms; CPU ms a batch: {spent}",
            at_most=True,
        ),
        Figure(
            "acknowledged → visible, p99",
            float(np.percentile(visible, 99)),
            "s",
            5,
            f"p50 {np.percentile(visible, 50):.2f} s of {len(visible)} probes beside {rate // 1000} k readings/s",
            at_most=True,
        ),
    ]


def _visible_seconds(platform: Platform, scale: Scale, options: dict[str, Any]) -> list[float]:
    """Publishes single readings beside a load and asks for each until it is there; seconds each took."""
    background = start_load(
        target=platform.address("ingestion"),
        token_file=platform.token_file,
        seconds=scale.seconds * 4,
        **options,
    )
    waits = []
    metadata = platform.metadata()
    with (
        grpc.insecure_channel(platform.address("ingestion")) as up,
        grpc.insecure_channel(platform.address("storage")) as down,
    ):
        ingestion, storage = (
            ingestion_pb2_grpc.IngestionServiceStub(up),
            storage_pb2_grpc.StorageServiceStub(down),
        )
        number = 0
        while background.poll() is None:
            number += 1
            frame = telemetry_pb2.TelemetryFrame(
                metrics=["probe"], time_unix_us=[time.time_ns() // 1000], values=[number]
            )
            ingestion.PublishTelemetry(
                telemetry_pb2.TelemetryBatch(devices=["bench-00000"], frames=[frame]), metadata=metadata
            )
            acknowledged = time.perf_counter()
            ask = storage_pb2.GetLatestRequest(parent=TENANT, devices=["bench-00000"], metrics=["probe"])
            while not any(
                value.value == number for value in storage.GetLatest(ask, metadata=metadata).values
            ):
                time.sleep(0.02)
            waits.append(time.perf_counter() - acknowledged)
    return waits


def csv_import(scale: Scale) -> list[Figure]:
    """`tidewire import` of a file with a time, a device and five metric columns, to its last acknowledgement."""
    rows = int(100_000 * scale.seconds)
    fleet = Fleet()
    device, times, values = fleet.rows(0, rows, 1_600_000_000_000_000)
    with running_platform() as platform, tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "readings.csv"
        names = fleet.devices
        with file.open("w", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(["time", "device", *METRICS])
            stamps = np.datetime_as_string(times.astype("datetime64[us]"), timezone="UTC")
            writer.writerows(zip(stamps, (names[i] for i in device), *values, strict=True))
        environment = {
            **os.environ,
            "TIDEWIRE_ENDPOINT": platform.address("registry"),
            "TIDEWIRE_TENANT": "bench",
            "XDG_STATE_HOME": directory,
            "XDG_CONFIG_HOME": directory,
        }
        tidewire = Path(sys.executable).with_name("tidewire")
        began = time.perf_counter()
        done = subprocess.run(
            [
                tidewire,
                "import",
                file,
                "--token-file",
                platform.token_file,
                "--yes",
                "--time-column",
                "time",
                "--device-column",
                "device",
            ],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        elapsed = time.perf_counter() - began
        if done.returncode:
            raise RuntimeError(f"tidewire import failed: {done.stderr.strip()[-400:]}")
        platform.wait_stored(values.size)
    return [
        Figure(
            "import of CSV",
            values.size / elapsed / 1000,
            "k readings/s",
            500,
            f"{values.size / MILLION:.1f} M readings in {elapsed:.1f} s, the command's start included",
        )
    ]
