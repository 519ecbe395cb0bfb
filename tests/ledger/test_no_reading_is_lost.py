"""Acknowledged − visible is empty, whatever is killed: the platform's first promise, attacked for a minute.

Load runs all the time: unary and streamed batches, some with rows to be refused, some acknowledgements thrown away and
the batch sent again a second later or after the window in which it is recognised, and a tenant over its quota.
Meanwhile every process gets SIGKILL in turn. Set TIDEWIRE_TEST_LEDGER_SECONDS to run longer.
"""

import asyncio
import itertools
import os
import time
from pathlib import Path

import pytest

from tidewire_testkit.whole.load import (
    METRICS,
    REGISTER_METRIC,
    Publisher,
    QuotaPublisher,
    StreamPublisher,
    UnaryPublisher,
)
from tidewire_testkit.whole.own_ledger import OwnLedger
from tidewire_testkit.whole.platform import TenantAccess, UpProcess, running, until
from tidewire_testkit.whole.progress import progress
from tidewire_testkit.whole.readback import count_readings, read_device, settled_ledger

SECONDS = float(os.environ.get("TIDEWIRE_TEST_LEDGER_SECONDS", "60"))
WINDOW_SECONDS = 8

pytestmark = [pytest.mark.ledger, pytest.mark.timeout(SECONDS + 180)]


async def kill_in_turn(up: UpProcess, access: TenantAccess, publishers: list[Publisher]) -> dict[str, float]:
    """Kills one process after the other until the time is up; returns process → seconds to progress, the longest."""
    ends = time.monotonic() + SECONDS
    slowest: dict[str, float] = {}
    processes = [(service, number) for service, count in up.processes.items() for number in range(count)]
    turns = itertools.cycle(sorted(processes, key=lambda process: process[1]))
    for service, number in turns:
        if time.monotonic() >= ends:
            return slowest
        count = up.processes[service]

        async def all_there(service: str = service, count: int = count) -> bool:
            return len(up.endpoints(service)) == count

        await until(all_there, f"{count} of {service} are there")
        killed = time.monotonic()
        up.kill_pid(up.endpoints(service)[number].pid)
        await progress(up, access, publishers, killed)
        name = f"{service}-{number + 1}"
        slowest[name] = max(slowest.get(name, 0.0), time.monotonic() - killed)
        await asyncio.sleep(1)
    raise AssertionError("unreachable")


async def test_what_was_acknowledged_is_visible_once_whatever_is_killed(tmp_path: Path) -> None:
    ledger = OwnLedger()
    environ = {"TIDEWIRE_STORAGE_DEDUP_WINDOW_SECONDS": str(WINDOW_SECONDS)}
    options = ("--ingestion-processes", "2", "--storage-processes", "2")
    async with running(tmp_path / "data", *options, environ=environ) as up:
        access = await up.create_tenant("ledger")
        limited = await up.create_tenant("limited", readings_per_second=20, burst_readings=20)
        arguments = {"devices": 6, "window_seconds": float(WINDOW_SECONDS)}
        unary = [UnaryPublisher(up, access, f"unary{n}", ledger, **arguments) for n in range(2)]  # type: ignore[arg-type]
        streams = [StreamPublisher(up, access, f"stream{n}", ledger, **arguments) for n in range(2)]  # type: ignore[arg-type]
        quota = QuotaPublisher(up, limited, "quota", ledger, devices=1, window_seconds=0.0)
        publishers: list[UnaryPublisher | StreamPublisher] = [*unary, *streams]
        await up.create_devices(
            access, *(device for publisher in publishers for device in publisher.all_devices())
        )
        await up.create_devices(limited, *quota.devices)

        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for publisher in [*publishers, quota]:
                tasks.create_task(publisher.run(stop))
            try:
                slowest = await kill_in_turn(up, access, list(publishers))
            finally:
                stop.set()
        print(f"\nkilled, longest seconds to progress: { {k: round(v, 1) for k, v in slowest.items()} }")
        print(f"{ledger.acknowledged_cells():,} readings acknowledged; {dict(ledger.counts)}")

        settled = await until(lambda: settled_ledger(up), "the log is read and written", 30)
        assert settled.difference_readings == 0

        counted = 0
        for tenant, names in (
            (access, [d for p in publishers for d in p.all_devices()]),
            (limited, list(quota.devices)),
        ):
            for device in names:
                visible = await read_device(up, tenant, device)
                counted += len(visible)
                ledger.check_device(device, visible)
            assert await count_readings(up, tenant, names, [*METRICS, REGISTER_METRIC]) == counted
            counted = 0
        assert not ledger.violations, "\n".join([str(dict(ledger.counts)), *ledger.violations])

        # The test must have done what it says.
        assert len(slowest) == sum(up.processes.values()), "not every process was killed; allow more seconds"
        assert ledger.counts["lost, again soon"] > 0
        assert ledger.counts["lost, again late"] > 0
        assert ledger.counts["rows refused"] > 0
        assert ledger.counts["readings over quota"] > 0
        assert sum(entry.duplicate_readings for entry in settled.entries) > 0
