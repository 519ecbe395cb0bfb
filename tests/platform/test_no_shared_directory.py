"""Processes as on several machines: each with a data directory of its own, and nothing shared but Kafka, Cassandra, the
signing key and the services' token."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import grpc.aio
import pytest

from tidewire.registry.v1 import registry_pb2, registry_pb2_grpc
from tidewire_client import (
    AsyncAdminClient,
    AsyncConnection,
    AsyncQueryClient,
    AsyncTelemetryPublisher,
    FileToken,
    new_device,
)
from tidewire_kit.datadir import open_data_dir
from tidewire_kit.endpoints import read_endpoints
from tidewire_testkit.whole.backend import Backend
from tidewire_testkit.whole.platform import TIDEWIRE, bearer, until

pytestmark = [pytest.mark.platform, pytest.mark.distributed, pytest.mark.timeout(120)]

SERVICES = ("registry", "ingestion", "storage")
READINGS = 2_000


class Machines:
    """Two processes of each service, each in a directory of its own."""

    def __init__(self, root: Path, settings: Mapping[str, str]) -> None:
        self.root = root
        self.keys = root / "admin" / "keys"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("TIDEWIRE_")},
            **settings,
        }

    async def prepare(self) -> None:
        """What an administrator does once."""
        for words in (
            ("admin", "bootstrap", "--data-dir", str(self.root / "admin")),
            ("topic", "apply"),
            ("schema", "apply"),
        ):
            done = await asyncio.to_thread(
                subprocess.run, [str(TIDEWIRE), *words], env=self._environ, capture_output=True, check=False
            )
            assert done.returncode == 0, done.stderr

    def start(self, service: str, number: int) -> None:
        """Starts a process."""
        name = f"{service}-{number}"
        environ = {
            **self._environ,
            "TIDEWIRE_DATA_DIR": str(self.root / name),
            "TIDEWIRE_SERVICE_TOKEN_FILE": str(self.keys / "service.token"),
            f"TIDEWIRE_{service.upper()}_PORT": "0",
            f"TIDEWIRE_{service.upper()}_METRICS_PORT": "0",
        }
        if service == "registry":
            environ["TIDEWIRE_SIGNING_KEY_FILE"] = str(self.keys / "signing.pem")
        with (self.root / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", f"tidewire_{service}"],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def address(self, name: str) -> str | None:
        """Where a process says that it listens, in its own directory."""
        process = self.processes[name]
        assert process.poll() is None, (self.root / f"{name}.log").read_text()[-2000:]
        found = read_endpoints(open_data_dir(self.root / name)).get(name.partition("-")[0], [])
        return found[0].address if found else None

    def end(self) -> None:
        """Ends what runs, and checks that it ended well."""
        for process in self.processes.values():
            process.terminate()
        statuses = {name: process.wait(60) for name, process in self.processes.items()}
        assert set(statuses.values()) == {0}, statuses


@pytest.fixture
async def machines(tmp_path: Path, backend: Backend) -> AsyncIterator[Machines]:
    settings = backend.environ(tmp_path / "shared")
    machines = Machines(tmp_path, settings)
    try:
        await machines.prepare()
        for number in (1, 2):
            for service in SERVICES:
                machines.start(service, number)
        yield machines
        machines.end()
    finally:
        for process in machines.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()


async def test_they_find_each_other_through_the_log(machines: Machines) -> None:
    async def registry() -> str | None:
        return machines.address("registry-1")

    first = await until(registry, "the first registry listens", 60)
    admin_token = FileToken(machines.keys / "admin.token")

    async def all_known() -> bool:
        listed = {name: machines.address(name) for name in machines.processes}
        async with grpc.aio.insecure_channel(
            first
        ) as channel:  # the SDK knows only the registry that it was told of
            stub = registry_pb2_grpc.RegistryServiceStub(channel)
            answer = await stub.GetEndpoints(
                registry_pb2.GetEndpointsRequest(), metadata=bearer(admin_token.token()), timeout=10
            )
        known = {endpoint.service: endpoint.addresses for endpoint in answer.endpoints}
        return all(
            address is not None and address in known.get(name.partition("-")[0], ())
            for name, address in listed.items()
        )

    await until(all_known, "every process is known to the registry", 60)
    async with AsyncConnection(first, token=admin_token) as connection:
        admin = AsyncAdminClient(connection)
        await admin.create_tenant("far")
        token = (await admin.create_token("test", ["tenant-admin"], tenant="far")).token
    second = machines.address("registry-2")
    assert second is not None
    async with AsyncConnection(second, token=token, tenant="far") as connection:
        admin = AsyncAdminClient(connection)
        query = AsyncQueryClient(connection)
        for number in range(4):
            await admin.create_device(f"sensor-{number}", new_device())
        began_us = time.time_ns() // 1000
        async with AsyncTelemetryPublisher(connection, batch_readings=100) as publisher:
            for number in range(READINGS):
                await publisher.add(f"sensor-{number % 4}", began_us + number * 1000, {"level": number})
        assert publisher.totals.accepted == READINGS

        async def visible() -> bool:
            answers = await query.aggregate([f"sensor-{number}" for number in range(4)], ["level"], "count")
            return int(sum(answer.columns["count"].sum() for answer in answers)) == READINGS

        await until(visible, "all that was acknowledged is visible", 40)

        # The registry asks storage, and ingestion asks the registry, at addresses that only the log knows.
        async def measured() -> bool:
            return (await admin.get_tenant_usage()).stored_readings == READINGS

        await until(measured, "the registry has asked storage", 40)

        machines.processes["storage-1"].kill()
        machines.processes["storage-1"].wait()
        machines.start("storage", 1)
        await until(visible, "the other storage process, or the new one, answers", 40)

        async def is_back() -> bool:
            return machines.address("storage-1") is not None

        await until(is_back, "the new one serves", 60)
