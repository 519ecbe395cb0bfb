"""TLS by a certificate from a Secret, on both backends: by the Services' names, between services, over forwarded ports.

The certificate is made here: for the names of the Services, and for 127.0.0.1, where forwarded ports are.
"""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tidewire_testkit.certificates import Authority
from tidewire_testkit.pods import Client, KubernetesError, Namespace, until
from tidewire_testkit.servers.cassandra import DATACENTER, CassandraCluster
from tidewire_testkit.servers.kafka import KafkaCluster
from tidewire_testkit.workstation import Workstation

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600, func_only=True)]
TLS = ("--set", "tls.enabled=true,tls.existingSecret=certificate")


class Authorities:
    """Two of them: the one that signs for the platform, and another."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._own = Authority("own")
        self.files = {"ca": self._own.write(directory), "other": Authority("other").write(directory)}

    def secret(self, namespace: Namespace, hosts: list[str]) -> None:
        """Makes the Secret `certificate`, with a certificate for these Services of the namespace."""
        names = [f"{host}.{namespace.name}.svc" for host in hosts]
        certificate, key = self._own.issue(self._directory, "server", names=names)
        files = {"tls.crt": certificate, "tls.key": key, "ca.crt": self.files["ca"]}
        words = [f"--from-file={name}={path}" for name, path in files.items()]
        namespace.kubectl("create", "secret", "generic", "certificate", *words)


@pytest.fixture
def authorities(tmp_path: Path) -> Authorities:
    return Authorities(tmp_path)


def refusal(client: Client, **environ: str) -> str:
    """What the command says that asks the platform with these variables and gets no answer."""
    with pytest.raises(KubernetesError) as caught:
        client.tidewire(
            "tenant", "list", environ={f"TIDEWIRE_{name}": value for name, value in environ.items()}
        )
    return str(caught.value)


def check_refused(client: Client, registry: str) -> None:
    """Nobody is served by TLS who trusts another authority or none, and nobody without TLS."""
    cases = (
        ({"CA_FILE": "/files/other"}, "no known authority"),
        ({"CA_FILE": ""}, "no known authority"),
        ({"CA_FILE": "", "ENDPOINT": f"grpc://{registry}"}, f"as in grpcs://{registry}"),
    )

    def check_one(case: tuple[dict[str, str], str]) -> None:
        environ, told = case
        until(lambda: told in refusal(client, **environ), told, 120)

    with ThreadPoolExecutor(len(cases)) as threads:  # each waits until the command has given up
        list(threads.map(check_one, cases))


def check(namespace: Namespace, client: Client, workstation: Workstation) -> None:
    """Publishes and queries with the right authority, reads over forwarded ports, and lets Helm test the release."""
    client.tidewire("tenant", "create", "acme")
    until(lambda: client.publish("pump", 21.5) or True, "a reading is taken", 120)
    until(lambda: client.temperatures("pump")[-1:] == [21.5], "the reading is visible", 120)

    status = until(lambda: json.loads(workstation.tidewire("status", "-o", "json")), "the status", 120)
    assert {entry["service"] for entry in status["services"]} == {"registry", "ingestion", "storage"}
    until(lambda: workstation.temperatures("pump")[-1:] == [21.5], "the reading is seen from outside", 120)
    namespace.helm("test", "safe", "--timeout", "180s")


def test_the_services_talk_tls_to_clients_and_to_one_another(
    namespace: Namespace,
    chart: str,
    images: list[str],
    kafka: KafkaCluster,
    cassandra: CassandraCluster,
    authorities: Authorities,
    workstation: Workstation,
) -> None:
    """Ingestion asks the registry, and the registry storage, so that nothing would work without."""
    services = ("registry", "ingestion", "storage")
    authorities.secret(namespace, [f"safe-tidewire-{service}" for service in services])
    one: dict[str, Any] = {
        "replicas": 1,
        "autoscaling": {"enabled": False},
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
    }
    values = {
        "backend": "distributed",
        "kafka": {
            "bootstrapServers": kafka.bootstrap_servers,
            "topicPrefix": "safe.",
            "replicationFactor": 1,
            "minInsyncReplicas": 1,
            "partitions": 2,
        },
        "cassandra": {
            "contactPoints": cassandra.contact_points,
            "datacenter": DATACENTER,
            "keyspace": "safe",
            "replicationFactor": 1,
        },
        **dict.fromkeys(services, one),
    }
    path = workstation.home / "values.json"
    path.write_text(json.dumps(values))
    words = ("--values", str(path), "--wait", "--timeout", "240s")
    namespace.helm("install", "safe", chart, *images, *TLS, *words)
    secret = namespace.get("secret", "safe-tidewire-keys")
    token = base64.b64decode(secret["data"]["admin-token"]).decode().strip()
    registry = f"safe-tidewire-registry.{namespace.name}.svc:7001"
    client = namespace.client(registry, token, authorities.files)
    place = ("--kubernetes-context", namespace.cluster.context, "--namespace", namespace.name)
    trust = ("--ca-file", str(authorities.files["ca"]))
    workstation.tidewire("context", "create", "safe", *place, *trust, "--release", "safe")
    check(namespace, client, workstation)
    check_refused(client, registry)


def test_the_embedded_backend_serves_tls(
    namespace: Namespace,
    chart: str,
    images: list[str],
    authorities: Authorities,
    workstation: Workstation,
) -> None:
    """Its services reach one another by the name of the pod's Service, before the pod is ready."""
    authorities.secret(namespace, ["safe-tidewire"])
    namespace.helm("install", "safe", chart, *images, *TLS, "--wait", "--timeout", "180s")
    in_pod = ("exec", "safe-tidewire-0", "--")
    assert "all accounted for" in namespace.kubectl(*in_pod, "tidewire", "status")
    token = namespace.kubectl(*in_pod, "cat", "/data/keys/admin.token").strip()
    client = namespace.client(f"safe-tidewire.{namespace.name}.svc:7001", token, authorities.files)
    place = ("--kubernetes-context", namespace.cluster.context, "--namespace", namespace.name)
    trust = ("--ca-file", str(authorities.files["ca"]), "--token-stdin")
    workstation.tidewire("context", "create", "safe", *place, *trust, "--release", "safe", stdin=token)
    check(namespace, client, workstation)
