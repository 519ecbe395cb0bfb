"""Starts the whole embedded platform in a temporary directory, with the benchmark fleet registered."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.data import Fleet
from benchmarks.figures import ROOT, cpu_seconds
from tidewire.registry.v1 import registry_pb2, registry_pb2_grpc, resources_pb2
from tidewire.storage.v1 import storage_pb2, storage_pb2_grpc

TENANT = "tenants/bench"


@dataclass(slots=True)
class Platform:
    """A running platform. `start_seconds`: from the command to every service SERVING."""

    directory: Path
    process: subprocess.Popen[bytes]
    start_seconds: float
    token_file: Path
    endpoints: dict[str, list[dict[str, object]]]

    def address(self, service: str) -> str:
        """host:port of a service's first process."""
        return str(self.endpoints[service][0]["address"])

    def pids(self) -> list[int]:
        """Process ids of the command and of everything it started."""
        parent = psutil.Process(self.process.pid)
        return [parent.pid, *(child.pid for child in parent.children(recursive=True))]

    def cpu_by_service(self) -> dict[str, float]:
        """CPU seconds that each service's processes have used so far."""
        return {
            service: cpu_seconds(int(str(process["pid"])) for process in processes)
            for service, processes in self.endpoints.items()
        }

    def metadata(self, admin: bool = False) -> tuple[tuple[str, str], ...]:
        """Call metadata with the tenant's or the platform's token."""
        file = self.directory / "keys" / "admin.token" if admin else self.token_file
        return (("authorization", "Bearer " + file.read_text().strip()),)

    def stored(self) -> tuple[int, int]:
        """(readings stored, records of the log not yet read) as storage says."""
        with grpc.insecure_channel(self.address("storage")) as channel:
            stub = storage_pb2_grpc.StorageServiceStub(channel)
            ledger = stub.GetLedger(storage_pb2.GetLedgerRequest(tenant=TENANT), metadata=self.metadata())
            return sum(entry.stored_readings for entry in ledger.entries), ledger.lag_records

    def wait_stored(self, readings: int, deadline_seconds: float = 60) -> float:
        """Seconds until `readings` are stored; RuntimeError when they are not in time."""
        began = time.perf_counter()
        while self.stored()[0] < readings:
            if time.perf_counter() - began > deadline_seconds:
                raise RuntimeError(
                    f"{self.stored()[0]:,} of {readings:,} readings stored after {deadline_seconds:.0f} s"
                )
            time.sleep(0.1)
        return time.perf_counter() - began

    def counter(self, service: str, name: str) -> float:
        """The sum of a counter without labels over a service's processes."""
        return sum(self._samples(service, name + " "))

    def gauge(self, service: str, begin: str) -> float:
        """The greatest value of the series whose name and labels begin so; 0 when there are none."""
        return max(self._samples(service, begin), default=0.0)

    def _samples(self, service: str, begin: str) -> list[float]:
        found = []
        for process in self.endpoints[service]:
            with urllib.request.urlopen(f"http://{process['metrics_address']}/metrics", timeout=10) as page:
                lines = page.read().decode().splitlines()
            found += [float(line.split()[-1]) for line in lines if line.startswith(begin)]
        return found

    def sealed(self) -> tuple[int, int]:
        """Readings that were sealed, and that were merged or rolled up, since the start."""
        found = [
            self.counter("storage", f"tidewire_storage_{what}_readings_total")
            for what in ("sealed", "merged")
        ]
        return int(found[0]), int(found[1])

    def wait_sealed(self, readings: int, deadline_seconds: float = 120) -> float:
        """Ends the open epochs; seconds until `readings` are sealed. RuntimeError when they are not in time."""
        began = time.perf_counter()
        with grpc.insecure_channel(self.address("storage")) as channel:
            stub = storage_pb2_grpc.StorageServiceStub(channel)
            stub.SealEpochs(storage_pb2.SealEpochsRequest(), metadata=self.metadata(admin=True), timeout=120)
        while self.sealed()[0] < readings:
            if time.perf_counter() - began > deadline_seconds:
                raise RuntimeError(
                    f"{self.sealed()[0]:,} of {readings:,} sealed after {deadline_seconds:.0f} s"
                )
            time.sleep(0.1)
        return time.perf_counter() - began


@contextlib.contextmanager
def running_platform(
    register: bool = True,
    *options: str,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
    devices: Sequence[str] = (),
) -> Iterator[Platform]:
    """Runs `tidewire up` on free ports until the block ends; with `devices`, or else the fleet of `benchmarks.data`,
    when `register`. `directory` stays; None: a temporary one."""
    with contextlib.ExitStack() as stack:
        path = directory or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidewire-bench-")))
        began = time.perf_counter()
        tidewire = Path(sys.executable).with_name("tidewire")
        process = subprocess.Popen(
            [tidewire, "up", "--data-dir", str(path), "--free-ports", *options],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            # As for a user, whose second start finds compiled modules.
            env={key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
            | dict(environ or {}),
        )
        try:
            endpoints = _wait_serving(path, process)
            platform = Platform(path, process, time.perf_counter() - began, path / "bench.token", endpoints)
            if register:
                _register(platform, devices or Fleet().devices)
            yield platform
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_serving(path: Path, process: subprocess.Popen[bytes]) -> dict[str, list[dict[str, object]]]:
    """Polls until registry, ingestion and storage each report SERVING; RuntimeError after 30 s."""
    deadline = time.perf_counter() + 30
    while time.perf_counter() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, ValueError, KeyError, grpc.RpcError):
            endpoints = json.loads((path / "run" / "endpoints.json").read_text())
            for service in ("registry", "ingestion", "storage"):
                with grpc.insecure_channel(endpoints[service][0]["address"]) as channel:
                    answer = health_pb2_grpc.HealthStub(channel).Check(  # type: ignore[attr-defined]  # the stubs leave it out
                        health_pb2.HealthCheckRequest(), timeout=1
                    )
                    if answer.status != health_pb2.HealthCheckResponse.SERVING:
                        raise KeyError(service)
            return dict(endpoints)
        time.sleep(0.02)
    raise RuntimeError("the platform did not come up; run `tidewire up` to see why")


def _register(platform: Platform, devices: Sequence[str]) -> None:
    """Creates the tenant, a token for it, and devices."""
    with grpc.insecure_channel(platform.address("registry")) as channel:
        registry = registry_pb2_grpc.RegistryServiceStub(channel)
        admin = platform.metadata(admin=True)
        registry.CreateTenant(
            registry_pb2.CreateTenantRequest(tenant_id="bench", tenant=resources_pb2.Tenant()), metadata=admin
        )
    new_token(platform)
    with grpc.insecure_channel(platform.address("registry")) as channel:
        registry = registry_pb2_grpc.RegistryServiceStub(channel)
        for at in range(0, len(devices), 1000):
            requests = [
                registry_pb2.CreateDeviceRequest(device_id=device, device=resources_pb2.Device(type="bench"))
                for device in devices[at : at + 1000]
            ]
            registry.BatchCreateDevices(
                registry_pb2.BatchCreateDevicesRequest(parent=TENANT, requests=requests),
                metadata=platform.metadata(),
            )


def new_token(platform: Platform) -> None:
    """Creates a token for the tenant, which `platform.metadata` gives from now on."""
    with grpc.insecure_channel(platform.address("registry")) as channel:
        registry = registry_pb2_grpc.RegistryServiceStub(channel)
        answer = registry.CreateToken(
            registry_pb2.CreateTokenRequest(tenant=TENANT, subject="bench", roles=["tenant-admin"]),
            metadata=platform.metadata(admin=True),
        )
    platform.token_file.touch(0o600)
    platform.token_file.write_text(answer.token)
