"""Bad input from the wire: a clear error that names the field and the remedy, nothing lost, nobody else hurt."""

import asyncio
import random
import time
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2

from tidewire.ingestion.v1 import ingestion_pb2
from tidewire.registry.v1 import registry_pb2
from tidewire.type.v1 import telemetry_pb2
from tidewire_testkit.whole.platform import TenantAccess, UpProcess
from tidewire_testkit.whole.readback import publish, wait_visible

pytestmark = [pytest.mark.platform, pytest.mark.timeout(120)]

PUBLISH = "/tidewire.ingestion.v1.IngestionService/PublishTelemetry"
STREAM = "/tidewire.ingestion.v1.IngestionService/StreamTelemetry"
Rows = dict[int, dict[str, float]]


def told(error: grpc.aio.AioRpcError) -> tuple[str, str]:
    """(reason, field) of a failed call."""
    reason = field = ""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:  # type: ignore[arg-type]
                info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
                if detail.Unpack(info):
                    reason = info.reason
                elif detail.Unpack(bad):
                    field = bad.field_violations[0].field
    return reason, field


@pytest.fixture
async def neighbour(up: UpProcess) -> AsyncIterator[None]:
    """Another tenant's device, publishing throughout the test: each of its rows is taken, and visible afterwards."""
    access = await up.create_tenant(f"calm-{random.randrange(1 << 32):08x}")
    await up.create_devices(access, "fan")
    rows: Rows = {}
    over = asyncio.Event()

    async def go_on() -> None:
        while not over.is_set() or len(rows) < 5:
            now = time.time_ns() // 1000
            answer = await publish(up, access, "fan", {now: {"speed": float(len(rows))}})
            assert answer.accepted_readings == 1
            rows[now] = {"speed": float(len(rows))}
            await asyncio.sleep(0.01)

    publishing = asyncio.create_task(go_on())
    yield
    over.set()
    await publishing
    await wait_visible(up, access, "fan", rows)


@pytest.mark.usefixtures("neighbour")
async def test_bytes_that_are_no_batch(up: UpProcess) -> None:
    access = await up.create_tenant("no-batches")
    await up.create_devices(access, "sensor")
    now = time.time_ns() // 1000
    frame = telemetry_pb2.TelemetryFrame(metrics=["level"], time_unix_us=[now], values=[1.0])
    good = telemetry_pb2.TelemetryBatch(devices=["sensor"], frames=[frame]).SerializeToString()
    chance = random.Random(7)
    bad = [good[:length] for length in range(0, len(good), 3)]
    bad += [chance.randbytes(chance.randrange(1, 5_000)) for _ in range(60)]
    raw = up.channel(up.address("ingestion")).unary_unary(PUBLISH)
    for payload in bad:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await raw(payload, metadata=access.metadata, timeout=10)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert told(caught.value)[1], caught.value.details()
    stream = up.channel(up.address("ingestion")).stream_stream(STREAM)(metadata=access.metadata)
    for payload in (*bad[:20], good):
        await stream.write(payload)
        answer = ingestion_pb2.PublishTelemetryResponse.FromString(await stream.read())
        assert answer.status.code == (0 if payload == good else grpc.StatusCode.INVALID_ARGUMENT.value[0])
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    await wait_visible(up, access, "sensor", {now: {"level": 1.0}})


async def frame_refused(up: UpProcess, access: TenantAccess, **fields: object) -> tuple[str, str]:
    now = time.time_ns() // 1000
    shown = {"metrics": ["level"], "time_unix_us": [now, now + 1], "values": [1.0, 2.0], **fields}
    frame = telemetry_pb2.TelemetryFrame(**shown)  # type: ignore[arg-type]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await up.ingestion().PublishTelemetry(
            telemetry_pb2.TelemetryBatch(devices=["sensor"], frames=[frame]),
            metadata=access.metadata,
            timeout=10,
        )
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert ";" in (caught.value.details() or ""), "what is wrong; what to do"
    return told(caught.value)


@pytest.mark.usefixtures("neighbour")
async def test_frames_that_make_no_sense(up: UpProcess) -> None:
    access = await up.create_tenant("no-sense")
    await up.create_devices(access, "sensor")
    nan = float("nan")
    assert await frame_refused(up, access, values=[1.0]) == ("COLUMN_LENGTHS", "frames[0].values")
    assert await frame_refused(up, access, device_index=[0]) == ("COLUMN_LENGTHS", "frames[0].device_index")
    assert await frame_refused(up, access, device_index=[0, 1]) == (
        "DEVICE_INDEX_RANGE",
        "frames[0].device_index",
    )
    assert await frame_refused(up, access, time_unix_us=[], values=[]) == (
        "NO_ROWS",
        "frames[0].time_unix_us",
    )
    assert await frame_refused(up, access, metrics=[], values=[]) == ("NO_METRICS", "frames[0].metrics")
    assert await frame_refused(up, access, values=[nan, nan]) == ("NO_READINGS", "frames[0].values")


@pytest.mark.usefixtures("neighbour")
async def test_1001_metrics_on_a_device(up: UpProcess) -> None:
    access = await up.create_tenant("many-metrics")
    await up.create_devices(access, "sensor", "other")
    now = time.time_ns() // 1000
    names = [f"m{number}" for number in range(1_001)]
    half = {now: dict.fromkeys(names[:500], 1.0)}
    rest = {now + 1: dict.fromkeys(names[500:1_000], 1.0)}
    for rows in (half, rest):
        assert (await publish(up, access, "sensor", rows)).accepted_readings == 500
    answer = await publish(up, access, "sensor", {now + 2: {names[1_000]: 1.0}})
    [refusal] = answer.refusals
    assert refusal.reason == ingestion_pb2.TOO_MANY_METRICS
    assert "sensor" in refusal.message
    answer = await publish(up, access, "other", {now: {names[1_000]: 1.0}})
    assert answer.accepted_readings == 1
    answer = await publish(up, access, "other", {now + 1: dict.fromkeys(names, 1.0)})
    assert [refusal.reason for refusal in answer.refusals] == [ingestion_pb2.TOO_MANY_METRICS]


async def test_filters(up: UpProcess) -> None:
    access = await up.create_tenant("filters")
    await up.create_devices(access, "sensor")
    for text, says in (
        ("type = ", "at position 8:"),
        ("colour = red", "unknown field 'colour'"),
        ("(" * 10_000 + "type = a" + ")" * 10_000, "filter"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await up.registry().ListDevices(
                registry_pb2.ListDevicesRequest(parent=access.name, filter=text),
                metadata=access.metadata,
                timeout=10,
            )
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert told(caught.value)[1] == "filter"
        assert says in (caught.value.details() or "")
    result = await up.command(
        "device", "list", "--tenant", "filters", "--filter", "colour = red", "--output", "json"
    )
    assert result.status == 4
    assert "unknown field 'colour'" in result.err
    assert "Traceback" not in result.err
