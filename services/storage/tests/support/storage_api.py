"""The API of storage over gRPC, as its tests call it: a real server over a rig's data, tokens of a world."""

import dataclasses
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc import aio
from grpc_status import rpc_status

from tidewire.storage.v1 import storage_pb2 as pb
from tidewire.storage.v1.storage_pb2_grpc import StorageServiceStub
from tidewire_kit import topics
from tidewire_kit.clock import SystemClock
from tidewire_kit.identity import Role
from tidewire_kit.ids import partition_of
from tidewire_kit.service import RunningService, running_service
from tidewire_kit.settings import CommonSettings
from tidewire_storage.main import build
from tidewire_storage.settings import Settings
from tidewire_testkit.directory import TestDevice, TestTenant, World, key_change
from tidewire_testkit.telemetry import make_table, put_tables

NAN = math.nan
SECOND = 1_000_000
T0 = 1_700_000_000 * SECOND


class Api:
    """A running service, a tenant with devices, and stubs' metadata."""

    def __init__(self, service: RunningService, stub: StorageServiceStub, path: Path) -> None:
        self.path = path
        self.service = service
        self.stub = stub
        self.world = World(SystemClock(), 4)
        self.world.directory = service.directory  # what the world adds, the service knows
        self.world.heartbeat()
        service.directory.apply(key_change(self.world.signer))

    def as_(self, tenant: TestTenant | None, *roles: Role) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.world.token(tenant, *roles)}"),)

    async def publish(
        self, device: TestDevice, metrics: list[str], rows: list[tuple[int, list[float]]]
    ) -> None:
        log = self.service.log
        table = make_table(
            device.tenant.uid,
            metrics,
            [(device.uid, time, values) for time, values in rows],
            received_us=SystemClock().now_us(),
        )
        partition = partition_of(device.tenant.uid, device.uid, log.partitions(topics.TELEMETRY))
        await put_tables(log, partition, table)


def stamp(us: int) -> Timestamp:
    message = Timestamp()
    message.FromMicroseconds(us)
    return message


async def refused(call) -> tuple[grpc.StatusCode, str, str]:
    """(code, reason, message) of a failing call."""
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    details = rpc_status.from_call(caught.value).details
    info = error_details_pb2.ErrorInfo()
    assert details[0].Unpack(info)
    return caught.value.code(), info.reason, caught.value.details() or ""


async def collect(stream) -> list[pb.ReadSeriesResponse]:
    return [part async for part in stream]


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[Api]:
    """The service over a directory, and what a test needs to ask it."""
    common = dataclasses.replace(CommonSettings(data_dir=tmp_path), partitions=4)
    settings = Settings(port=0, metrics_port=0, flush_seconds=0.05, purge_seconds=0.1, recount_seconds=0.1)
    async with (
        running_service("storage", settings, common, build, device_facts=True) as service,
        aio.insecure_channel(service.address) as channel,
    ):
        yield Api(service, StorageServiceStub(channel), tmp_path)
