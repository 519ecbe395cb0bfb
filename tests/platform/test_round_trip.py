"""A reading goes in and comes out: through the SDK, through the command, and through what the wire allows."""

import asyncio
import math
import time
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest

from tidewire.ingestion.v1 import ingestion_pb2
from tidewire.type.v1 import telemetry_pb2
from tidewire_client import (
    AsyncAdminClient,
    AsyncConnection,
    AsyncDevicePublisher,
    AsyncQueryClient,
    AsyncTelemetryPublisher,
    InvalidArgument,
    generate_private_key,
    public_key_pem,
)
from tidewire_testkit.whole.platform import UpProcess, until
from tidewire_testkit.whole.readback import publish, read_device, wait_visible

pytestmark = [pytest.mark.platform, pytest.mark.timeout(120)]


async def test_the_sdk_publishes_and_reads_the_same_columns(up: UpProcess) -> None:
    access = await up.create_tenant("sdk")
    rows = 25_000
    times = time.time_ns() // 1000 - np.arange(rows, dtype=np.int64)[::-1] * 1_000_000
    values = np.stack([np.sin(np.arange(rows)), np.where(np.arange(rows) % 7 == 0, np.nan, 1.5)])
    async with AsyncConnection(up.address("registry"), token=access.token) as connection:
        await AsyncAdminClient(connection).ensure_devices(["wave", "other"])
        async with AsyncTelemetryPublisher(connection) as publisher:
            await publisher.add_columns("wave", times, ["sine", "sparse"], values)
            await publisher.add("other", None, {"sine": 3.0})
            totals = await publisher.flush()
        readings = int(np.count_nonzero(~np.isnan(values))) + 1
        assert (totals.accepted, totals.refused_readings) == (readings, 0)
        query = AsyncQueryClient(connection)

        async def complete() -> bool:
            counts = await query.aggregate(["wave"], "sparse", "count")
            return sum(one.columns["count"].sum() for one in counts) == np.count_nonzero(~np.isnan(values[1]))

        await until(complete, "all rows are visible")
        table = await query.read_series("wave")
        assert table.metrics == ("sine", "sparse")
        np.testing.assert_array_equal(table.time_unix_us, times)
        np.testing.assert_array_equal(table.values, values)
        part = await query.read_series("wave", ["sine"], start=int(times[10]), end=int(times[20]))
        np.testing.assert_array_equal(part.values[0], values[0, 10:20])
        latest = await query.latest(["wave", "other"], ["sine"])
        assert [(one.device, one.value) for one in latest] == [("other", 3.0), ("wave", values[0, -1])]
        assert [(one.device, one.metric) for one in await query.series()] == [
            ("other", "sine"),
            ("wave", "sine"),
            ("wave", "sparse"),
        ]
        [hourly] = await query.aggregate(["wave"], "sine", ["min", "max", "avg", "count"], every=3600)
        assert hourly.columns["count"].sum() == rows
        assert hourly.columns["min"].min() == values[0].min()
        assert hourly.columns["max"].max() == values[0].max()
        hours = times // 3_600_000_000
        first = hours == hours[0]
        assert hourly.columns["avg"][0] == pytest.approx(values[0, first].mean(), abs=1e-12)


async def test_a_device_publishes_with_its_own_key_and_for_itself_only(up: UpProcess) -> None:
    access = await up.create_tenant("own-key")
    key = generate_private_key()
    async with AsyncConnection(up.address("registry"), token=access.token) as connection:
        admin = AsyncAdminClient(connection)
        await admin.ensure_devices(["sensor", "neighbour"])
        credential = await admin.create_credential("sensor", public_key_pem(key))
        now = time.time_ns() // 1000
        async with AsyncDevicePublisher(
            up.address("registry"), "sensor", credential.name, key, on_refusal=None
        ) as device:
            await device.add(now, {"level": 2.5})
            await device.add(now, {"level": 9.0}, device="neighbour")
            totals = await device.flush()
        assert totals.accepted == 1
        assert dict(totals.refused) == {"NOT_YOUR_DEVICE": 1}
        await wait_visible(up, access, "sensor", {now: {"level": 2.5}})
        assert await read_device(up, access, "neighbour") == []


async def test_a_retried_batch_is_acknowledged_and_visible_once(up: UpProcess) -> None:
    access = await up.create_tenant("retries")
    await up.create_devices(access, "sensor")
    now = time.time_ns() // 1000
    frame = telemetry_pb2.TelemetryFrame(metrics=["level"], time_unix_us=[now, now + 1], values=[1.0, 2.0])
    batch = telemetry_pb2.TelemetryBatch(
        batch_id="6a2b1f7e-3b0e-4e52-8f83-0d5c8a1f2c33", devices=["sensor"], frames=[frame]
    )
    for _ in range(3):
        answer = await up.ingestion().PublishTelemetry(batch, metadata=access.metadata, timeout=10)
        assert answer.accepted_readings == 2
    await wait_visible(up, access, "sensor", {now: {"level": 1.0}, now + 1: {"level": 2.0}})


async def test_bad_rows_are_named_and_the_good_ones_of_the_batch_kept(up: UpProcess) -> None:
    access = await up.create_tenant("partial")
    await up.create_devices(access, "sensor")
    now = time.time_ns() // 1000
    answer = await publish(
        up,
        access,
        "sensor",
        {
            now: {"level": 1.0},
            now + 3_600_000_000: {"level": 2.0},
            now + 1: {"level": math.inf},
            1: {"level": 3.0},
            now + 2: {"level": 4.0},
        },
    )
    assert answer.accepted_readings == 2
    assert {(refusal.reason, tuple(refusal.first_rows)) for refusal in answer.refusals} == {
        (ingestion_pb2.CLOCK_SKEW, (1, 3)),
        (ingestion_pb2.NOT_FINITE, (2,)),
    }
    await wait_visible(up, access, "sensor", {now: {"level": 1.0}, now + 2: {"level": 4.0}})


async def test_a_message_over_the_limit_is_refused_and_nobody_else_notices(up: UpProcess) -> None:
    access = await up.create_tenant("large")
    await up.create_devices(access, "sensor")
    now = time.time_ns() // 1000
    rows = 300_000
    frame = telemetry_pb2.TelemetryFrame(
        metrics=["level"], time_unix_us=[now - row for row in range(rows)], values=[0.0] * rows
    )
    call = up.ingestion().PublishTelemetry(
        telemetry_pb2.TelemetryBatch(devices=["sensor"], frames=[frame]), metadata=access.metadata, timeout=20
    )
    small = publish(up, access, "sensor", {now: {"level": 1.0}})
    error, answer = await asyncio.gather(call, small, return_exceptions=True)
    assert isinstance(error, grpc.aio.AioRpcError)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert isinstance(answer, ingestion_pb2.PublishTelemetryResponse)
    assert answer.accepted_readings == 1
    async with (
        AsyncConnection(up.address("registry"), token=access.token) as connection,
        AsyncTelemetryPublisher(connection, batch_readings=1_000_000) as publisher,
    ):
        with pytest.raises(InvalidArgument, match="smaller"):
            await publisher.send_columns("sensor", now - np.arange(rows), ["level"], np.zeros(rows))


async def test_the_command_takes_a_reading_in_and_gives_it_back(up: UpProcess, tmp_path: Path) -> None:
    made = await up.command("tenant", "create", "by-command", "--output", "json")
    assert made.json()["name"] == "tenants/by-command"
    token_file = tmp_path / "token"
    made = await up.command(
        "token", "create", "me", "--role", "tenant-admin", "--tenant", "by-command", "--file", str(token_file)
    )
    assert made.status == 0, made.err
    assert token_file.stat().st_mode & 0o077 == 0
    as_tenant = ("--token-file", str(token_file), "--tenant", "by-command")
    assert (await up.command("device", "create", "sensor", *as_tenant)).status == 0
    published = await up.command("publish", "sensor", "temperature=21.5", *as_tenant)
    assert published.status == 0, published.err

    async def visible() -> bool:
        result = await up.command("query", "sensor", "--output", "json", *as_tenant)
        return result.status == 0 and "21.5" in result.out

    await until(visible, "the reading is visible to the command")
    unknown = await up.command("publish", "nobody", "temperature=1", *as_tenant)
    assert unknown.status == 4
    assert "DEVICE_UNKNOWN" in unknown.err
    assert "Traceback" not in unknown.err
    ledger = await up.command("ledger", "show", "--output", "json", *as_tenant)
    assert ledger.json()


async def test_the_command_says_what_to_do_when_nobody_is_there(up: UpProcess) -> None:
    result = await up.command("status", "--endpoint", "127.0.0.1:9")
    assert result.status == 3
    assert "127.0.0.1:9" in result.err
    assert "Traceback" not in result.err
