"""Ingestion as its publishers meet it: a real server, real tokens and a real log on a disk that a test can fill."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from tidewire.ingestion.v1.ingestion_pb2_grpc import IngestionServiceStub
from tidewire.type.v1.telemetry_pb2 import TelemetryBatch, TelemetryFrame
from tidewire_kit import topics
from tidewire_kit.clock import SystemClock
from tidewire_kit.datadir import DataDir, open_data_dir
from tidewire_kit.identity import Role
from tidewire_kit.log.embedded import EmbeddedLog, EmbeddedLogSettings
from tidewire_kit.service import RunningService
from tidewire_kit.telemetry.record import Table, decode_record
from tidewire_testkit.directory import TestTenant, World, key_change

PUBLISH = "/tidewire.ingestion.v1.IngestionService/PublishTelemetry"
STREAM = "/tidewire.ingestion.v1.IngestionService/StreamTelemetry"
Code = grpc.StatusCode


class Running:
    """The service over a log whose disk has `free_bytes`, and a tenant `acme`."""

    def __init__(self, root: Path) -> None:
        self.data_dir: DataDir = open_data_dir(root)
        self.data_dir.service_token_file.write_text("token")
        self.free_bytes = 1 << 40
        self.log = EmbeddedLog(
            root,
            EmbeddedLogSettings(
                preallocate_bytes=1 << 16, retry_delay_seconds=2.5, free_bytes=lambda _: self.free_bytes
            ),
        )
        self.service: RunningService
        self.channel: aio.Channel
        self.world = World(SystemClock(), 4)
        self.acme: TestTenant

    def serves(self, service: RunningService, channel: aio.Channel) -> None:
        """Lets what the world adds be known to the service."""
        self.service, self.channel = service, channel
        self.world.directory = service.directory
        service.directory.apply(key_change(self.world.signer))
        self.world.heartbeat()
        self.acme = self.world.add_tenant("acme")

    @property
    def stub(self) -> Any:
        return IngestionServiceStub(self.channel)

    def metadata(self, tenant: TestTenant | None = None) -> tuple[tuple[str, str], ...]:
        token = self.world.token(tenant or self.acme, Role.OPERATOR)
        return (("authorization", f"Bearer {token}"),)

    async def publish(self, batch: TelemetryBatch, tenant: TestTenant | None = None) -> Any:
        return await self.stub.PublishTelemetry(batch, metadata=self.metadata(tenant), timeout=20)

    async def tables(self) -> list[Table]:
        """All that is in the log, by partition."""
        return [
            table
            for partition in range(self.log.partitions(topics.TELEMETRY))
            for record in await self.log.read(topics.TELEMETRY, partition, 0, max_bytes=1 << 30)
            for table in decode_record(record.value).tables
        ]

    async def logged_values(self) -> list[float]:
        """Every value in the log, sorted."""
        return sorted(value for table in await self.tables() for value in table.values.ravel().tolist())


def batch_of(device: str = "pump", *values: float, **fields: Any) -> TelemetryBatch:
    now = SystemClock().now_us()
    shown = values or (1.0,)
    frame = TelemetryFrame(
        metrics=["level"], time_unix_us=[now + row for row in range(len(shown))], values=shown
    )
    return TelemetryBatch(devices=[device], frames=[frame], **fields)


def details_of(status: status_pb2.Status) -> dict[str, Any]:
    """Reason, field and retry delay that a status tells."""
    told: dict[str, Any] = {}
    for detail in status.details:
        info, bad, retry = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
        )
        if detail.Unpack(info):
            told["reason"] = info.reason
        elif detail.Unpack(bad):
            told["field"] = bad.field_violations[0].field
        elif detail.Unpack(retry):
            told["delay"] = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return told


async def failure(call: Any) -> tuple[grpc.StatusCode, dict[str, Any]]:
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    trailing = dict(caught.value.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])  # type: ignore[arg-type]
    return caught.value.code(), details_of(status)
