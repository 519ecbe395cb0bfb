"""`tidewire doctor` on a platform that is well, and on one whose storage stands still."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tidewire_testkit.whole.platform import UpProcess, running, until
from tidewire_testkit.whole.readback import publish, wait_visible
from tidewire_testkit.whole.result import CommandResult

pytestmark = [pytest.mark.platform, pytest.mark.timeout(120)]


async def examined(up: UpProcess) -> tuple[CommandResult, dict[str, Any]]:
    """How the command ended, and what it found."""
    result = await up.command("doctor", "--data-dir", str(up.data_dir), "--output", "json")
    assert result.status in (0, 1), result.err
    return result, CommandResult(0, result.out, result.err).json()


def found(answer: dict[str, Any], check: str) -> list[dict[str, str]]:
    return [finding for finding in answer["findings"] if finding["check"] == check]


async def test_a_platform_that_is_well_has_no_wrong_finding(up: UpProcess) -> None:
    result, answer = await examined(up)

    assert (result.status, answer["well"], answer["wrong"]) == (0, True, 0), answer
    services = {finding["subject"] for finding in found(answer, "service")}
    assert services == {
        f"{service} {endpoint.address}" for service in up.processes for endpoint in up.endpoints(service)
    }
    assert [finding["state"] for finding in found(answer, "lag")] == ["ok"]
    assert all(finding["remedy"] for finding in answer["findings"] if finding["state"] != "ok")
    shown = await up.command("doctor", "--data-dir", str(up.data_dir))
    assert shown.status == 0
    assert "warnings." in shown.out


async def test_storage_that_stands_still_is_found_with_what_waits_for_it(data_dir: Path) -> None:
    async with running(data_dir) as up:
        access = await up.create_tenant("patient")
        await up.create_devices(access, "sensor")
        now = time.time_ns() // 1000
        await publish(up, access, "sensor", {now: {"level": 1.0}})
        await wait_visible(up, access, "sensor", {now: {"level": 1.0}})
        stopped = up.endpoints("storage")
        for endpoint in stopped:
            os.kill(endpoint.pid, signal.SIGSTOP)
        try:
            await publish(up, access, "sensor", {now + 1: {"level": 2.0}})
            result, answer = await examined(up)
        finally:
            for endpoint in stopped:
                os.kill(endpoint.pid, signal.SIGCONT)
        assert (result.status, answer["well"]) == (1, False)
        wrong = [finding for finding in found(answer, "service") if finding["state"] == "wrong"]
        assert {finding["subject"] for finding in wrong} <= {f"storage {one.address}" for one in stopped} | {
            "storage"
        }
        assert wrong
        assert all(finding["remedy"] for finding in wrong)
        assert "(0 records)" not in found(answer, "lag")[0]["text"]

        async def well() -> bool:
            return bool((await examined(up))[1]["well"])

        await until(well, "all is well again by itself", 40)
        await wait_visible(up, access, "sensor", {now: {"level": 1.0}, now + 1: {"level": 2.0}})
