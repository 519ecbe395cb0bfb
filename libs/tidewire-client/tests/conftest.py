"""A small platform in this process: real gRPC servers that keep what they accept, and can be told to misbehave."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

from tidewire.ingestion.v1 import ingestion_pb2, ingestion_pb2_grpc
from tidewire.registry.v1 import registry_pb2, registry_pb2_grpc, resources_pb2
from tidewire.storage.v1 import storage_pb2, storage_pb2_grpc
from tidewire.type.v1 import columns_pb2, telemetry_pb2


def make_status(
    code: int, reason: str, message: str, *, retry_seconds: float | None = None, field_name: str = ""
):
    status = status_pb2.Status(code=code, message=message)
    details = [error_details_pb2.ErrorInfo(reason=reason, domain="tidewire.dev", metadata={"limit": "7"})]
    if field_name:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field_name, description=message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if retry_seconds is not None:
        delay = Duration()
        delay.FromNanoseconds(round(retry_seconds * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    for detail in details:
        status.details.add().Pack(detail)
    return status


async def abort(context, status):
    await context.abort(
        grpc.StatusCode[code_pb2.Code.Name(status.code)],
        status.message,
        (("grpc-status-details-bin", status.SerializeToString()),),
    )


@dataclass
class Seen:
    """A batch as it came in."""

    batch: telemetry_pb2.TelemetryBatch
    at: float
    token: str


@dataclass
class Ingestion(ingestion_pb2_grpc.IngestionServiceServicer):
    """Accepts batches, each id once. `script` says what to do with the next ones; empty: accept."""

    seen: list[Seen] = field(default_factory=list)
    accepted: dict[str, telemetry_pb2.TelemetryBatch] = field(default_factory=dict)
    script: deque[object] = field(default_factory=deque)
    calls: int = 0
    refuse_call: Callable[[str], status_pb2.Status | None] = lambda token: None
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self):
        self.gate.set()

    async def _take(self, batch, context, token):
        """The answer to a batch; None: lose the acknowledgement."""
        self.seen.append(Seen(batch, time.monotonic(), token))
        await self.gate.wait()
        action = self.script.popleft() if self.script else "accept"
        readings = sum(len(frame.values) for frame in batch.frames)
        response = ingestion_pb2.PublishTelemetryResponse(batch_id=batch.batch_id, sequence=batch.sequence)
        if isinstance(action, status_pb2.Status):
            response.status.CopyFrom(action)
            return response
        if isinstance(action, ingestion_pb2.Refusal):
            response.refusals.append(action)
            response.refused_readings = action.readings
            readings -= action.readings
        if action == "nothing":
            return None
        self.accepted.setdefault(batch.batch_id, batch)
        if action == "lose":
            return None
        response.accepted_readings = readings
        return response

    @staticmethod
    def _token(context):
        return dict(context.invocation_metadata()).get("authorization", "").removeprefix("Bearer ")

    async def PublishTelemetry(self, request, context):
        token = self._token(context)
        self.calls += 1
        if status := self.refuse_call(token):
            await abort(context, status)
        response = await self._take(request, context, token)
        if response is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        if response.HasField("status"):
            await abort(context, response.status)
        return response

    async def StreamTelemetry(self, request_iterator, context):
        token = self._token(context)
        self.calls += 1
        if status := self.refuse_call(token):
            await abort(context, status)
        async for batch in request_iterator:
            response = await self._take(batch, context, token)
            if response is None:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            yield response


@dataclass
class Registry(registry_pb2_grpc.RegistryServiceServicer):
    """Names addresses, and keeps devices and tenants enough to list them by page."""

    addresses: dict[str, list[str]] = field(default_factory=dict)
    tenants: list[str] = field(default_factory=lambda: ["demo"])
    devices: list[str] = field(default_factory=list)
    request_ids: list[str] = field(default_factory=list)
    failures: deque[status_pb2.Status] = field(default_factory=deque)
    tokens: list[str] = field(default_factory=list)

    async def _fail(self, context):
        self.tokens.append(Ingestion._token(context))
        if self.failures:
            await abort(context, self.failures.popleft())

    async def GetEndpoints(self, request, context):
        return registry_pb2.GetEndpointsResponse(
            endpoints=[
                registry_pb2.Endpoint(service=service, addresses=addresses)
                for service, addresses in self.addresses.items()
            ]
        )

    async def ListTenants(self, request, context):
        await self._fail(context)
        return registry_pb2.ListTenantsResponse(
            tenants=[resources_pb2.Tenant(name=f"tenants/{name}") for name in self.tenants]
        )

    async def CreateDevice(self, request, context):
        self.request_ids.append(request.request_id)
        await self._fail(context)
        self.devices.append(request.device_id)
        return resources_pb2.Device(name=f"{request.parent}/devices/{request.device_id}")

    async def BatchCreateDevices(self, request, context):
        await self._fail(context)
        self.request_ids.append(request.request_id)
        self.devices += [one.device_id for one in request.requests]
        return registry_pb2.BatchCreateDevicesResponse(
            devices=[
                resources_pb2.Device(name=f"{request.parent}/devices/{one.device_id}")
                for one in request.requests
            ]
        )

    async def ListDevices(self, request, context):
        start = int(request.page_token or 0)
        stop = start + 2
        return registry_pb2.ListDevicesResponse(
            devices=[
                resources_pb2.Device(name=f"{request.parent}/devices/{name}")
                for name in self.devices[start:stop]
            ],
            next_page_token=str(stop) if stop < len(self.devices) else "",
        )


def concrete(kind):
    """The servicer class with every method it lacks answering UNIMPLEMENTED."""
    missing = {}
    for name in getattr(kind, "__abstractmethods__", ()):

        async def unimplemented(self, request, context):
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not in this test")

        missing[name] = unimplemented
    return type(kind.__name__, (kind,), missing)


class Storage(storage_pb2_grpc.StorageServiceServicer):
    """Serves the rows 0 to 9, one metric more from row 5 on; breaks once after two rows when told to."""

    break_once = False

    async def ReadSeries(self, request, context):
        start = request.start_time.nanos // 1000 if request.HasField("start_time") else 0
        for row in range(start, 10):
            if self.break_once and row == 2:
                self.break_once = False
                await abort(context, make_status(code_pb2.UNAVAILABLE, "UNAVAILABLE", "restarting"))
            metrics = ["a"] if row < 5 else ["a", "b"]
            yield storage_pb2.ReadSeriesResponse(
                columns=columns_pb2.SeriesColumns(
                    device=request.device, metrics=metrics, time_unix_us=[row], values=[row] * len(metrics)
                )
            )

    async def GetLatest(self, request, context):
        start = int(request.page_token or 0)
        return storage_pb2.GetLatestResponse(
            values=[
                storage_pb2.LatestValue(device=f"d{n}", metric="a", time_unix_us=n, value=n)
                for n in range(start, start + 2)
            ],
            next_page_token=str(start + 2) if start < 4 else "",
        )

    async def Aggregate(self, request, context):
        columns = [storage_pb2.AggregateColumn(function=one, values=[1.0, 2.0]) for one in request.functions]
        series = storage_pb2.AggregateSeries(
            device="d", metric="a", bucket_start_unix_us=[0, 60_000_000], columns=columns
        )
        assert request.bucket_duration.seconds == 60
        return storage_pb2.AggregateResponse(series=[series])


class Server:
    """A gRPC server of one servicer, which can be stopped and started again at another address."""

    def __init__(self, add: Callable, servicer: object) -> None:
        self._add, self._servicer = add, servicer
        self._server: grpc.aio.Server | None = None
        self.address = ""
        self.tls: grpc.ServerCredentials | None = None

    async def start(self) -> str:
        self._server = grpc.aio.server()
        self._add(self._servicer, self._server)
        if self.tls is not None:
            port = self._server.add_secure_port("127.0.0.1:0", self.tls)
        else:
            port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self.address = f"127.0.0.1:{port}"
        return self.address

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
            self._server = None


@dataclass
class Platform:
    registry: Registry
    ingestion: Ingestion
    registry_server: Server
    ingestion_server: Server
    servers: list[Server] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return self.registry_server.address

    async def restart_ingestion(self) -> None:
        """Elsewhere, with what it has kept."""
        await self.ingestion_server.stop()
        self.registry.addresses["ingestion"] = [await self.ingestion_server.start()]

    async def serve_storage(self) -> Storage:
        storage = concrete(Storage)()
        server = Server(storage_pb2_grpc.add_StorageServiceServicer_to_server, storage)
        self.registry.addresses["storage"] = [await server.start()]
        self.servers.append(server)
        return storage


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    registry, ingestion = concrete(Registry)(), concrete(Ingestion)()
    registry_server = Server(registry_pb2_grpc.add_RegistryServiceServicer_to_server, registry)
    ingestion_server = Server(ingestion_pb2_grpc.add_IngestionServiceServicer_to_server, ingestion)
    await registry_server.start()
    registry.addresses["ingestion"] = [await ingestion_server.start()]
    made = Platform(registry, ingestion, registry_server, ingestion_server)
    yield made
    ingestion.gate.set()
    for server in (registry_server, ingestion_server, *made.servers):
        await server.stop()


@pytest.fixture
def until() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Waits until a condition holds; fails after ten seconds."""

    async def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, "the condition never held"
            await asyncio.sleep(0.005)

    return wait


@pytest.fixture
def rich_status() -> Callable[..., status_pb2.Status]:
    """Makes a status with details."""
    return make_status
