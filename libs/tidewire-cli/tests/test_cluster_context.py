"""Contexts that lead into a cluster: kept, and used by every command, with ports of this machine in between."""

import json
import socket
import threading

import pytest

from tidewire_cli.contexts import Context, KubernetesRelease, load_contexts, write_context
from tidewire_cli.kube import forward
from tidewire_cli.kube.admin_token import full_name
from tidewire_cli.kube.forward import SERVICES, Listener, place_of
from tidewire_client.errors import Unavailable

RELEASE = KubernetesRelease("prod", "plant", "tw")


def pod(ready: str = "True", component: str = "registry", ports: dict[str, int] | None = None, **metadata):
    return {
        "metadata": {"name": "p", "labels": {"app.kubernetes.io/component": component}, **metadata},
        "spec": {
            "containers": [
                {
                    "ports": [
                        {"name": name, "containerPort": port}
                        for name, port in (ports or {"grpc": 7001}).items()
                    ]
                }
            ]
        },
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


def test_a_pod_that_is_ready_is_found_with_its_port() -> None:
    assert place_of(pod(), "registry") == ("p", 7001)
    whole = {"registry": 7001, "m-registry": 7101, "storage": 7003}
    assert place_of(pod(component="platform", ports=whole), "storage") == ("p", 7003)
    assert place_of(pod(component="platform", ports=whole), "ingestion") is None
    assert place_of(pod(ready="False"), "registry") is None
    assert place_of(pod(deletionTimestamp="now"), "registry") is None


def test_names_are_the_chart_s() -> None:
    assert (full_name("tidewire"), full_name("my-tidewire"), full_name("tw")) == (
        "tidewire",
        "my-tidewire",
        "tw-tidewire",
    )


def test_contexts_keep_where_the_release_is(home) -> None:
    write_context("plant", Context(token="secret", kubernetes=RELEASE))
    write_context("here", Context("127.0.0.1:7001"))
    kept = load_contexts().contexts
    assert kept["plant"] == Context(token="secret", kubernetes=RELEASE)
    assert kept["here"] == Context("127.0.0.1:7001")
    assert kept["plant"].place == "prod/plant/tw"


class Echo:
    """The other end: says everything again in capitals."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def dial(self) -> socket.socket:
        near, far = socket.socketpair()

        def run() -> None:
            while data := far.recv(1024):
                far.sendall(data.upper())
            far.close()
            self.ended.set()

        threading.Thread(target=run).start()
        return near


def connected(listener: Listener) -> socket.socket:
    host, _, port = listener.address.partition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def test_a_listener_joins_connections_and_ends_them(capfd) -> None:
    echo = Echo()
    listener = Listener(echo.dial)
    with connected(listener) as one, connected(listener) as two:
        for client, text in ((one, b"one"), (two, b"two"), (one, b"again")):
            client.sendall(text)
            assert client.recv(100) == text.upper()
        listener.close()
        assert one.recv(100) == two.recv(100) == b""
    assert echo.ended.wait(10)

    def nobody() -> socket.socket:
        raise Unavailable("no pod of storage is ready")

    refused = Listener(nobody)
    with connected(refused) as client:
        assert client.recv(100) == b""
    refused.close()
    assert "no pod of storage is ready" in capfd.readouterr().err


@pytest.fixture
def in_cluster(platform, monkeypatch):
    """Forwards that lead to the tests' own platform instead of pods."""
    opened: list[KubernetesRelease] = []
    host, _, port = platform.endpoint.partition(":")

    class Forwards(forward.Forwards):
        def __init__(self, release: KubernetesRelease) -> None:
            opened.append(release)
            self._listeners = []
            self._cluster = self

        def _pod(self, service: str) -> tuple[str, int]:
            return "pod", int(port)

        def _dial(self, service: str) -> socket.socket:
            return socket.create_connection((host, int(port)))

        def close(self) -> None:
            for listener in self._listeners:
                listener.close()

    monkeypatch.setattr(forward, "Forwards", Forwards)
    write_context("plant", Context(token="header.e30.signature", tenant="demo", kubernetes=RELEASE))
    return opened


def test_every_command_goes_through_the_forwards(home, in_cluster, tidewire) -> None:
    done = tidewire("device", "list", "--context", "plant")
    assert done.exit_code == 0, done.output
    assert in_cluster == [RELEASE]
    (line,) = (
        one for one in json.loads(tidewire("context", "list", "-o", "json").stdout) if one["name"] == "plant"
    )
    assert line["endpoint"] == "prod/plant/tw"


def test_a_context_made_of_another_one_leads_into_the_same_cluster(home, in_cluster, tidewire) -> None:
    made = tidewire("token", "create", "ops", "--save-context", "ops", "--context", "plant")
    assert made.exit_code == 0, made.output
    assert load_contexts().contexts["ops"].kubernetes == RELEASE
    assert load_contexts().contexts["ops"].endpoint == ""


def test_an_endpoint_goes_not_with_a_cluster(tidewire) -> None:
    done = tidewire("context", "create", "x", "--release", "tw", "--endpoint", "127.0.0.1:1")
    assert done.exit_code == 2
    assert "--endpoint" in done.stderr
    assert SERVICES == ("registry", "ingestion", "storage")
