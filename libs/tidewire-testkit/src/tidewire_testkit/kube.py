"""A real Kubernetes API server for tests: etcd and kube-apiserver alone, on free ports of loopback, with RBAC.

There are no nodes and no controllers: objects are kept, validated and authorised, and nothing acts on them. The
binaries are those of the cluster that tests/cluster brings up; `tests/cluster/build` makes them.
"""

import contextlib
import json
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tidewire_testkit.leash import start_leashed
from tidewire_testkit.polling import until_sync

START_SECONDS = 90.0


class KubeApi:
    """A running API server. `admin` is a kubeconfig that may do everything."""

    def __init__(self, home: Path, port: int) -> None:
        self._home = home
        self._tokens: dict[str, str] = {"admin": secrets.token_hex(16), "nobody": secrets.token_hex(16)}
        self.url = f"https://127.0.0.1:{port}"

    @property
    def admin(self) -> Path:
        """Kubeconfig of the cluster's administrator."""
        return self.kubeconfig("admin")

    @property
    def token_file(self) -> Path:
        """What kube-apiserver reads: the tokens of `admin` and of `nobody`, who starts without any right."""
        path = self._home / "tokens.csv"
        groups = {"admin": "system:masters", "nobody": "tests"}
        path.write_text(
            "".join(f'{token},{user},{user},"{groups[user]}"\n' for user, token in self._tokens.items())
        )
        return path

    def kubeconfig(self, user: str, namespace: str = "default", url: str = "") -> Path:
        """Writes and returns a kubeconfig of `admin` or `nobody`, with one context of the user's name."""
        path = self._home / f"{user}-{namespace}.kubeconfig"
        cluster = {
            "server": url or self.url,
            "certificate-authority": str(self._home / "certs/apiserver.crt"),
        }
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": user,
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": self._tokens[user]}}],
            "contexts": [
                {"name": user, "context": {"cluster": "tests", "user": user, "namespace": namespace}}
            ],
        }
        path.write_text(json.dumps(content))
        return path

    def client(self, user: str = "admin") -> Any:
        """A client of the library, as this user."""
        from kubernetes import config

        return config.new_client_from_config(str(self.kubeconfig(user)))


def binaries() -> Path:
    """The directory of etcd and kube-apiserver. Raises AssertionError saying how to make them."""
    cache = os.environ.get("TIDEWIRE_CLUSTER_CACHE") or Path.home() / ".cache" / "tidewire-cluster"
    found = Path(cache) / "bin"
    missing = [name for name in ("etcd", "kube-apiserver") if not (found / name).exists()]
    assert not missing, f"{', '.join(missing)} not in {found}; run tests/cluster/build"
    return found


@contextlib.contextmanager
def kube_api(home: Path) -> Iterator[KubeApi]:
    """Starts both below `home`, yields when the server is ready, and stops them; they do not outlive this process."""
    programs = binaries()
    (home / "certs").mkdir(parents=True)
    etcd, etcd_peers, port = _free_ports(3)
    api = KubeApi(home, port)
    key = ec.generate_private_key(ec.SECP256R1())
    (home / "accounts.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (home / "accounts.pub").write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    commands = {
        "etcd": [
            f"--data-dir={home / 'etcd'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls=http://127.0.0.1:{etcd}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{etcd_peers}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{etcd_peers}",
            f"--initial-cluster=default=http://127.0.0.1:{etcd_peers}",
        ],
        "kube-apiserver": [
            "--authorization-mode=RBAC",
            "--bind-address=127.0.0.1",
            f"--cert-dir={home / 'certs'}",
            f"--etcd-servers=http://127.0.0.1:{etcd}",
            f"--secure-port={port}",
            "--service-account-issuer=https://tests.invalid",
            f"--service-account-key-file={home / 'accounts.pub'}",
            f"--service-account-signing-key-file={home / 'accounts.key'}",
            "--service-cluster-ip-range=10.0.0.0/24",
            f"--token-auth-file={api.token_file}",
        ],
    }
    started: list[subprocess.Popen[bytes]] = []
    try:
        for name, options in commands.items():
            with (home / f"{name}.log").open("wb") as log:
                started.append(
                    start_leashed(
                        [str(programs / name), *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log
                    )
                )
        until_sync(
            lambda: _ready(api, started, home), seconds=START_SECONDS, message="the API server is ready"
        )
        yield api
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()


def _ready(api: KubeApi, started: list[subprocess.Popen[bytes]], home: Path) -> bool:
    for process, name in zip(started, ("etcd", "kube-apiserver"), strict=True):
        if process.poll() is not None:
            raise AssertionError(f"{name} ended: {(home / f'{name}.log').read_text()[-2000:]}")
    if not (home / "certs" / "apiserver.crt").exists():
        return False
    from kubernetes.client import ApiException, CoreV1Api, VersionApi
    from urllib3.exceptions import HTTPError

    client, nobody = api.client(), api.client("nobody")
    try:
        # The namespaces come a moment after the server answers, and the right of everybody to ask for its version.
        CoreV1Api(client).read_namespace("kube-system", _request_timeout=5)
        CoreV1Api(client).read_namespace("default", _request_timeout=5)
        VersionApi(nobody).get_code(_request_timeout=5)
    except (ApiException, HTTPError, OSError):
        return False
    finally:
        client.close()
        nobody.close()
    return True


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in found]
