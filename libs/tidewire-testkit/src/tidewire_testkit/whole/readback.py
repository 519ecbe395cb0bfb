"""Sends a few readings and reads back what the platform shows, for tests of the whole."""

import math
import uuid
from collections.abc import Mapping

from google.protobuf import timestamp_pb2

from tidewire.ingestion.v1 import ingestion_pb2
from tidewire.storage.v1 import storage_pb2
from tidewire.type.v1 import telemetry_pb2
from tidewire_testkit.whole.platform import TenantAccess, UpProcess, until


def to_timestamp(time_us: int) -> timestamp_pb2.Timestamp:
    """Unix µs as a Timestamp."""
    return timestamp_pb2.Timestamp(seconds=time_us // 1_000_000, nanos=time_us % 1_000_000 * 1000)


def batch_of(
    device: str, rows: Mapping[int, Mapping[str, float]], batch_id: str = ""
) -> telemetry_pb2.TelemetryBatch:
    """A batch of one device's rows: time in unix µs → metric → value."""
    metrics = sorted({metric for row in rows.values() for metric in row})
    frame = telemetry_pb2.TelemetryFrame(
        metrics=metrics,
        time_unix_us=list(rows),
        values=[row.get(metric, math.nan) for metric in metrics for row in rows.values()],
    )
    return telemetry_pb2.TelemetryBatch(
        batch_id=batch_id or str(uuid.uuid4()), devices=[device] if device else [], frames=[frame]
    )


async def publish(
    up: UpProcess,
    access: TenantAccess,
    device: str,
    rows: Mapping[int, Mapping[str, float]],
    *,
    metadata: tuple[tuple[str, str], ...] | None = None,
) -> ingestion_pb2.PublishTelemetryResponse:
    """Publishes rows of one device by a unary call; not repeated when it fails."""
    return await up.ingestion().PublishTelemetry(
        batch_of(device, rows), metadata=metadata or access.metadata, timeout=10
    )


async def wait_visible(
    up: UpProcess,
    access: TenantAccess,
    device: str,
    rows: Mapping[int, Mapping[str, float]],
    seconds: float = 20,
) -> None:
    """Waits until exactly these rows of the device are visible."""
    wanted = sorted(
        (time_us, metric, value) for time_us, row in rows.items() for metric, value in row.items()
    )

    async def visible() -> bool:
        found = await read_device(up, access, device)
        return sorted((time_us, metric, value) for metric, time_us, value in found) == wanted

    await until(visible, f"the {len(wanted)} readings of {device} are visible", seconds)


async def read_device(
    up: UpProcess,
    access: TenantAccess,
    device: str,
    *,
    address: str | None = None,
    start_us: int | None = None,
    end_us: int | None = None,
) -> list[tuple[str, int, float]]:
    """A device's visible readings, (metric, time in unix µs, value), by row as the answer orders them.

    AssertionError when times do not rise, which the API promises.
    """
    request = storage_pb2.ReadSeriesRequest(device=f"{access.name}/devices/{device}")
    if start_us is not None:
        request.start_time.CopyFrom(to_timestamp(start_us))
    if end_us is not None:
        request.end_time.CopyFrom(to_timestamp(end_us))
    readings: list[tuple[str, int, float]] = []
    last = -(2**63)
    while True:
        token = ""
        async for part in up.storage(address).ReadSeries(request, metadata=access.metadata, timeout=30):
            columns = part.columns
            rows = len(columns.time_unix_us)
            for row, time_us in enumerate(columns.time_unix_us):
                assert time_us > last, f"{device}: time {time_us} follows {last}"
                last = time_us
                for number, metric in enumerate(columns.metrics):
                    value = columns.values[number * rows + row]
                    if not math.isnan(value):
                        readings.append((metric, time_us, value))
            token = part.next_page_token
        if not token:
            return readings
        request.page_token = token


async def count_readings(up: UpProcess, access: TenantAccess, devices: list[str], metrics: list[str]) -> int:
    """Visible readings of these devices and metrics, counted by the platform itself."""
    answer = await up.storage().Aggregate(
        storage_pb2.AggregateRequest(
            parent=access.name,
            devices=devices,
            metrics=metrics,
            functions=[storage_pb2.AggregateFunction.COUNT],
            across_devices=True,
        ),
        metadata=access.metadata,
        timeout=30,
    )
    return int(sum(sum(series.columns[0].values) for series in answer.series))


async def settled_ledger(up: UpProcess) -> storage_pb2.GetLedgerResponse | None:
    """The ledger over all tenants when everything in the log is read and written; None while it is not."""
    ledger = await up.storage().GetLedger(
        storage_pb2.GetLedgerRequest(), metadata=up.admin_metadata(), timeout=10
    )
    return ledger if ledger.lag_records == 0 and ledger.in_flight_readings == 0 else None
