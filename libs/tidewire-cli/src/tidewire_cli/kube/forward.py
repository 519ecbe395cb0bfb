"""Ports of this machine that lead to the pods of a release, so that every command works against a cluster.

One listener on loopback per service. Each connection to it gets a forward of its own to a pod that is ready then, so a
pod that goes takes only its connections with it, and the next ones find another. Threads, as the client library blocks;
they end with the connections or the process.
"""

import contextlib
import random
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from tidewire_cli.contexts import KubernetesRelease
from tidewire_cli.kube.cluster import SECONDS, ask, asking, connect
from tidewire_cli.kube.releases import unknown_release
from tidewire_client.errors import TidewireError, Unavailable

SERVICES: Final = ("registry", "ingestion", "storage")
_CHUNK_BYTES: Final = 1 << 16
_PROXY_THREAD: Final = "Kubernetes port forward proxy"
_LIBRARY = threading.Lock()
"""The library exchanges a method of the client while it opens a forward."""

Dial = Callable[[], socket.socket]
"""Opens a connection to the other end. Raises TidewireError."""


class Forwards:
    """The open ports of a release's services. Close it."""

    def __init__(self, release: KubernetesRelease) -> None:
        self._cluster = connect(release.context, release.namespace)
        self._release = release.release
        self._listeners: list[Listener] = []

    def open(self) -> Mapping[str, str]:
        """Returns service → `127.0.0.1:port`. Blocks.

        Raises NotFound when there is no such release, Unavailable when a service of it has no pod that is ready.
        """
        # Importing takes seconds on a busy machine, which the first connection does not have.
        from kubernetes.client import CoreV1Api  # noqa: F401
        from kubernetes.stream import portforward  # noqa: F401

        threading.excepthook = _quiet
        addresses = {}
        for service in SERVICES:
            self._pod(service)  # said now and not at the first call
            listener = Listener(lambda service=service: self._dial(service))  # type: ignore[misc]
            self._listeners.append(listener)
            addresses[service] = listener.address
        return addresses

    def close(self) -> None:
        """Ends all of them. Idempotent."""
        for listener in self._listeners:
            listener.close()
        self._cluster.close()
        # The hook stays: the library's threads may end a moment later.

    def _pod(self, service: str) -> tuple[str, int]:
        """A ready pod of a service, and its port."""
        labels = (
            f"app.kubernetes.io/instance={self._release},app.kubernetes.io/component in ({service},platform)"
        )
        selector = labels.replace("=", "%3D").replace(" ", "%20").replace(",", "%2C")
        path = f"/api/v1/namespaces/{self._cluster.namespace}/pods?labelSelector={selector}"
        pods = ask(self._cluster, path)["items"]
        found = [place for pod in pods if (place := place_of(pod, service))]
        if not pods and (unknown := unknown_release(self._cluster, self._release)) is not None:
            raise unknown
        if not found:
            raise Unavailable(
                f"no pod of {service} is ready in the release {self._release} (namespace "
                f"{self._cluster.namespace}); look with `tidewire k8s check --release {self._release}`",
                reason="SERVICE_NOT_RUNNING",
            )
        return random.choice(found)

    def _dial(self, service: str) -> socket.socket:
        from kubernetes.client import CoreV1Api
        from kubernetes.stream import portforward

        pod, port = self._pod(service)
        with _LIBRARY, asking(self._cluster, f"port-forward to pod {pod}"):
            forward = portforward(
                CoreV1Api(self._cluster.api).connect_get_namespaced_pod_portforward,
                pod,
                self._cluster.namespace,
                ports=str(port),
                _request_timeout=SECONDS,
            )
        opened: socket.socket = forward.socket(port)
        opened.setblocking(True)
        return opened


def _quiet(failure: threading.ExceptHookArgs) -> None:
    """Says nothing of the library's threads: each serves one connection, and fails when that is broken off."""
    if failure.thread is None or not failure.thread.name.startswith(_PROXY_THREAD):
        threading.__excepthook__(failure)


def place_of(pod: Mapping[str, Any], service: str) -> tuple[str, int] | None:
    """The pod's name and its gRPC port of a service; None when it is not ready, or does not have it."""
    conditions = pod["status"].get("conditions", ())
    if pod["metadata"].get("deletionTimestamp") or not any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions
    ):
        return None
    whole = pod["metadata"]["labels"].get("app.kubernetes.io/component") == "platform"
    wanted = service if whole else "grpc"
    for container in pod["spec"]["containers"]:
        for port in container.get("ports", ()):
            if port.get("name") == wanted:
                return str(pod["metadata"]["name"]), int(port["containerPort"])
    return None


class Listener:
    """A port of loopback, each connection to which is joined with one that `dial` opens."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, name="forward", daemon=True).start()

    def close(self) -> None:
        """Listens no more and ends its connections. Idempotent."""
        for one in (self._socket, *self._open):
            _end(one)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._socket.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._join, args=(near,), name="forward", daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        try:
            far = self._dial()
        except TidewireError as error:
            print(f"Warning: {error}", file=sys.stderr)
            _end(near)
            return
        self._open |= {near, far}
        back = threading.Thread(target=_copy, args=(far, near), name="forward", daemon=True)
        back.start()
        _copy(near, far)
        back.join()
        self._open -= {near, far}


def _copy(source: Any, target: Any) -> None:
    """Copies until one of them ends, then ends both: a connection of gRPC is of no use one way."""
    with contextlib.suppress(OSError, ValueError):
        while data := source.recv(_CHUNK_BYTES):
            target.sendall(data)
    _end(source)
    _end(target)


def _end(one: Any) -> None:
    # Shut down first: closing alone does not wake a thread that waits for data.
    with contextlib.suppress(OSError, ValueError):
        one.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError, ValueError):
        one.close()
