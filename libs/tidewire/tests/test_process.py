"""The supervision of one process, with a program in a service's place that does as the test says."""

import asyncio
import io
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tidewire_kit.datadir import open_data_dir
from tidewire_kit.errors import FailedPrecondition
from tidewire_kit.settings import CommonSettings, load
from tidewire_platform.logs import LogSink
from tidewire_platform.platform import Platform
from tidewire_platform.process import ServiceProcess
from tidewire_platform.specs import SERVICES, PlatformOptions, ProcessSpec
from tidewire_testkit.whole.platform import alive, until

SPEC = ProcessSpec("registry", "registry", "127.0.0.1", 0, 0)


class Fake:
    """Makes processes that run `program` as `python -m tidewire_registry`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.sink = LogSink(directory / "logs", io.StringIO())

    def program(self, service: str, program: str) -> None:
        package = self._directory / "fakes" / f"tidewire_{service}"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(program)

    def process(self, program: str) -> ServiceProcess:
        self.program("registry", program)
        environ = {**os.environ, "PYTHONPATH": str(self._directory / "fakes")}
        return ServiceProcess(SPEC, self._directory, environ, self.sink)

    def events(self, name: str = "registry") -> list[dict[str, object]]:
        path = self.sink.path(name)
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    made = Fake(tmp_path)
    yield made
    made.sink.close()


async def when(check: Callable[[], bool], what: str) -> None:
    async def checked() -> bool:
        return check()

    await until(checked, what)


async def test_one_that_dies_is_started_again_on_the_same_ports_and_stops_when_asked(fake: Fake) -> None:
    process = fake.process(
        "import json, os, signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: exit(0))\n"
        "print(json.dumps({'event': 'begun', 'port': os.environ['TIDEWIRE_REGISTRY_PORT']}))\n"
        "while True: time.sleep(60)\n"
    )
    await process.start()
    await when(lambda: len(fake.events()) == 1, "it began")
    process.mark_serving(4711, 4712)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    await when(lambda: len(fake.events()) == 2, "it began again")
    assert [event["port"] for event in fake.events()] == ["0", "4711"]
    assert process.restarts == 1
    process.request_stop()
    await process.wait_stopped()
    assert process.pid is None
    assert [event["event"] for event in fake.events("up")] == [
        "service died and is started again",
        "service stopped",
    ]
    assert not process.failure.done()


async def test_a_wrong_setting_is_not_tried_again_and_its_words_are_passed_on(fake: Fake) -> None:
    process = fake.process(
        "import sys\nsys.exit(print('TIDEWIRE_X: must be a number', file=sys.stderr) or 2)\n"
    )
    await process.start()
    with pytest.raises(
        FailedPrecondition, match=r"registry ended with status 2 .*TIDEWIRE_X: must be a number"
    ):
        await asyncio.wait_for(asyncio.shield(process.failure), 20)
    assert process.restarts == 0


async def test_one_that_never_serves_is_given_up_after_three_tries(fake: Fake) -> None:
    process = fake.process("raise SystemExit(1)\n")
    await process.start()
    with pytest.raises(FailedPrecondition, match="ended with status 1"):
        await asyncio.wait_for(asyncio.shield(process.failure), 20)
    assert process.restarts == 2


async def test_one_that_waits_for_its_next_start_can_be_stopped(fake: Fake) -> None:
    process = fake.process("raise SystemExit(1)\n")
    await process.start()
    process.mark_serving(1, 2)
    await when(lambda: process.restarts == 2, "it is tried again and again")
    await when(lambda: process.pid is None, "it waits")
    process.request_stop()
    await asyncio.wait_for(process.wait_stopped(), 10)


async def test_one_that_does_not_listen_is_killed(fake: Fake) -> None:
    process = fake.process(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('{}')\ntime.sleep(600)\n"
    )
    await process.start()
    await when(lambda: len(fake.events()) == 1, "it began")
    pid = process.pid
    assert pid is not None
    process.request_stop()
    process.kill()
    await process.wait_stopped()
    assert not alive(pid)


async def test_a_platform_kills_what_does_not_end_in_its_drain_time(fake: Fake, tmp_path: Path) -> None:
    environ = {
        **os.environ,
        "PYTHONPATH": str(tmp_path / "fakes"),
        "TIDEWIRE_DRAIN_SECONDS": "0.1",
    }
    stubborn = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('{}')\ntime.sleep(600)\n"
    )
    willing = "import time\nprint('{}')\ntime.sleep(600)\n"
    for service, program in (("registry", willing), ("ingestion", stubborn), ("storage", willing)):
        fake.program(service, program)
    platform = Platform(
        PlatformOptions(tmp_path),
        open_data_dir(tmp_path / "data"),
        load(CommonSettings, environ),
        environ,
        fake.sink,
    )
    for process in platform.processes:
        await process.start()
    await when(lambda: all(fake.events(service) for service in SERVICES), "all began")
    await platform.stop()
    assert [process.pid for process in platform.processes] == [None] * 3
    events = [(event["event"], event.get("process")) for event in fake.events("up")]
    assert events == [
        ("killed: did not end within the drain time", "up"),
        ("service stopped", "ingestion"),
        ("service stopped", "storage"),
        ("service stopped", "registry"),
        ("platform stopped", "up"),
    ]


async def test_it_is_in_a_session_of_its_own_so_that_ctrl_c_is_for_the_supervisor(fake: Fake) -> None:
    process = fake.process("import time\nprint('{}')\ntime.sleep(600)\n")
    await process.start()
    pid = process.pid
    assert pid is not None
    assert os.getsid(pid) == pid != os.getsid(0)
    process.kill()
    await process.wait_stopped()


async def test_lines_of_any_length_and_kind_do_not_stop_the_collecting(fake: Fake) -> None:
    process = fake.process(
        "import sys\n"
        "print('x' * 3_000_000)\n"
        "sys.stdout.buffer.write(b'\\xff\\xfe\\n')\n"
        "sys.stdout.flush()\n"
        'print(\'{"event": "last"}\')\n'
        "import time; time.sleep(600)\n"
    )
    await process.start()
    await when(lambda: any(event["event"] == "last" for event in fake.events()), "the last line is there")
    process.kill()
    await process.wait_stopped()
