"""The script that `helm test` runs, against real gRPC servers."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Sequence(health_pb2_grpc.HealthServicer):
    """Answers one status after the other, the last for ever."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = list(statuses)

    def Check(self, request: Any, context: Any) -> Any:
        status = self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]
        return health_pb2.HealthCheckResponse(status=status)


@pytest.fixture
def serve() -> Iterator[Callable[[Any], str]]:
    servers = []

    def start(servicer: Any) -> str:
        server = grpc.server(futures.ThreadPoolExecutor(2))
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(None).wait()


def run(objects: Any, *addresses: str, seconds: str = "60") -> subprocess.CompletedProcess[str]:
    script = (objects.chart / "files" / "health.py").read_text()
    environ = {"TIDEWIRE_INSECURE": "true", "HEALTH_SECONDS": seconds}
    command = [sys.executable, "-c", script, *addresses]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


def test_it_waits_until_every_service_serves(serve: Callable[[Any], str], objects: Any) -> None:
    ready = serve(health.HealthServicer())
    late = serve(Sequence(NOT_SERVING, SERVING))

    done = run(objects, ready, late)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{ready} SERVING", f"{late} NOT_SERVING", f"{late} SERVING"]


def test_it_fails_when_one_does_not(serve: Callable[[Any], str], objects: Any) -> None:
    address = serve(Sequence(NOT_SERVING))

    done = run(objects, address, seconds="1")

    assert done.returncode == 1
    assert set(done.stdout.splitlines()) == {f"{address} NOT_SERVING"}
