"""A tenant far over its quota costs little: most of its batches are refused by their size, before they are read."""

import asyncio
from typing import Any

import pytest

from tidewire.registry.v1.resources_pb2 import TenantQuotas
from tidewire_ingestion.domain import Outcome
from tidewire_kit.errors import QuotaExceeded
from tidewire_kit.identity import Caller
from tidewire_kit.telemetry.wire import read_batch
from tidewire_testkit.directory import TestTenant, tenant_change

pytestmark = pytest.mark.parametrize("bench", ["deferred"], indirect=True)

ROWS = 100
QUOTA = 1_000


class Load:
    """Publishers of one tenant that send without heed; counts what was read of it."""

    def __init__(self, bench: Any, tenant: TestTenant) -> None:
        self.bench = bench
        bench.world.add_device(tenant, "pump")
        self.caller: Caller = bench.user(tenant)
        self.read = 0
        self.accepted = 0
        self.refused: list[QuotaExceeded] = []

    async def send(self, batches: int, rows: int = ROWS) -> None:
        """All of them at once."""
        assert self.caller.tenant is not None
        waiting: list[asyncio.Future[Outcome]] = []
        for _ in range(batches):
            message = self.bench.message(("pump",), rows=rows).SerializeToString()

            def read(message: bytes = message) -> Any:
                self.read += rows
                return read_batch(message)

            try:
                waiting.append(
                    self.bench.use_case.publish(self.caller.tenant, self.caller, len(message), read).outcome
                )
            except QuotaExceeded as error:
                self.refused.append(error)
        self.accepted += sum([(await outcome).accepted_readings for outcome in waiting])


async def test_fifty_times_the_quota_is_mostly_refused_unread_and_the_quota_is_given_all_the_same(
    bench: Any,
) -> None:
    greedy = Load(
        bench, bench.world.add_tenant("greedy", TenantQuotas(readings_per_second=QUOTA, burst_readings=QUOTA))
    )
    modest = Load(
        bench, bench.world.add_tenant("modest", TenantQuotas(readings_per_second=QUOTA, burst_readings=QUOTA))
    )
    for _ in range(200):  # 10 s
        bench.clock.advance(0.05)
        if bench.clock.monotonic() % 4 < 0.05:
            bench.world.heartbeat()
        await greedy.send(25)
        await modest.send(1, rows=40)
    sent = 200 * 25 * ROWS
    assert greedy.accepted == pytest.approx(10 * QUOTA + QUOTA, rel=0.1)
    assert greedy.read <= 3 * greedy.accepted < sent / 10
    assert modest.accepted == modest.read == 200 * 40, "another tenant does not notice"
    assert not modest.refused
    told = greedy.refused[-1]
    assert (told.reason, told.limit) == ("QUOTA_TENANT", "readings_per_second")
    assert told.retry_delay_seconds is not None
    assert told.retry_delay_seconds > 0
    assert bench.counts.failures.count("QUOTA_TENANT") == len(greedy.refused)


async def test_a_quota_of_batches_is_kept_unread_too(bench: Any) -> None:
    greedy = Load(bench, bench.world.add_tenant("greedy", TenantQuotas(batches_per_second=20)))
    for _ in range(100):
        bench.clock.advance(0.05)
        if bench.clock.monotonic() % 4 < 0.05:
            bench.world.heartbeat()
        await greedy.send(50, rows=1)
    assert greedy.accepted == pytest.approx(300, abs=25), "five seconds and the burst"
    assert greedy.read <= 3 * greedy.accepted
    assert greedy.refused[-1].limit == "batches_per_second"


async def test_a_greater_quota_holds_at_once(bench: Any) -> None:
    tenant = bench.world.add_tenant("greedy", TenantQuotas(readings_per_second=10, burst_readings=10))
    greedy = Load(bench, tenant)
    await greedy.send(50)
    await greedy.send(1)
    assert greedy.refused
    tenant.revision += 1
    bench.world.directory.apply(tenant_change(tenant, quotas=TenantQuotas(readings_per_second=QUOTA)))
    before = greedy.accepted
    await greedy.send(5)
    assert greedy.accepted - before == 5 * ROWS
