"""The loss ledger: 0 at rest, and not 0 when a block goes behind the platform's back."""

import time
import urllib.request
from pathlib import Path

import pytest

from tidewire_testkit.whole.platform import UpProcess, running, until
from tidewire_testkit.whole.readback import publish, settled_ledger, wait_visible

pytestmark = [pytest.mark.platform, pytest.mark.embedded, pytest.mark.timeout(120)]

METRIC = "tidewire_ledger_difference_readings"


def metric_of(up: UpProcess) -> float:
    """The sum of the metric over what storage tells Prometheus."""
    metrics_address = up.endpoints("storage")[0].metrics_address
    with urllib.request.urlopen(f"http://{metrics_address}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    values = [float(line.rpartition(" ")[2]) for line in lines if line.startswith(METRIC)]
    assert values, f"{METRIC} is not there"
    return sum(values)


async def test_the_difference_is_zero_until_a_block_is_deleted(data_dir: Path) -> None:
    now = time.time_ns() // 1000
    rows = {now - second * 1_000_000: {"level": float(second), "flow": 1.0} for second in range(50)}
    async with running(
        data_dir,
        environ={"TIDEWIRE_STORAGE_RECOUNT_SECONDS": "0.5"},
        expected_errors=["ledger_does_not_add_up"],
    ) as up:
        access = await up.create_tenant("audited")
        await up.create_devices(access, "sensor")
        await publish(up, access, "sensor", rows)
        await wait_visible(up, access, "sensor", rows)
        ledger = await until(lambda: settled_ledger(up), "the ledger is settled")
        assert ledger.difference_readings == 0
        assert sum(entry.accepted_readings for entry in ledger.entries) == 100
        assert sum(entry.stored_readings for entry in ledger.entries) == 100
        assert metric_of(up) == 0

        blocks = sorted((data_dir / "storage").rglob("*.blk"))
        assert blocks
        for block in blocks:
            block.unlink()

        async def noticed() -> bool:
            answer = await settled_ledger(up)
            return answer is not None and answer.difference_readings == 100 and metric_of(up) == 100

        await until(noticed, "the difference is the 100 readings that are gone", 30)
