"""The life of a platform: start, stop, crash of a part, crash of the whole, and starts that must be refused."""

import asyncio
import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
import yaml

from tidewire_testkit.whole.platform import Endpoint, UpProcess, alive, running, until
from tidewire_testkit.whole.readback import publish, wait_visible

pytestmark = [pytest.mark.platform, pytest.mark.timeout(120)]


async def refused(process: UpProcess, seconds: float = 20) -> str:
    """Waits until a start that must fail has failed; returns what it said."""
    process.start()

    async def ended() -> bool:
        return process.status is not None

    try:
        await until(ended, "the start is refused", seconds * process.backend.patience)
    except AssertionError:
        await process.stop()
        raise
    assert process.status not in (0, None)
    assert "Traceback" not in process.stderr()
    return process.stderr()


async def test_it_serves_writes_the_context_and_stops_in_order(data_dir: Path) -> None:
    async with running(data_dir) as up:
        config = yaml.safe_load(
            (Path(up.environ["XDG_CONFIG_HOME"]) / "tidewire" / "config.yaml").read_text()
        )
        local = config["contexts"]["local"]
        assert local["endpoint"] in {endpoint.address for endpoint in up.endpoints("registry")}
        assert local["token_file"] == str(data_dir / "keys" / "admin.token")
        assert (data_dir / "keys" / "admin.token").stat().st_mode & 0o077 == 0
        assert (data_dir / "keys" / "signing.pem").stat().st_mode & 0o077 == 0
        secret = (data_dir / "keys" / "admin.token").read_text().strip()
        for service in ("registry", "ingestion", "storage"):
            pid = up.endpoints(service)[0].pid
            assert secret not in Path(f"/proc/{pid}/cmdline").read_text()
            assert secret not in Path(f"/proc/{pid}/environ").read_text()
        result = await up.command("status", "--output", "json")
        assert result.status == 0, result.err
    stopped = [entry["process"] for entry in up.log_entries() if entry["event"] == "service stopped"]
    order = [name.partition("-")[0] for name in stopped]
    assert order == [name for name in ("ingestion", "storage", "registry") for _ in range(up.processes[name])]
    assert all(entry["exit_status"] == 0 for entry in up.log_entries() if entry["event"] == "service stopped")
    assert secret not in "".join(json.dumps(entry) for entry in up.log_entries())


async def test_a_restart_keeps_what_was_acknowledged(data_dir: Path) -> None:
    now = time.time_ns() // 1000
    rows = {now - second * 1_000_000: {"temperature": float(second)} for second in range(100)}
    async with running(data_dir) as up:
        access = await up.create_tenant("kept")
        await up.create_devices(access, "sensor")
        assert (await publish(up, access, "sensor", rows)).accepted_readings == 100
    async with running(data_dir) as up:
        await wait_visible(up, access, "sensor", rows)
        more = {now + 1: {"temperature": -1.0}}
        assert (await publish(up, access, "sensor", more)).accepted_readings == 1
        await wait_visible(up, access, "sensor", rows | more)


async def test_a_process_that_dies_is_started_again_at_its_address(data_dir: Path) -> None:
    async with running(data_dir, "--ingestion-processes", "2", "--storage-processes", "2") as up:
        for service in ("registry", "ingestion", "storage"):
            before = up.endpoints(service)
            up.kill_pid(before[0].pid)

            async def again(service: str = service, before: list[Endpoint] = before) -> bool:
                after = up.endpoints(service)
                return (
                    {endpoint.address for endpoint in after} == {endpoint.address for endpoint in before}
                    and before[0].pid not in {endpoint.pid for endpoint in after}
                    and all([await up.is_serving(endpoint.address) for endpoint in after])
                )

            await until(again, f"{service} serves again", 30)
    assert sum(entry["event"].startswith("service died") for entry in up.log_entries()) == 3


async def test_when_up_is_killed_its_processes_go_and_the_next_up_needs_no_help(data_dir: Path) -> None:
    up = UpProcess(data_dir)
    up.start()
    await up.wait_serving()
    pids = [
        endpoint.pid for service in ("registry", "ingestion", "storage") for endpoint in up.endpoints(service)
    ]
    await up.signal_and_wait(signal.SIGKILL)

    async def gone() -> bool:
        return not any(alive(pid) for pid in pids)

    await until(gone, "the children are gone", 30)
    async with running(data_dir):
        pass


async def test_a_second_up_on_the_same_directory_is_refused_by_name(up: UpProcess) -> None:
    second = UpProcess(up.data_dir)
    said = await refused(second)
    assert f"process {up.pid}" in said
    assert str(up.data_dir) in said
    assert "--data-dir" in said
    assert await up.is_serving(up.address("registry"))


async def test_a_port_in_use_is_refused_with_its_number_and_the_option(data_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = await refused(UpProcess(data_dir, "--ingestion-port", str(port)))
    assert f"port {port}" in said
    assert "--ingestion-port" in said


async def test_a_data_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    if os.geteuid() == 0:  # permissions do not bind root, so stand a file in the way
        (tmp_path / "locked").write_text("")
    else:
        (tmp_path / "locked").mkdir(mode=0o555)
    said = await refused(UpProcess(tmp_path / "locked" / "data", home=tmp_path / "home"))
    assert str(tmp_path / "locked") in said


async def test_a_newer_format_is_refused_by_name_and_left_as_it_is(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "VERSION").write_text("999\n")
    said = await refused(UpProcess(data_dir))
    assert "999" in said
    assert str(data_dir) in said
    assert (data_dir / "VERSION").read_text() == "999\n"


async def test_a_wrong_setting_is_refused_naming_the_variable(data_dir: Path) -> None:
    said = await refused(UpProcess(data_dir, environ={"TIDEWIRE_PARTITIONS": "many"}))
    assert "TIDEWIRE_PARTITIONS" in said


async def test_sigterm_stops_it_as_ctrl_c_does(data_dir: Path) -> None:
    up = UpProcess(data_dir)
    up.start()
    await up.wait_serving()
    assert await up.signal_and_wait(signal.SIGTERM) == 0
    await asyncio.sleep(0)
    stopped = [entry["process"] for entry in up.log_entries() if entry["event"] == "service stopped"]
    assert stopped[-1].startswith("registry")
