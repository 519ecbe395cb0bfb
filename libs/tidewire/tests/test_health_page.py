"""What the one page of `tidewire up` says of its services, with programs in the services' places."""

import asyncio
import json
import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tidewire_kit.datadir import open_data_dir
from tidewire_kit.endpoints import Endpoint
from tidewire_kit.settings import CommonSettings
from tidewire_platform.health import HealthPage
from tidewire_platform.logs import LogSink
from tidewire_platform.platform import Platform
from tidewire_platform.specs import SERVICES, PlatformOptions
from tidewire_testkit.whole.platform import until

PROGRAM = """
import http.server, json, os, pathlib, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        file = pathlib.Path(os.environ["FAILURES"]) / ("%s" + self.path.replace("/", "."))
        body = file.read_bytes() if file.exists() else b"{}"
        self.send_response(503 if file.exists() else 200)
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

server = http.server.HTTPServer(("127.0.0.1", int(os.environ["TIDEWIRE_%s_METRICS_PORT"])), Pages)
print(json.dumps({"event": "serving"}), flush=True)
server.serve_forever()
"""


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Up:
    def __init__(self, page: HealthPage, address: str, platform: Platform, failures: Path) -> None:
        self.page, self.platform, self._address, self._failures = page, platform, address, failures

    def fail(self, service: str, path: str, failures: dict[str, str]) -> None:
        (self._failures / f"{service}.{path}").write_text(json.dumps(failures))

    async def ask(self, path: str) -> tuple[int, dict[str, str]]:
        return await asyncio.to_thread(self._get, path)

    def _get(self, path: str) -> tuple[int, dict[str, str]]:
        try:
            with urllib.request.urlopen(f"http://{self._address}{path}", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    async def until_said(self, path: str, status: int) -> dict[str, str]:
        said: dict[str, str] = {}

        async def looked() -> bool:
            nonlocal said
            found, said = await self.ask(path)
            return found == status

        await until(looked, f"{path} says {status}")
        return said


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Up]:
    sink, failures = LogSink(tmp_path / "logs", None), tmp_path / "failures"
    failures.mkdir()
    for service in SERVICES:
        package = tmp_path / "fakes" / f"tidewire_{service}"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(PROGRAM % (service, service.upper()))
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "fakes"), "FAILURES": str(failures)}
    ports = {service: (0, _free_port()) for service in SERVICES}
    options = PlatformOptions(data_dir=tmp_path / "data", ports=ports)
    platform = Platform(options, open_data_dir(options.data_dir), CommonSettings(), environ, sink)
    page = HealthPage()
    made = Up(page, await page.start("127.0.0.1", 0), platform, failures)
    try:
        await asyncio.gather(*(process.start() for process in platform.processes))
        for process in platform.processes:
            address = f"127.0.0.1:{ports[process.spec.service][1]}"
            platform.endpoints[process.spec.name] = Endpoint("127.0.0.1:0", address, 0)
        yield made
    finally:
        await platform.stop()
        await page.close()
        sink.close()


async def test_it_starts_is_ready_and_stops(up: Up) -> None:
    assert [(await up.ask(path))[0] for path in ("/startupz", "/readyz", "/livez")] == [503, 503, 200]
    up.page.serving(up.platform)
    await up.until_said("/readyz", 200)
    assert [(await up.ask(path))[0] for path in ("/startupz", "/readyz", "/livez")] == [200, 200, 200]
    up.page.stopping()
    assert await up.ask("/readyz") == (503, {"drain": "stopping"})
    assert [(await up.ask(path))[0] for path in ("/startupz", "/livez")] == [200, 200]


async def test_a_service_that_is_not_ready_is_named_and_nothing_is_restarted_for_it(up: Up) -> None:
    up.page.serving(up.platform)
    await up.until_said("/readyz", 200)
    up.fail("storage", "readyz", {"log": "the disk is full"})
    assert await up.ask("/readyz") == (503, {"storage/log": "the disk is full"})
    assert await up.ask("/livez") == (200, {})


async def test_a_service_that_cannot_go_on_is_dead(up: Up) -> None:
    up.page.serving(up.platform)
    await up.until_said("/readyz", 200)
    up.fail("ingestion", "livez", {"log": "the thread 'log-meta' ended"})
    assert await up.ask("/livez") == (503, {"ingestion/log": "the thread 'log-meta' ended"})


async def test_a_service_that_hangs_is_dead_and_one_that_died_is_only_started_again(
    up: Up, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidewire_platform.health.SECONDS", 1.0)
    up.page.serving(up.platform)
    await up.until_said("/readyz", 200)
    assert await up.ask("/livez") == (200, {})
    registry = next(process for process in up.platform.processes if process.spec.service == "registry")
    assert registry.pid is not None
    os.kill(registry.pid, signal.SIGSTOP)
    assert (await up.ask("/livez"))[0] == 503
    os.kill(registry.pid, signal.SIGKILL)
    await up.until_said("/livez", 200)
    await up.until_said("/readyz", 200)
    assert registry.restarts == 1


async def test_a_refused_connection_is_no_sign_of_a_hanging_loop(up: Up) -> None:
    up.page.serving(up.platform)
    await up.until_said("/readyz", 200)
    assert await up.ask("/livez") == (200, {})
    # As between a process's end and its keeper's notice of it.
    up.platform.endpoints["registry"] = Endpoint("127.0.0.1:0", f"127.0.0.1:{_free_port()}", 0)
    assert await up.ask("/livez") == (200, {})
    assert await up.ask("/readyz") == (503, {"registry": "does not answer"})
