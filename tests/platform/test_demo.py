"""The demo, as `make demo` and `make run` start it: ends by itself, loses nothing, resumes, imports nothing twice."""

import asyncio
import re
import shlex
import signal
from pathlib import Path

import pytest

from tidewire_client import AsyncConnection, AsyncQueryClient, FileToken
from tidewire_platform.demo.hints import command_lines
from tidewire_platform.demo.sources import BUOY, GLUCOSE, load_sources
from tidewire_platform.specs import SERVICES
from tidewire_testkit.whole.platform import UpProcess, alive, running, until
from tidewire_testkit.whole.result import CommandResult

pytestmark = [pytest.mark.platform, pytest.mark.timeout(180)]

SOURCES = {source.device: source for source in load_sources()}


def test_the_real_readings_are_all_there() -> None:
    glucose, buoy = SOURCES[GLUCOSE], SOURCES[BUOY]
    assert (glucose.rows, buoy.rows) == (52_281, 19_226)
    assert glucose.visible_readings(glucose.rows) < glucose.readings(
        0, glucose.rows
    )  # rows of one moment collapse
    assert buoy.readings(0, buoy.rows) - buoy.visible_readings(buoy.rows) == 1


def figure(result: CommandResult, name: str) -> int:
    found = re.search(rf"^{name}\s+([\d,]+)", result.out, re.MULTILINE)
    assert found, f"{name} is not in {result.out}"
    return int(found[1].replace(",", ""))


async def test_a_temporary_demo_ends_by_itself_with_everything_visible(data_dir: Path) -> None:
    user = UpProcess(data_dir)
    result = await user.command("demo", "--seconds", "6", "--temporary", seconds=90)
    assert result.status == 0, result.out + result.err
    assert figure(result, "accepted") > 120_000
    assert figure(result, "lost") == figure(result, "duplicates") == figure(result, "ledger difference") == 0
    assert "CLOCK_SKEW" in result.out
    assert "DEVICE_UNKNOWN" in result.out
    assert not data_dir.exists()
    assert not (Path(user.environ["XDG_CONFIG_HOME"]) / "tidewire").exists()


async def visible_counts(up: UpProcess) -> dict[str, int]:
    """Visible readings of the real sensors, by device."""
    token = FileToken(up.data_dir / "keys" / "demo.token")
    async with AsyncConnection(up.address("registry"), token=token, tenant="demo") as connection:
        query = AsyncQueryClient(connection)
        counts = {}
        for device, source in SOURCES.items():
            answers = await query.aggregate([device], list(source.metrics), "count")
            counts[device] = int(sum(answer.columns["count"].sum() for answer in answers))
        return counts


async def test_a_second_run_resumes_imports_nothing_twice_and_its_hints_work(data_dir: Path) -> None:
    user = UpProcess(data_dir)
    arguments = ("demo", "--data-dir", str(data_dir), "--free-ports")
    first = await user.command(*arguments, "--seconds", "4", seconds=90)
    assert first.status == 0, first.out + first.err
    assert figure(first, "accepted") > 120_000
    second = await user.command(*arguments, "--seconds", "4", seconds=90)
    assert second.status == 0, second.out + second.err
    assert "imported before" in second.out
    assert figure(second, "accepted") < 20_000
    assert figure(second, "duplicates") == figure(second, "lost") == 0
    refused = await user.command(*arguments, "--seconds", "4", "--keep-times")
    assert refused.status == 1
    assert "without --keep-times" in refused.err

    async with running(data_dir) as up:
        before = await visible_counts(up)
        for device, source in SOURCES.items():
            assert (
                source.visible_readings(source.rows) - 2_000
                < before[device]
                < source.visible_readings(source.rows)
            )
        attached = await up.command("demo", "--data-dir", str(data_dir), "--seconds", "3", seconds=60)
        assert attached.status == 0, attached.out + attached.err
        assert f"process {up.pid}" in attached.out
        after = await visible_counts(up)
        assert all(before[device] <= after[device] < before[device] + 100 for device in SOURCES)
        for line in command_lines():
            result = await up.command(*shlex.split(line)[1:])
            assert result.status == 0, f"{line}: {result.err}"
            assert result.out.strip(), line


class RunningDemo:
    """A demo without an end, on free ports."""

    def __init__(self, user: UpProcess) -> None:
        self.user = user
        self.arguments = ("demo", "--data-dir", str(user.data_dir), "--free-ports", "--keep-times")
        self.said = b""
        self._seconds = 60 * user.backend.patience

    async def start(self) -> None:
        """Returns when the live view has begun."""
        self._process = await asyncio.create_subprocess_exec(
            *self.user.command_line(*self.arguments),
            env=self.user.environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        while b"readings/s" not in self.said:
            line = await asyncio.wait_for(self._process.stdout.readline(), self._seconds)
            assert line, self.said
            self.said += line

    async def end(self, number: signal.Signals) -> CommandResult:
        """Sends a signal and waits for the end."""
        self._process.send_signal(number)
        out, err = await asyncio.wait_for(self._process.communicate(), self._seconds)
        assert self._process.returncode is not None
        return CommandResult(self._process.returncode, (self.said + out).decode(), err.decode())


async def test_a_demo_can_be_watched_and_ctrl_c_stops_it_in_order_with_a_check(data_dir: Path) -> None:
    demo = RunningDemo(UpProcess(data_dir, environ={"PYTHONUNBUFFERED": "1"}))
    await demo.start()
    watched = await demo.user.command(*demo.arguments, "--seconds", "3")
    assert watched.status == 0, watched.err
    assert "watching it" in watched.out
    result = await demo.end(signal.SIGINT)
    assert result.status == 0, result.err
    assert figure(result, "lost") == figure(result, "duplicates") == figure(result, "ledger difference") == 0
    entries = demo.user.log_entries()
    assert [entry["process"] for entry in entries if entry["event"] == "service stopped"] == [
        "ingestion",
        "storage",
        "registry",
    ]
    assert demo.user.logged_errors() == []


async def test_a_demo_that_was_killed_resumes_and_nothing_is_lost_or_twice(data_dir: Path) -> None:
    demo = RunningDemo(UpProcess(data_dir, environ={"PYTHONUNBUFFERED": "1"}))
    await demo.start()
    pids = [endpoint.pid for service in SERVICES for endpoint in demo.user.endpoints(service)]
    await demo.end(signal.SIGKILL)

    async def children_gone() -> bool:
        return not any(alive(pid) for pid in pids)

    await until(children_gone, "its services have ended too", 30)
    result = await demo.user.command(*demo.arguments, "--seconds", "4", seconds=90)
    assert result.status == 0, result.out + result.err
    assert figure(result, "lost") == figure(result, "duplicates") == figure(result, "ledger difference") == 0
