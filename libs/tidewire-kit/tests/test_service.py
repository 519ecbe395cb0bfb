"""A service's life: in this process over a real log, and as a process with signals and exit statuses."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from grpc import aio

from tidewire_kit import topics
from tidewire_kit.clock import SystemClock
from tidewire_kit.datadir import open_data_dir
from tidewire_kit.endpoints import read_endpoints
from tidewire_kit.grpc import service_handler
from tidewire_kit.identity import Role
from tidewire_kit.ids import TenantId, new_uid
from tidewire_kit.service import ServiceContext, ServiceParts, run, running_service
from tidewire_kit.settings import CommonSettings
from tidewire_testkit.directory import TestTenant, heartbeat_change, key_change, tenant_change
from tidewire_testkit.polling import until, until_sync
from tidewire_testkit.tokens import new_signer, user_token
from tidewire_testkit.toy_service import ACCESS, DESCRIPTOR, RAW, UNARY, Toy


@dataclass(frozen=True, slots=True)
class ToySettings:
    PREFIX: ClassVar[str] = "TIDEWIRE_TOY_"
    port: int = 0
    metrics_port: int = 0


async def test_a_service_serves_follows_the_registry_and_lets_go_in_order(tmp_path: Path) -> None:
    toy, steps = Toy(), []

    def build(ctx: ServiceContext[ToySettings]) -> ServiceParts:
        def step(name: str):  # type: ignore[no-untyped-def]
            async def do() -> None:
                steps.append(name)
                # The log is open until the very end: this is where consumers commit.
                assert await ctx.log.end_offsets(topics.TELEMETRY) is not None

            return do

        async def fresh() -> str | None:
            return None if ctx.directory.fresh else "the registry is silent"

        return ServiceParts(
            handlers=[service_handler(DESCRIPTOR, toy, ACCESS, ctx.guard, raw=RAW)],
            start=step("start"),
            drain=step("drain"),
            close=step("close"),
            checks={"replica": fresh},
        )

    clock = SystemClock()
    common = CommonSettings(data_dir=tmp_path / "data", drain_seconds=5)
    async with running_service("toy", ToySettings(), common, build) as service:
        data_dir = open_data_dir(common.data_dir)
        (endpoint,) = read_endpoints(data_dir)["toy"]
        assert (endpoint.address, endpoint.pid) == (service.address, os.getpid())
        assert service.server.health.failures == {"replica": "the registry is silent"}
        await until(lambda: [member.service for member in service.log.members()] == ["toy"])

        signer, tenant = new_signer(clock), TestTenant(TenantId(new_uid()), "acme")
        changes = [key_change(signer), tenant_change(tenant), heartbeat_change(clock)]
        keys = [b"-/key/k", b"t/tenant/t", b"-/heartbeat/registry"]
        await service.log.put(
            topics.REGISTRY,
            [(key, change.SerializeToString()) for key, change in zip(keys, changes, strict=True)],
        )
        await until(lambda: service.directory.fresh)
        await service.server.health.poll()
        assert service.server.health.failures == {}
        metadata = [("authorization", f"Bearer {user_token(signer, tenant.uid, Role.OPERATOR)}")]
        client = aio.insecure_channel(service.address)
        unary = client.unary_unary(UNARY)
        assert await unary(b"x", metadata=metadata, timeout=10) == b"x"
        waiting = unary(b"wait", metadata=metadata)
        await until(lambda: len(toy.calls) == 2)
        # The call in flight is answered while the service is already stopping.
        asyncio.get_running_loop().call_later(0.05, toy.go_on.set)
    assert await waiting == b"wait"
    await client.close()
    assert steps == ["start", "drain", "close"]
    assert read_endpoints(data_dir) == {}


async def test_a_failing_start_closes_what_was_opened(tmp_path: Path) -> None:
    closed = []

    def build(ctx: ServiceContext[ToySettings]) -> ServiceParts:
        async def start() -> None:
            raise OSError("no")

        async def close() -> None:
            closed.append(True)

        return ServiceParts(handlers=[], start=start, close=close)

    with pytest.raises(OSError, match="no"):
        async with running_service("toy", ToySettings(), CommonSettings(data_dir=tmp_path), build):
            pass
    assert closed == [True]
    assert read_endpoints(open_data_dir(tmp_path)) == {}


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"TIDEWIRE_TOY_PORT": "many"}, "TIDEWIRE_TOY_PORT"),
        ({"TIDEWIRE_TLS_CERT_FILE": "/nowhere"}, "TIDEWIRE_TLS_KEY_FILE"),
        ({"TIDEWIRE_TLS_CERT_FILE": "/no/cert", "TIDEWIRE_TLS_KEY_FILE": "/no/key"}, "no file /no/cert"),
    ],
)
def test_bad_settings_are_status_2(
    environ: dict[str, str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(ctx: ServiceContext[ToySettings]) -> ServiceParts:
        raise AssertionError("not reached")

    assert run("toy", ToySettings, build, environ) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


PROGRAM = textwrap.dedent("""
    import sys
    from dataclasses import dataclass
    from typing import ClassVar
    from tidewire_kit import service
    from tidewire_kit.grpc import service_handler
    from tidewire_testkit.toy_service import ACCESS, DESCRIPTOR, RAW, Toy

    @dataclass(frozen=True)
    class Settings:
        PREFIX: ClassVar[str] = "TIDEWIRE_TOY_"
        port: int = 0
        metrics_port: int = 0

    def build(ctx):
        async def drain():
            print("drained", flush=True)
        return service.ServiceParts([service_handler(DESCRIPTOR, Toy(), ACCESS, ctx.guard, raw=RAW)], drain=drain)

    sys.exit(service.run("toy", Settings, build))
""")


@pytest.fixture
def program(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _start(tmp_path: Path, started: list[subprocess.Popen[str]], **environ: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "TIDEWIRE_DATA_DIR": str(tmp_path / "data"), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started.append(process)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_drains_at_a_signal(
    tmp_path: Path, program: list[subprocess.Popen[str]], number: signal.Signals
) -> None:
    process = _start(tmp_path, program)
    file = tmp_path / "data" / "run" / "endpoints.json"
    until_sync(file.exists, seconds=30)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert out == "drained\n"
    events = [json.loads(line)["event"] for line in err.splitlines()]
    assert events[-3:] == ["serving", "stopping", "stopped"]
    assert json.loads(file.read_text()) == {}


@pytest.mark.parametrize(
    ("environ", "status", "says"),
    [
        ({"TIDEWIRE_HOST": "0.0.0.0"}, 2, "TIDEWIRE_INSECURE=true"),
        ({"TIDEWIRE_DATA_DIR": "/proc/none"}, 1, "TIDEWIRE_DATA_DIR"),
    ],
)
def test_what_prevents_a_start_is_said_in_one_line(
    tmp_path: Path, program: list[subprocess.Popen[str]], environ: dict[str, str], status: int, says: str
) -> None:
    process = _start(tmp_path, program, **environ)
    _, err = process.communicate(timeout=30)
    assert process.returncode == status
    assert says in err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1
