"""Runs `tidewire up` as a user would, on free ports over a temporary directory, and looks at it from outside.

Used by tests/platform and tests/ledger. Everything is asynchronous and polls with a deadline; nothing sleeps and hopes.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from tidewire.ingestion.v1 import ingestion_pb2_grpc
from tidewire.registry.v1 import registry_pb2, registry_pb2_grpc, resources_pb2
from tidewire.storage.v1 import storage_pb2_grpc
from tidewire_testkit.leash import start_leashed
from tidewire_testkit.whole.backend import current
from tidewire_testkit.whole.result import CommandResult

TIDEWIRE = Path(sys.executable).with_name("tidewire")
START_SECONDS = 45.0
STOP_SECONDS = 45.0

_CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 3_000),  # the time that one attempt has, for a machine that is busy
    ("grpc.max_reconnect_backoff_ms", 500),
)


async def until[T](check: Callable[[], Awaitable[T | None]], what: str, seconds: float = 20.0) -> T:
    """Polls `check` until it returns something true, and returns that; AssertionError naming `what` at the deadline.

    gRPC errors count as "not yet"; the last one is part of the message.
    """
    deadline, last = time.monotonic() + seconds, ""
    while True:
        try:
            if result := await check():
                return result
        except grpc.aio.AioRpcError as error:
            last = f"; last error {error.code().name}: {error.details()}"
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}{last}")
        await asyncio.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a process listens."""

    address: str
    metrics_address: str
    pid: int


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class UpProcess:
    """A `tidewire up` and what it started.

    Its data is where the test's backend keeps it. `options` are further command-line options; `home` (default: beside
    the data directory) has the contexts and what the command writes.
    """

    def __init__(
        self,
        data_dir: Path,
        *options: str,
        environ: Mapping[str, str] | None = None,
        home: Path | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.backend = current()
        self.processes: dict[str, int] = dict(self.backend.processes)
        """Service → how many of its processes are started; options of the command may say otherwise."""
        self._options = options
        for option, value in itertools.pairwise(options):
            if option.endswith("-processes"):
                self.processes[option.removeprefix("--").removesuffix("-processes")] = int(value)
        self._home = home or data_dir.parent / f"{data_dir.name}-home"
        self.environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("TIDEWIRE_")},
            "XDG_CONFIG_HOME": str(self._home / "config"),
            "XDG_DATA_HOME": str(self._home / "data"),
            **self.backend.environ(data_dir),
            **(environ or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._channels: dict[str, grpc.aio.Channel] = {}

    # Life

    def start(self) -> None:
        """Starts the command; returns at once."""
        self._home.mkdir(parents=True, exist_ok=True)
        counts = [
            text
            for service, count in self.processes.items()
            for text in (f"--{service}-processes", str(count))
        ]
        with (self._home / "up.out").open("wb") as out, (self._home / "up.err").open("wb") as err:
            up = self.command_line(
                "up", "--data-dir", str(self.data_dir), "--free-ports", *counts, *self._options
            )
            self._process = start_leashed(
                up,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    async def wait_serving(self, seconds: float = START_SECONDS) -> None:
        """Waits until all processes of each service are alive and serve."""
        wanted = self.processes
        await self.wait_announced(seconds)

        async def serving() -> bool:
            for service, count in wanted.items():
                endpoints = self.endpoints(service)
                if len(endpoints) < count:
                    return False
                for endpoint in endpoints:
                    if not await self.is_serving(endpoint.address):
                        return False
            return True

        await until(serving, f"all of {wanted} serving", seconds)

    async def wait_announced(self, seconds: float = START_SECONDS) -> None:
        """Waits until the command itself says that all serve."""

        async def announced() -> bool:
            assert self.status is None, f"tidewire up ended with {self.status}: {self.stderr()[-2000:]}"
            return "Tidewire serves" in self.stdout()

        await until(announced, "the command says that all serve", seconds * self.backend.patience)

    async def stop(self, seconds: float = STOP_SECONDS) -> int:
        """Stops the command as Ctrl-C would and returns its exit status."""
        return await self.signal_and_wait(signal.SIGINT, seconds)

    async def signal_and_wait(self, number: signal.Signals, seconds: float = STOP_SECONDS) -> int:
        """Sends a signal to the command alone and returns its exit status when it has ended."""
        process = self._process
        assert process is not None
        await self.close_channels()
        if process.poll() is None:
            process.send_signal(number)

        async def ended() -> bool:
            return process.poll() is not None

        await until(ended, "tidewire up ends", seconds)
        return process.returncode

    async def ensure_ended(self) -> None:
        """Stops whatever is still there, the hard way if need be; for the ends of tests."""
        process = self._process
        if process is None:
            return
        try:
            await self.stop()
        except AssertionError:
            process.kill()
            process.wait()
            raise

    def kill_pid(self, pid: int) -> None:
        """Kills one of its processes with SIGKILL."""
        os.kill(pid, signal.SIGKILL)

    @property
    def pid(self) -> int:
        """The command's process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The command's exit status; None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def stderr(self) -> str:
        """What the command has written to stderr."""
        return (self._home / "up.err").read_text(errors="replace")

    def stdout(self) -> str:
        """What the command has written to stdout."""
        return (self._home / "up.out").read_text(errors="replace")

    async def close_channels(self) -> None:
        """Closes the channels that calls have opened; the next calls open new ones, on their own event loop."""
        channels = list(self._channels.values())
        self._channels.clear()
        for channel in channels:
            await channel.close()

    def command_line(self, *arguments: str) -> list[str]:
        """The words that run `tidewire ARGUMENTS`."""
        return [str(TIDEWIRE), *arguments]

    async def command(self, *arguments: str, seconds: float = 60) -> CommandResult:
        """Runs `tidewire ARGUMENTS` as a user of this platform's contexts would.

        `seconds`: the longest that it may take on the embedded backend.
        """
        seconds *= self.backend.patience
        process = await asyncio.create_subprocess_exec(
            *self.command_line(*arguments),
            env=self.environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), seconds)
        except TimeoutError:
            process.kill()
            out, err = await process.communicate()
            raise AssertionError(f"tidewire {arguments} took over {seconds:.0f} s: {out!r} {err!r}") from None
        assert process.returncode is not None
        return CommandResult(process.returncode, out.decode(), err.decode())

    # What it says of itself

    def endpoints(self, service: str) -> list[Endpoint]:
        """The live processes of a service, by address."""
        try:
            content = json.loads((self.data_dir / "run" / "endpoints.json").read_text())
        except (FileNotFoundError, ValueError):
            return []
        found = [
            Endpoint(entry["address"], entry.get("metrics_address", ""), int(entry["pid"]))
            for entry in content.get(service, [])
        ]
        return sorted((entry for entry in found if alive(entry.pid)), key=lambda entry: entry.address)

    def address(self, service: str) -> str:
        """The address of a service's first process."""
        return self.endpoints(service)[0].address

    def log_entries(self) -> list[dict[str, Any]]:
        """All that its processes have logged."""
        entries = []
        for path in sorted((self.data_dir / "run" / "logs").glob("*.jsonl")):
            for line in path.read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError):  # the last line of a process that is writing
                    entries.append(json.loads(line))
        return entries

    def logged_errors(self, expected: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Entries of level error or worse whose event contains none of `expected`."""
        return [
            entry
            for entry in self.log_entries()
            if str(entry.get("level")).lower() in {"error", "critical", "exception"}
            and not any(words in str(entry.get("event")) for words in expected)
        ]

    # Talking to it

    def channel(self, address: str) -> grpc.aio.Channel:
        """A channel to an address, kept until `stop`."""
        if address not in self._channels:
            self._channels[address] = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        return self._channels[address]

    async def is_serving(self, address: str) -> bool:
        """Whether the process at `address` says SERVING."""
        check = self.channel(address).unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            response = await check(health_pb2.HealthCheckRequest(), timeout=1)
        except grpc.aio.AioRpcError:
            return False
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    def admin_metadata(self) -> tuple[tuple[str, str], ...]:
        """Call metadata of the platform administrator."""
        return bearer((self.data_dir / "keys" / "admin.token").read_text().strip())

    def registry(self) -> "registry_pb2_grpc.RegistryServiceAsyncStub":
        """The registry's API."""
        return registry_pb2_grpc.RegistryServiceStub(self.channel(self.address("registry")))

    def ingestion(self, address: str | None = None) -> "ingestion_pb2_grpc.IngestionServiceAsyncStub":
        """The API of one ingestion process, the first unless told."""
        return ingestion_pb2_grpc.IngestionServiceStub(self.channel(address or self.address("ingestion")))

    def storage(self, address: str | None = None) -> "storage_pb2_grpc.StorageServiceAsyncStub":
        """The API of one storage process, the first unless told."""
        return storage_pb2_grpc.StorageServiceStub(self.channel(address or self.address("storage")))

    async def create_tenant(self, tenant: str, **quotas: int) -> "TenantAccess":
        """Creates a tenant and a tenant administrator's token."""
        admin = self.admin_metadata()
        registry = self.registry()
        made = await registry.CreateTenant(
            registry_pb2.CreateTenantRequest(
                tenant_id=tenant, tenant=resources_pb2.Tenant(quotas=resources_pb2.TenantQuotas(**quotas))
            ),
            metadata=admin,
            timeout=10,
        )
        answer = await registry.CreateToken(
            registry_pb2.CreateTokenRequest(tenant=made.name, subject="test", roles=["tenant-admin"]),
            metadata=admin,
            timeout=10,
        )
        return TenantAccess(made.name, made.uid, answer.token)

    async def create_devices(self, access: "TenantAccess", *devices: str) -> None:
        """Creates devices; those that exist stay as they are."""
        await self.registry().BatchCreateDevices(
            registry_pb2.BatchCreateDevicesRequest(
                parent=access.name,
                requests=[
                    registry_pb2.CreateDeviceRequest(device_id=device, device=resources_pb2.Device())
                    for device in devices
                ],
                allow_existing=True,
            ),
            metadata=access.metadata,
            timeout=20,
        )


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Call metadata that carries a token."""
    return (("authorization", f"Bearer {token}"),)


@dataclass(frozen=True, slots=True)
class TenantAccess:
    """A tenant and a token of its administrator."""

    name: str
    """Resource name, `tenants/{tenant}`."""
    uid: str
    token: str

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Call metadata of the tenant's administrator."""
        return bearer(self.token)


@contextlib.asynccontextmanager
async def running(
    data_dir: Path,
    *options: str,
    environ: Mapping[str, str] | None = None,
    expected_errors: Sequence[str] = (),
) -> AsyncIterator[UpProcess]:
    """Runs the platform until the block ends, then checks that it stopped well and logged no unexpected error."""
    up = UpProcess(data_dir, *options, environ=environ)
    up.start()
    try:
        await up.wait_serving()
        yield up
    except BaseException:
        await up.ensure_ended()
        raise
    assert await up.stop() == 0, up.stderr()[-2000:]
    errors = up.logged_errors(expected_errors)
    assert not errors, f"logged {len(errors)} errors, the first: {errors[0]}"
