"""What a tenant may use, and what it is told that it uses: over all services together."""

import time

import grpc
import grpc.aio
import pytest

from tidewire.ingestion.v1 import ingestion_pb2
from tidewire.registry.v1 import registry_pb2
from tidewire_testkit.whole.platform import TenantAccess, UpProcess, until
from tidewire_testkit.whole.readback import batch_of, publish, wait_visible

pytestmark = [pytest.mark.platform, pytest.mark.timeout(120)]


async def usage_of(up: UpProcess, access: TenantAccess) -> registry_pb2.TenantUsage:
    return await up.registry().GetTenantUsage(
        registry_pb2.GetTenantUsageRequest(name=access.name), metadata=access.metadata, timeout=10
    )


async def test_usage_counts_what_was_accepted_and_what_is_kept(up: UpProcess) -> None:
    access = await up.create_tenant("thrifty", devices=10)
    await up.create_devices(access, "one", "two")
    now = time.time_ns() // 1000
    rows = {now + row: {"level": float(row), "flow": 1.0} for row in range(50)}
    batch = batch_of("one", rows)
    for _ in range(3):  # the same batch again and again: two of them are duplicates
        await up.ingestion().PublishTelemetry(batch, metadata=access.metadata, timeout=10)
    await wait_visible(up, access, "one", rows)

    async def measured() -> registry_pb2.TenantUsage | None:
        usage = await usage_of(up, access)
        return usage if usage.HasField("measure_time") and usage.accepted_readings == 300 else None

    usage = await until(measured, "storage has counted all that was accepted")
    assert (usage.devices, usage.credentials, usage.quotas.devices) == (2, 0, 10)
    assert usage.stored_readings == 100
    assert 0 < usage.stored_bytes < 50_000
    shown = await up.command("tenant", "usage", "thrifty", "--output", "json")
    assert shown.json()["accepted_readings"] == 300


async def test_quotas_hold_for_their_tenant_and_say_when_to_come_back(up: UpProcess) -> None:
    tight = await up.create_tenant("tight", devices=2, readings_per_second=10, burst_readings=20)
    free = await up.create_tenant("free")
    await up.create_devices(free, "sensor")
    await up.create_devices(tight, "sensor", "other")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await up.create_devices(tight, "third")
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "devices" in (caught.value.details() or "")

    now = time.time_ns() // 1000
    rows = {now + row: {"level": float(row)} for row in range(100)}
    answer = await publish(up, tight, "sensor", rows)
    accepted = answer.accepted_readings
    # Before there is any demand each process has an equal part of the burst.
    assert accepted == 20 // up.processes["ingestion"]
    [refusal] = answer.refusals
    assert (refusal.reason, refusal.rows) == (ingestion_pb2.QUOTA_TENANT, 100 - accepted)
    assert answer.retry_delay.ToMilliseconds() > 0
    assert (await publish(up, free, "sensor", rows)).accepted_readings == 100
    await wait_visible(up, tight, "sensor", dict(list(rows.items())[:accepted]))

    async def more_may_go() -> bool:
        return (await publish(up, tight, "sensor", {now + 200: {"level": 1.0}})).accepted_readings == 1

    await until(more_may_go, "the quota fills again")
