"""A billion readings: a month of 30,000 devices, reported through gRPC from daily rollups, and by reading all of them.

The month is made by `month_data`, which takes minutes: `--keep DIRECTORY` leaves it there for the next run.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.type.date_pb2 import Date

from benchmarks.data import METRICS
from benchmarks.figures import ROOT, Figure, PeakMemory, Scale, cpu_seconds, progress
from benchmarks.month_data import DAYS, MONTH, fleet_of
from benchmarks.whole_platform import TENANT, Platform, new_token, running_platform
from tidewire.registry.v1 import registry_pb2, registry_pb2_grpc
from tidewire.storage.v1 import storage_pb2, storage_pb2_grpc

DEVICES = 30_000
_OPTIONS = [("grpc.max_receive_message_length", 64 << 20)]
_CALM_SECONDS = 120
_UNLIKE_ANY_ROLLUP_SECONDS = 100 * 86400 + 1
"""A width of buckets that no rollup divides, so that every reading has to be read."""


def run(scale: Scale) -> list[Figure]:
    """Time of the report and of the scan, bytes on the disk, and memory of storage meanwhile."""
    devices, days = (DEVICES, DAYS) if scale.rounds > 1 else (3_000, 3)
    with tempfile.TemporaryDirectory(prefix="tidewire-bench-") as temporary:
        directory = scale.keep or Path(temporary)
        made = _made(directory, devices, days)
        # Nothing is to be sealed, expired or counted again in the middle of a question.
        quiet = {"TIDEWIRE_STORAGE_RECOUNT_SECONDS": "86400"}
        with running_platform(register=False, environ=quiet, directory=directory) as platform:
            new_token(platform)
            return _measure(platform, directory, made["readings"], devices * len(METRICS), scale)


def _made(directory: Path, devices: int, days: int) -> dict[str, Any]:
    """Fills the directory unless it is filled already; returns what is in it."""
    note = directory / "month.json"
    wanted = {"devices": devices, "days": days}
    if note.exists():
        found: dict[str, Any] = json.loads(note.read_text())
        if wanted.items() <= found.items():
            return found
        raise RuntimeError(f"{directory} holds another month, {found}; name another directory")
    if directory.exists() and any(directory.iterdir()):
        raise RuntimeError(f"{directory} is not empty and holds no whole month; remove it, or name another")
    directory.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    uids = directory / "uids.npy"
    with running_platform(directory=directory, devices=fleet_of(devices).devices) as platform:
        tenant, all_uids = _uids(platform)
    np.save(uids, all_uids)
    progress(f"{len(all_uids):,} devices registered in {time.monotonic() - began:.0f} s")
    command = [sys.executable, "-m", "benchmarks.month_data", str(directory)]
    command += ["--tenant", tenant, "--uids", str(uids), "--days", str(days)]
    out = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True, env=dict(os.environ)
    ).stdout
    found = wanted | json.loads(out) | {"seconds": round(time.monotonic() - began)}
    note.write_text(json.dumps(found) + "\n")
    return found


def _uids(platform: Platform) -> tuple[str, np.ndarray]:
    """The tenant's uid, and its devices' (devices, 16) in the order of their names."""
    uids: list[str] = []
    with grpc.insecure_channel(platform.address("registry"), options=_OPTIONS) as channel:
        registry = registry_pb2_grpc.RegistryServiceStub(channel)
        metadata = platform.metadata()
        tenant = registry.GetTenant(registry_pb2.GetTenantRequest(name=TENANT), metadata=metadata).uid
        token = ""
        while True:
            ask = registry_pb2.ListDevicesRequest(parent=TENANT, page_size=1000, page_token=token)
            page = registry.ListDevices(ask, metadata=metadata)
            uids += [device.uid for device in page.devices]
            token = page.next_page_token
            if not token:
                break
    return tenant, np.frombuffer(bytes.fromhex("".join(uids)), np.uint8).reshape(-1, 16)


def _measure(platform: Platform, directory: Path, readings: int, series: int, scale: Scale) -> list[Figure]:
    pids = [int(str(process["pid"])) for process in platform.endpoints["storage"]]
    metadata = platform.metadata()
    _calm(pids)
    with (
        grpc.insecure_channel(platform.address("storage"), options=_OPTIONS) as channel,
        PeakMemory(pids) as memory,
    ):
        stub = storage_pb2_grpc.StorageServiceStub(channel)

        def report() -> tuple[int, str]:
            ask = storage_pb2.ReportRequest(
                parent=TENANT,
                month=Date(year=MONTH[0], month=MONTH[1]),
                granularity=storage_pb2.REPORT_GRANULARITY_MONTH,
            )
            parts = list(stub.Report(ask, metadata=metadata))
            counted = sum(sum(part.readings) for part in parts)
            tier = storage_pb2.AggregateTier.Name(parts[-1].tier)
            rows = sum(len(part.subject_index) for part in parts)
            if rows != series:
                raise RuntimeError(f"{rows:,} rows in the report instead of {series:,}")
            return counted, f"{rows:,} rows from {tier}"

        def scan() -> tuple[int, str]:
            ask = storage_pb2.AggregateRequest(
                parent=TENANT,
                metrics=METRICS,
                functions=[storage_pb2.COUNT, storage_pb2.AVG, storage_pb2.MAX],
                bucket_duration=Duration(seconds=_UNLIKE_ANY_ROLLUP_SECONDS),
                across_devices=True,
            )
            answer = stub.Aggregate(ask, metadata=metadata)
            if answer.tier != storage_pb2.RAW:
                raise RuntimeError("the scan was answered from rollups")
            return sum(int(sum(one.columns[0].values)) for one in answer.series), "every reading decoded"

        asked: list[tuple[str, Callable[[], tuple[int, str]], float]] = [
            ("report of a month from rollups", report, 1),
            ("full scan: count, average and greatest of each metric", scan, 5),
        ]
        figures = [_timed(name, ask, goal, readings, pids, scale) for name, ask, goal in asked]
    blocks = directory / "storage" / "blocks"
    size = sum(file.stat().st_size for file in blocks.rglob("*") if file.is_file())
    catalog = sum(file.stat().st_size for file in (directory / "storage").glob("catalog.db*"))
    note = f"{readings / 1e6:,.0f} M readings, {size / readings:.2f} B each with rollups; catalog {catalog >> 20} MiB"
    return [
        *figures,
        # Of a quick run too, as if it were a whole month.
        Figure("a billion readings on the disk", (size + catalog) / readings, "GB", 1.5, note, at_most=True),
        Figure("memory of storage meanwhile, peak", memory.peak_mib, "MiB PSS", 400, "", at_most=True),
    ]


def _timed(
    name: str,
    ask: Callable[[], tuple[int, str]],
    goal: float,
    readings: int,
    pids: list[int],
    scale: Scale,
) -> Figure:
    """Median seconds of a question that has to count every reading."""
    seconds = []
    before = cpu_seconds(pids)
    for _ in range(max(2, min(scale.rounds, 3))):
        began = time.perf_counter()
        counted, what = ask()
        seconds.append(time.perf_counter() - began)
        progress(f"{name}: {seconds[-1]:.2f} s")
        if counted != readings:
            raise RuntimeError(f"{name}: {counted:,} readings instead of {readings:,}")
    spent = (cpu_seconds(pids) - before) / len(seconds)
    note = f"{what}; {spent:.2f} CPU s of storage, first time {seconds[0]:.2f} s"
    return Figure(f"{name}, through gRPC", statistics.median(seconds), "s", goal, note, at_most=True)


def _calm(pids: list[int]) -> None:
    """Returns when storage has nothing to do: it counts its blocks once after a start."""
    deadline = time.monotonic() + _CALM_SECONDS
    while time.monotonic() < deadline:
        before = cpu_seconds(pids)
        time.sleep(2)
        if cpu_seconds(pids) - before < 0.2:
            return
    raise RuntimeError(f"storage was still busy {_CALM_SECONDS} s after its start")
