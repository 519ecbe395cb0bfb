"""A small platform in threads of this process, because commands run their own event loop."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from typer.testing import CliRunner, Result

from tidewire.ingestion.v1 import ingestion_pb2, ingestion_pb2_grpc
from tidewire.registry.v1 import registry_pb2, registry_pb2_grpc, resources_pb2
from tidewire.storage.v1 import storage_pb2, storage_pb2_grpc
from tidewire.type.v1 import telemetry_pb2


def abort(context, code, reason, message):
    status = status_pb2.Status(code=code.value[0], message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="tidewire.dev"))
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)


@dataclass
class Registry(registry_pb2_grpc.RegistryServiceServicer):
    """Keeps devices and credentials of the tenant `demo`, whose uid is `7...`."""

    addresses: dict[str, str] = field(default_factory=dict)
    devices: dict[str, resources_pb2.Device] = field(default_factory=dict)
    credentials: list[resources_pb2.Credential] = field(default_factory=list)
    tokens: list[registry_pb2.CreateTokenRequest] = field(default_factory=list)
    tenant_uid: str = "7" * 32

    def GetEndpoints(self, request, context):
        return registry_pb2.GetEndpointsResponse(
            endpoints=[
                registry_pb2.Endpoint(service=service, addresses=[address])
                for service, address in self.addresses.items()
            ]
        )

    def _tenant(self):
        return resources_pb2.Tenant(
            name="tenants/demo", uid=self.tenant_uid, state=resources_pb2.Tenant.ACTIVE
        )

    def ListTenants(self, request, context):
        return registry_pb2.ListTenantsResponse(tenants=[self._tenant()])

    def GetTenant(self, request, context):
        if request.name != "tenants/demo":
            abort(context, grpc.StatusCode.NOT_FOUND, "NOT_FOUND", f"{request.name} does not exist")
        return self._tenant()

    def GetTenantUsage(self, request, context):
        return registry_pb2.TenantUsage(
            name=request.name, devices=len(self.devices), accepted_readings=12_345
        )

    def DeleteTenant(self, request, context):
        abort(
            context,
            grpc.StatusCode.PERMISSION_DENIED,
            "PERMISSION_DENIED",
            "DeleteTenant is for platform-admin",
        )

    def CreateDevice(self, request, context):
        if request.device_id in self.devices:
            abort(
                context,
                grpc.StatusCode.ALREADY_EXISTS,
                "ALREADY_EXISTS",
                f"{request.device_id} exists already",
            )
        device = self.devices[request.device_id] = request.device
        device.name = f"{request.parent}/devices/{request.device_id}"
        device.state = resources_pb2.Device.ENROLLED
        return device

    def BatchCreateDevices(self, request, context):
        for one in request.requests:
            self.devices.setdefault(one.device_id, one.device)
        return registry_pb2.BatchCreateDevicesResponse(
            devices=[self.devices[one.device_id] for one in request.requests]
        )

    def GetDevice(self, request, context):
        device = self.devices.get(request.name.rpartition("/")[2])
        if device is None:
            abort(context, grpc.StatusCode.NOT_FOUND, "NOT_FOUND", f"{request.name} does not exist")
        return device

    def ListDevices(self, request, context):
        return registry_pb2.ListDevicesResponse(devices=list(self.devices.values()))

    def CreateCredential(self, request, context):
        credential = request.credential
        credential.name = f"{request.parent}/credentials/{len(self.credentials):032x}"
        credential.algorithm = resources_pb2.Credential.ED25519
        self.credentials.append(credential)
        return credential

    def CreateToken(self, request, context):
        self.tokens.append(request)
        answer = registry_pb2.CreateTokenResponse(token="made.for.you")
        answer.expire_time.FromSeconds(1_800_000_000)
        return answer


@dataclass
class Ingestion(ingestion_pb2_grpc.IngestionServiceServicer):
    """Accepts each batch id once; refuses rows of devices that the registry lacks; `script` has further answers."""

    registry: Registry
    seen: list[telemetry_pb2.TelemetryBatch] = field(default_factory=list)
    accepted: dict[str, telemetry_pb2.TelemetryBatch] = field(default_factory=dict)
    script: deque[ingestion_pb2.Refusal] = field(default_factory=deque)
    break_after: int | None = None
    tokens: list[str] = field(default_factory=list)

    def PublishTelemetry(self, request, context):
        self.tokens.append(dict(context.invocation_metadata())["authorization"])
        self.seen.append(request)
        if self.break_after is not None:
            self.break_after -= 1
            if self.break_after < 0:
                abort(context, grpc.StatusCode.PERMISSION_DENIED, "TENANT_BLOCKED", "the tenant is blocked")
        response = ingestion_pb2.PublishTelemetryResponse(batch_id=request.batch_id)
        readings = sum(len(frame.values) for frame in request.frames)
        if self.script:
            response.refusals.append(self.script.popleft())
        elif any(device not in self.registry.devices for device in request.devices):
            response.refusals.add(
                reason=ingestion_pb2.DEVICE_UNKNOWN,
                rows=1,
                readings=readings,
                first_rows=[0],
                message="devices: no such device",
            )
        refused = sum(refusal.readings for refusal in response.refusals)
        response.refused_readings = refused
        response.accepted_readings = readings - refused
        self.accepted.setdefault(request.batch_id, request)
        return response

    def StreamTelemetry(self, request_iterator, context):
        for request in request_iterator:
            yield self.PublishTelemetry(request, context)


@dataclass
class Storage(storage_pb2_grpc.StorageServiceServicer):
    """Has one series, d-1/a, of the rows 0 to 9 s; a ledger with the difference it is told to have."""

    difference: int = 0
    reports: list[storage_pb2.ReportRequest] = field(default_factory=list)
    report_parts: list[storage_pb2.ReportResponse] = field(default_factory=list)

    def Report(self, request, context):
        self.reports.append(request)
        yield from self.report_parts

    def GetLatest(self, request, context):
        if request.metrics and "a" not in request.metrics:
            return storage_pb2.GetLatestResponse()
        return storage_pb2.GetLatestResponse(
            values=[storage_pb2.LatestValue(device="d-1", metric="a", time_unix_us=9_000_000, value=9)]
        )

    def ListSeries(self, request, context):
        series = storage_pb2.Series(device="d-1", metric="a")
        series.last_time.FromSeconds(9)
        return storage_pb2.ListSeriesResponse(series=[series])

    def ReadSeries(self, request, context):
        response = storage_pb2.ReadSeriesResponse()
        response.columns.device = request.device
        response.columns.metrics.append("a")
        rows = range(request.max_rows or 10)
        response.columns.time_unix_us.extend(row * 1_000_000 for row in rows)
        response.columns.values.extend(float("nan") if row == 1 else float(row) for row in rows)
        yield response

    def Aggregate(self, request, context):
        series = storage_pb2.AggregateSeries(device="d-1", metric="a", bucket_start_unix_us=[0, 5_000_000])
        for function in request.functions:
            series.columns.add(function=function, values=[2.0, 7.0])
        if request.group_by_label:
            series.device, series.group = "", f"{request.group_by_label} of {request.filter}"
        return storage_pb2.AggregateResponse(series=[series], tier=storage_pb2.RAW)

    def GetLedger(self, request, context):
        entry = storage_pb2.LedgerEntry(tenant="tenants/demo", accepted_readings=10, stored_readings=10)
        entry.hour_time.FromSeconds(3600)
        return storage_pb2.GetLedgerResponse(entries=[entry], difference_readings=self.difference)


class _Health(health_pb2_grpc.HealthServicer):
    def Check(self, request, context):
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


def concrete(kind):
    """The servicer class with every method it lacks answering UNIMPLEMENTED."""

    def unimplemented(self, request, context):
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "not in this test")

    return type(
        kind.__name__, (kind,), dict.fromkeys(getattr(kind, "__abstractmethods__", ()), unimplemented)
    )


@dataclass
class Platform:
    registry: Registry
    ingestion: Ingestion
    storage: Storage
    endpoint: str = ""


@pytest.fixture
def platform() -> Iterator[Platform]:
    registry = concrete(Registry)()
    made = Platform(registry, concrete(Ingestion)(registry), concrete(Storage)())
    servers = []
    for service, add, servicer in (
        ("registry", registry_pb2_grpc.add_RegistryServiceServicer_to_server, registry),
        ("ingestion", ingestion_pb2_grpc.add_IngestionServiceServicer_to_server, made.ingestion),
        ("storage", storage_pb2_grpc.add_StorageServiceServicer_to_server, made.storage),
    ):
        server = grpc.server(futures.ThreadPoolExecutor(4))
        add(servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(_Health(), server)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        servers.append(server)
        if service == "registry":
            made.endpoint = address
        else:
            registry.addresses[service] = address
    yield made
    for server in servers:
        server.stop(0).wait()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home of its own for contexts, keys and progress; no settings of whoever runs the tests."""
    for variable in ("CONFIG", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{variable}_HOME", str(tmp_path / variable.lower()))
    for variable in ("ENDPOINT", "TOKEN", "TOKEN_FILE", "TENANT", "CONTEXT", "CA_FILE"):
        monkeypatch.delenv(f"TIDEWIRE_{variable}", raising=False)
    return tmp_path


class Tidewire:
    """Calls the command in this process."""

    def __init__(self) -> None:
        from tidewire_cli.main import build

        self._app = build()
        self._runner = CliRunner()

    def __call__(self, *arguments: str, stdin: str | None = None) -> Result:
        return self._runner.invoke(self._app, list(arguments), input=stdin)


@pytest.fixture
def tidewire(home) -> Tidewire:
    return Tidewire()


@pytest.fixture
def online(platform, monkeypatch, tidewire) -> Tidewire:
    """The command, with the platform and a token in its environment."""
    monkeypatch.setenv("TIDEWIRE_ENDPOINT", platform.endpoint)
    monkeypatch.setenv("TIDEWIRE_TOKEN", "header.e30.signature")
    return tidewire


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 5
    while [thread for thread in set(threading.enumerate()) - before if not thread.daemon]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
