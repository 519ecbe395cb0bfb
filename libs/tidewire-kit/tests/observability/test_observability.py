"""Logs, the metrics page, and traces that are off."""

import asyncio
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog
from prometheus_client import CollectorRegistry, Counter

from tidewire_kit.errors import FailedPrecondition, InvalidArgument
from tidewire_kit.observability import logs, traces
from tidewire_kit.observability.http import MetricsServer


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def _lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_one_event_per_line_with_what_one_looks_for_first() -> None:
    stream = io.StringIO()
    logs.configure("toy", level="info", stream=stream)
    log = logs.get_logger("test")
    log.debug("unseen")
    with structlog.contextvars.bound_contextvars(tenant="acme"):
        log.warning("log_full", free_bytes=7, text="two\nlines")
    logging.getLogger("library").error("from %s", "elsewhere")
    first, second = _lines(stream)
    assert list(first)[:4] == ["time", "level", "service", "event"]
    assert first["event"] == "log_full"
    assert (first["tenant"], first["free_bytes"], first["service"]) == ("acme", 7, "toy")
    assert (second["event"], second["level"], second["service"]) == ("from elsewhere", "error", "toy")


def test_secrets_are_hidden_and_exceptions_are_on_the_line() -> None:
    stream = io.StringIO()
    logs.configure("toy", stream=stream)
    try:
        raise ValueError("inside")
    except ValueError as error:
        logs.get_logger("test").error("failed", authorization="Bearer x", service_token="y", exc_info=error)
    (line,) = _lines(stream)
    assert line["authorization"] == line["service_token"] == "[hidden]"
    assert "ValueError: inside" in str(line["exception"])


def test_text_for_a_terminal() -> None:
    stream = io.StringIO()
    logs.configure("toy", form="console", stream=stream)
    logs.get_logger("test").info("serving", address="127.0.0.1:7001")
    assert "serving" in stream.getvalue()
    assert "127.0.0.1:7001" in stream.getvalue()


async def _get(address: str, text: bytes) -> tuple[str, str]:
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(text)
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return head.partition("\r\n")[0], body


async def test_the_pages() -> None:
    registry = CollectorRegistry()
    Counter("tidewire_toy_things", "Things.", registry=registry).inc()
    failures: dict[str, str] = {}

    async def page() -> dict[str, str]:
        return failures

    server = MetricsServer(registry, {"/healthz": page})
    address = await server.start("127.0.0.1", 0, "TIDEWIRE_TOY_METRICS_PORT")
    try:
        status, body = await _get(address, b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert status == "HTTP/1.1 200 OK"
        assert "tidewire_toy_things_total 1.0" in body
        assert await _get(address, b"GET /healthz HTTP/1.0\r\n\r\n") == ("HTTP/1.1 200 OK", "{}\n")
        failures["log"] = "is full"
        status, body = await _get(address, b"GET /healthz HTTP/1.0\r\n\r\n")
        assert status.startswith("HTTP/1.1 503")
        assert json.loads(body) == {"log": "is full"}
        assert (await _get(address, b"GET / HTTP/1.0\r\n\r\n"))[0].startswith("HTTP/1.1 404")
        assert (await _get(address, b"POST /metrics HTTP/1.0\r\n\r\n"))[0].startswith("HTTP/1.1 405")
        for rubbish in (b"\r\n", b"\x00\xff\r\n\r\n", b"x" * 20_000 + b"\r\n\r\n"):
            await _get(address, rubbish)
        assert (await _get(address, b"HEAD /metrics HTTP/1.0\r\n\r\n")) == ("HTTP/1.1 200 OK", "")
        with pytest.raises(FailedPrecondition, match="TIDEWIRE_TOY_METRICS_PORT"):
            await MetricsServer(registry, {}).start(
                "127.0.0.1", int(address.split(":")[1]), "TIDEWIRE_TOY_METRICS_PORT"
            )
    finally:
        await server.close()


def test_traces_are_off_unless_asked_for() -> None:
    traces.configure("toy", {})()

    async def handle(request: object, context: object) -> None: ...

    assert traces.traced("s", "m", handle) is handle


def test_a_missing_exporter_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(InvalidArgument, match=r"tidewire-kit\[otel\]"):
        traces.configure("toy", {traces.ENDPOINT_VARIABLE: "http://127.0.0.1:4317"})


def test_nothing_of_opentelemetry_is_imported_while_it_is_off() -> None:
    code = (
        "import sys, tidewire_kit.service; print([name for name in sys.modules if 'opentelemetry' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
