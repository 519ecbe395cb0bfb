"""`tidewire sql` against the real platform: answers in every form, Ctrl-C, and nothing left when storage is killed."""

import asyncio
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tidewire_testkit.whole.platform import UpProcess, alive, running, until

pytestmark = [pytest.mark.platform, pytest.mark.timeout(180)]

ENDLESS = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b WHERE a.range + b.range = 7"


def statements(storage: int) -> list[int]:
    """Processes that run a statement for this process of storage."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            command = (status.parent / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue  # it has just ended
        if parent == storage and b"tidewire_storage.sqlbox.child" in command:
            found.append(int(status.parent.name))
    return found


async def test_the_command_runs_a_select(up: UpProcess, tmp_path: Path) -> None:
    access = await up.create_tenant("sql")
    token_file = tmp_path / "token"
    token_file.write_text(access.token)
    as_tenant = ("--token-file", str(token_file), "--tenant", "sql")
    assert (await up.command("device", "create", "sensor", *as_tenant)).status == 0
    assert (await up.command("publish", "sensor", "temperature=21.5", "level=2", *as_tenant)).status == 0
    select = "SELECT metric, value, time FROM readings WHERE device = 'sensor' ORDER BY metric"

    async def visible() -> bool:
        result = await up.command("sql", select, "--output", "json", *as_tenant)
        assert result.status == 0, result.err
        return [row["value"] for row in result.json()] == [2.0, 21.5]

    await until(visible, "both readings are there")
    table = await up.command("sql", select, *as_tenant)
    assert "temperature" in table.out
    csv = await up.command("sql", "SELECT 1 AS a, 1 AS a", "--output", "csv", *as_tenant)
    assert csv.out.splitlines() == ["a,a_2", "1,1"]
    file = tmp_path / "all.parquet"
    assert (await up.command("sql", "FROM readings", "--to", str(file), *as_tenant)).status == 0
    assert sorted(pq.read_table(file)["value"].to_pylist()) == [2.0, 21.5]
    refused = await up.command("sql", "SELECT * FROM read_csv('/etc/passwd')", *as_tenant)
    assert refused.status != 0
    assert "read_csv is not allowed" in refused.err


async def test_no_process_of_a_statement_is_left(data_dir: Path, tmp_path: Path) -> None:
    """Neither when the command is interrupted nor when storage is killed."""
    async with running(data_dir) as up:
        token_file = tmp_path / "token"
        token_file.write_text((await up.create_tenant("sql")).token)
        as_tenant = ("--token-file", str(token_file), "--tenant", "sql")
        processes = [endpoint.pid for endpoint in up.endpoints("storage")]
        for number in (signal.SIGINT, signal.SIGKILL):
            command = await asyncio.create_subprocess_exec(
                *up.command_line("sql", ENDLESS, *as_tenant),
                env=up.environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            running_now: list[int] = []

            async def begun(found: list[int] = running_now) -> bool:
                found[:] = [pid for storage in processes for pid in statements(storage)]
                return bool(found)

            await until(begun, "the statement runs")
            if number == signal.SIGINT:
                command.send_signal(number)
            else:
                for storage in processes:
                    up.kill_pid(storage)

            async def gone(found: list[int] = running_now) -> bool:
                return not any(alive(pid) for pid in found)

            await until(gone, "its process has ended")
            if command.returncode is None and number == signal.SIGKILL:
                command.kill()
            await command.wait()
        await up.wait_serving()


async def test_a_platform_that_stops_leaves_no_statement(data_dir: Path, tmp_path: Path) -> None:
    """In the middle of one, whose caller is told; and readiness stays while it runs."""
    environ = {"TIDEWIRE_STORAGE_SQL_SECONDS": "600", "TIDEWIRE_DRAIN_SECONDS": "2"}
    found: list[int] = []
    async with running(data_dir, environ=environ) as up:
        token_file = tmp_path / "token"
        token_file.write_text((await up.create_tenant("sql")).token)
        command = await asyncio.create_subprocess_exec(
            *up.command_line("sql", ENDLESS, "--token-file", str(token_file), "--tenant", "sql"),
            env=up.environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        storage = [endpoint.pid for endpoint in up.endpoints("storage")]

        async def begun() -> bool:
            found[:] = [pid for parent in storage for pid in statements(parent)]
            return bool(found)

        await until(begun, "the statement runs")
        assert await up.is_serving(up.address("storage"))

    async def gone() -> bool:
        return not any(alive(pid) for pid in found)

    await until(gone, "its process has ended")
    async with asyncio.timeout(60):
        assert await command.wait() != 0
