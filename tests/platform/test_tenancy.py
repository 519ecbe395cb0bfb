"""No tenant sees another, no name brings back its past, and a block holds on what is already open."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable

import grpc
import grpc.aio
import pytest

from tidewire.ingestion.v1 import ingestion_pb2
from tidewire.registry.v1 import registry_pb2
from tidewire.storage.v1 import storage_pb2
from tidewire.type.v1 import telemetry_pb2
from tidewire_testkit.whole.platform import TenantAccess, UpProcess, until
from tidewire_testkit.whole.readback import batch_of, publish, read_device, wait_visible

pytestmark = [pytest.mark.platform, pytest.mark.timeout(120)]

BLOCK_SECONDS = 10


async def code_of(call: Awaitable[object]) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def drain(call: grpc.aio.UnaryStreamCall) -> None:  # type: ignore[type-arg]
    async for _ in call:
        pass


async def test_a_tenants_token_reaches_nothing_of_another(up: UpProcess) -> None:
    ours, theirs = await up.create_tenant("iso-ours"), await up.create_tenant("iso-theirs")
    await up.create_devices(theirs, "sensor")
    now = time.time_ns() // 1000
    rows = {now: {"level": 1.0}}
    await publish(up, theirs, "sensor", rows)
    await wait_visible(up, theirs, "sensor", rows)

    registry, storage = up.registry(), up.storage()
    device, mine = f"{theirs.name}/devices/sensor", ours.metadata
    calls: list[Awaitable[object]] = [
        registry.GetTenant(registry_pb2.GetTenantRequest(name=theirs.name), metadata=mine),
        registry.GetTenantUsage(registry_pb2.GetTenantUsageRequest(name=theirs.name), metadata=mine),
        registry.DeleteTenant(registry_pb2.DeleteTenantRequest(name=theirs.name), metadata=mine),
        registry.GetDevice(registry_pb2.GetDeviceRequest(name=device), metadata=mine),
        registry.ListDevices(registry_pb2.ListDevicesRequest(parent=theirs.name), metadata=mine),
        registry.BlockDevice(registry_pb2.BlockDeviceRequest(name=device), metadata=mine),
        registry.DeleteDevice(registry_pb2.DeleteDeviceRequest(name=device), metadata=mine),
        registry.CreateDevice(
            registry_pb2.CreateDeviceRequest(parent=theirs.name, device_id="x"), metadata=mine
        ),
        registry.ListCredentials(registry_pb2.ListCredentialsRequest(parent=device), metadata=mine),
        registry.CreateToken(
            registry_pb2.CreateTokenRequest(tenant=theirs.name, subject="x", roles=["reader"]), metadata=mine
        ),
        registry.ResolveDevices(
            registry_pb2.ResolveDevicesRequest(tenant_uid=theirs.uid, device_ids=["sensor"]), metadata=mine
        ),
        storage.GetLatest(storage_pb2.GetLatestRequest(parent=theirs.name), metadata=mine),
        storage.ListSeries(storage_pb2.ListSeriesRequest(parent=theirs.name), metadata=mine),
        drain(storage.ReadSeries(storage_pb2.ReadSeriesRequest(device=device), metadata=mine)),
        storage.Aggregate(
            storage_pb2.AggregateRequest(
                parent=theirs.name, devices=["sensor"], metrics=["level"], functions=[storage_pb2.COUNT]
            ),
            metadata=mine,
        ),
        storage.GetLedger(storage_pb2.GetLedgerRequest(tenant=theirs.name), metadata=mine),
        storage.GetLedger(storage_pb2.GetLedgerRequest(), metadata=mine),
        storage.GetStorageUsage(storage_pb2.GetStorageUsageRequest(tenant=theirs.name), metadata=mine),
        storage.SealEpochs(storage_pb2.SealEpochsRequest(), metadata=mine),
        storage.ListEvents(storage_pb2.ListEventsRequest(parent=theirs.name), metadata=mine),
        drain(
            storage.RunSql(storage_pb2.RunSqlRequest(parent=theirs.name, statement="SELECT 1"), metadata=mine)
        ),
        drain(storage.Report(storage_pb2.ReportRequest(parent=theirs.name), metadata=mine)),
    ]
    codes = [await code_of(call) for call in calls]
    assert codes == [grpc.StatusCode.PERMISSION_DENIED] * len(calls)

    answer = await publish(up, ours, "sensor", rows)
    assert answer.accepted_readings == 0
    assert [refusal.reason for refusal in answer.refusals] == [ingestion_pb2.DEVICE_UNKNOWN]
    listed = await registry.ListTenants(registry_pb2.ListTenantsRequest(), metadata=mine)
    assert [tenant.name for tenant in listed.tenants] == [ours.name]


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer nonsense"),)])
async def test_without_a_token_that_holds_nothing_answers(
    up: UpProcess, metadata: tuple[tuple[str, str], ...]
) -> None:
    calls: list[Awaitable[object]] = [
        up.registry().ListTenants(registry_pb2.ListTenantsRequest(), metadata=metadata),
        up.registry().GetEndpoints(registry_pb2.GetEndpointsRequest(), metadata=metadata),
        up.ingestion().PublishTelemetry(telemetry_pb2.TelemetryBatch(), metadata=metadata),
        up.storage().GetLedger(storage_pb2.GetLedgerRequest(), metadata=metadata),
    ]
    assert [await code_of(call) for call in calls] == [grpc.StatusCode.UNAUTHENTICATED] * len(calls)


async def test_a_tenant_made_again_sees_nothing_of_its_namesake(up: UpProcess) -> None:
    first = await up.create_tenant("phoenix")
    await up.create_devices(first, "sensor")
    now = time.time_ns() // 1000
    rows = {now: {"level": 1.0}, now + 1: {"level": 2.0}}
    await publish(up, first, "sensor", rows)
    await wait_visible(up, first, "sensor", rows)
    await up.registry().DeleteTenant(
        registry_pb2.DeleteTenantRequest(name=first.name), metadata=up.admin_metadata(), timeout=10
    )
    second = await up.create_tenant("phoenix")
    assert second.uid != first.uid
    await up.create_devices(second, "sensor")

    async def nothing_there() -> bool:
        return await read_device(up, second, "sensor") == []

    await until(nothing_there, "the new tenant is known to storage and sees nothing", BLOCK_SECONDS)
    series = await up.storage().ListSeries(
        storage_pb2.ListSeriesRequest(parent=second.name), metadata=second.metadata, timeout=10
    )
    assert not series.series

    async def old_token_is_dead() -> bool:
        return [
            await code_of(
                up.registry().ListTenants(registry_pb2.ListTenantsRequest(), metadata=first.metadata)
            ),
            await code_of(publish(up, first, "sensor", {now + 2: {"level": 3.0}})),
            await code_of(read_device(up, first, "sensor")),
        ] == [grpc.StatusCode.UNAUTHENTICATED] * 3

    await until(old_token_is_dead, "the old token holds nowhere", BLOCK_SECONDS)
    assert await read_device(up, second, "sensor") == []
    new = {now + 3: {"level": 4.0}}
    await publish(up, second, "sensor", new)
    await wait_visible(up, second, "sensor", new)


class Stream:
    """An open StreamTelemetry call that publishes one row at a time."""

    def __init__(self, up: UpProcess, access: TenantAccess, device: str) -> None:
        self._queue: asyncio.Queue[telemetry_pb2.TelemetryBatch] = asyncio.Queue()
        self._device = device
        self._call = up.ingestion().StreamTelemetry(self._requests(), metadata=access.metadata)

    async def _requests(self) -> AsyncIterator[telemetry_pb2.TelemetryBatch]:
        while True:
            yield await self._queue.get()

    async def send(self) -> ingestion_pb2.PublishTelemetryResponse:
        """Publishes a row; AioRpcError when the server has ended the stream."""
        await self._queue.put(batch_of(self._device, {time.time_ns() // 1000: {"level": 1.0}}))
        answer = await self._call.read()
        if answer is grpc.aio.EOF:
            raise AssertionError("the stream ended without a status")
        assert isinstance(answer, ingestion_pb2.PublishTelemetryResponse)
        return answer

    def close(self) -> None:
        self._call.cancel()


async def test_a_devices_block_holds_on_an_open_stream_and_its_end_too(up: UpProcess) -> None:
    access = await up.create_tenant("blocking")
    await up.create_devices(access, "sensor", "sibling")
    name = f"{access.name}/devices/sensor"
    stream, sibling = Stream(up, access, "sensor"), Stream(up, access, "sibling")
    try:
        assert (await stream.send()).accepted_readings == 1
        assert (await sibling.send()).accepted_readings == 1
        await up.registry().BlockDevice(registry_pb2.BlockDeviceRequest(name=name), metadata=access.metadata)

        async def blocked() -> bool:
            answer = await stream.send()
            return [refusal.reason for refusal in answer.refusals] == [ingestion_pb2.DEVICE_BLOCKED]

        await until(blocked, "the block holds on the open stream", BLOCK_SECONDS)
        assert (await sibling.send()).accepted_readings == 1
        await up.registry().UnblockDevice(
            registry_pb2.UnblockDeviceRequest(name=name), metadata=access.metadata
        )

        async def open_again() -> bool:
            return (await stream.send()).accepted_readings == 1

        await until(open_again, "the end of the block holds too", BLOCK_SECONDS)
    finally:
        stream.close()
        sibling.close()


async def test_a_tenants_block_ends_its_open_streams(up: UpProcess) -> None:
    access = await up.create_tenant("blocked-tenant")
    await up.create_devices(access, "sensor")
    stream = Stream(up, access, "sensor")
    assert (await stream.send()).accepted_readings == 1
    await up.registry().BlockTenant(
        registry_pb2.BlockTenantRequest(name=access.name), metadata=up.admin_metadata(), timeout=10
    )

    async def ended() -> bool:
        try:
            return (await stream.send()).HasField("status")
        except grpc.aio.AioRpcError as error:
            return error.code() in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}

    try:
        await until(ended, "the stream is ended", BLOCK_SECONDS)
    finally:
        stream.close()
