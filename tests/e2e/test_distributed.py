"""Services over a Kafka and a Cassandra outside the cluster: what the embedded backend does, load, upgrades, network.

The tests share one release, in the order in which they stand here; each leaves it as it found it.
"""

import base64
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tidewire_testkit.pods import Client, Namespace, until
from tidewire_testkit.servers.cassandra import DATACENTER, CassandraCluster
from tidewire_testkit.servers.kafka import KafkaCluster
from tidewire_testkit.workstation import Workstation

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600, func_only=True)]
SERVICES = ("registry", "ingestion", "storage")
RELEASE = "two"
REGISTRY = f"{RELEASE}-tidewire-registry"
ONE_POD: dict[str, Any] = {"replicas": 1, "autoscaling": {"enabled": False}}
SMALL = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}


def values(kafka: KafkaCluster, cassandra: CassandraCluster) -> dict[str, Any]:
    """The chart's values: small pods, connections that end after ten seconds."""
    return {
        "backend": "distributed",
        "settings": {"TIDEWIRE_MAX_CONNECTION_AGE_SECONDS": "10"},
        "kafka": {
            "bootstrapServers": kafka.bootstrap_servers,
            "replicationFactor": 1,
            "minInsyncReplicas": 1,
            "partitions": 4,
        },
        "cassandra": {
            "contactPoints": cassandra.contact_points,
            "datacenter": DATACENTER,
            "replicationFactor": 1,
        },
        "networkPolicy": {"monitoring": {"peers": [{"podSelector": {"matchLabels": {"app": "client"}}}]}},
        "registry": {**ONE_POD, "resources": SMALL},
        "ingestion": {**ONE_POD, "resources": SMALL},
        "storage": {**ONE_POD, "resources": SMALL},
    }


class Release:
    """The release of this module, with a client pod beside it."""

    def __init__(self, namespace: Namespace, chart: str, images: list[str], values: dict[str, Any]) -> None:
        self.namespace = namespace
        self.values = values
        self._words = [chart, *images]

    def upgrade(self, **changes: dict[str, Any]) -> None:
        """Installs or upgrades, waiting until all is ready. `changes`: block of values → what goes over the usual."""
        news = {name: {**self.values.get(name, {}), **new} for name, new in changes.items()}
        changed = {**self.values, **news}
        path = Path(f"/tmp/tidewire-e2e-{self.namespace.name}.json")
        path.write_text(json.dumps(changed))
        words = ["--values", str(path), "--wait", "--timeout", "240s"]
        try:
            self.namespace.helm("upgrade", "--install", RELEASE, *self._words, *words)
        finally:
            path.unlink()

    def start_client(self) -> Client:
        """The client, with the administrator's token from the keys' Secret."""
        secret = self.namespace.get("secret", f"{RELEASE}-tidewire-keys")
        token = base64.b64decode(secret["data"]["admin-token"]).decode().strip()
        return self.namespace.client(f"{REGISTRY}:7001", token)

    def accepted(self, client: Client) -> dict[str, float]:
        """Pod of ingestion → readings accepted since it started, read from its metrics page."""
        found = {}
        for pod in self.namespace.ready_pods("ingestion"):
            page = client.python(_GET, f"http://{pod['status']['podIP']}:7102/metrics")
            counts = re.findall(
                r"^tidewire_ingestion_accepted_readings_total\{.*\} (\S+)$", page, re.MULTILINE
            )
            found[pod["metadata"]["name"]] = sum(map(float, counts))
        return found


_GET = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read().decode())"


@pytest.fixture(scope="module")
def release(
    module_namespace: Namespace,
    chart: str,
    images: list[str],
    kafka: KafkaCluster,
    cassandra: CassandraCluster,
) -> Release:
    """The installed release."""
    found = Release(module_namespace, chart, images, values(kafka, cassandra))
    found.upgrade()
    return found


@pytest.fixture(scope="module")
def client(release: Release) -> Client:
    """A client with a tenant."""
    found = release.start_client()
    found.tidewire("tenant", "create", "acme")
    return found


def test_what_was_published_outlives_every_pod(release: Release, client: Client) -> None:
    client.publish("pump", 21.5)
    until(lambda: client.temperatures("pump") == [21.5], "the reading is visible", 60)
    release.namespace.helm("test", RELEASE, "--timeout", "180s")
    for service in SERVICES:
        (pod,) = release.namespace.ready_pods(service)
        release.namespace.kubectl("delete", "pod", pod["metadata"]["name"], "--wait")
        until(lambda service=service: release.namespace.ready_pods(service), f"{service} is back", 90)

    until(lambda: client.temperatures("pump") == [21.5], "the reading is visible again", 60)
    until(lambda: client.publish("pump", 22.5) or True, "a reading is taken", 60)
    until(lambda: client.temperatures("pump")[-1] == 22.5, "the second reading is visible", 60)


def test_a_context_leads_into_the_cluster_by_forwarded_ports(
    release: Release, client: Client, workstation: Workstation
) -> None:
    """Everything on this machine: no token, address or certificate is given, only the release's name."""
    namespace = release.namespace
    place = ("--kubernetes-context", namespace.cluster.context, "--namespace", namespace.name)
    workstation.tidewire("context", "create", "plant", *place, "--release", RELEASE)
    status = until(lambda: json.loads(workstation.tidewire("status", "-o", "json")), "the status", 120)
    words = ("publish", "valve", "temperature=4.5", "--create", "--tenant", "acme")
    until(lambda: workstation.tidewire(*words), "a reading is taken", 120)
    until(lambda: workstation.temperatures("valve")[-1:] == [4.5], "the reading is visible", 120)

    assert {(entry["service"], entry["status"]) for entry in status["services"]} == {
        (service, "SERVING") for service in SERVICES
    }
    assert set(client.temperatures("valve")) == {4.5}, "what came by forwarded ports is not there for others"


def test_a_context_of_a_release_that_is_not_there_says_so(release: Release, workstation: Workstation) -> None:
    namespace = release.namespace
    place = ("--kubernetes-context", namespace.cluster.context, "--namespace", namespace.name)
    unknown = workstation.run("context", "create", "plant", *place, "--release", "three")
    given = workstation.run(
        "context", "create", "plant", *place, "--release", "three", "--token-stdin", stdin="t"
    )
    late = workstation.run("status", "--context", "plant")

    assert given.returncode == 0, given.stderr
    for done in (unknown, late):
        assert done.returncode == 2, done.stderr
        assert f"no release three of Tidewire in the namespace {namespace.name}" in done.stderr
        assert f"there is {RELEASE};" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.fixture
def scaled(release: Release) -> Iterator[Release]:
    """Ingestion by the autoscaler, from one pod to two; half a minute of calm brings it back to one."""
    policy = [{"type": "Pods", "value": 2, "periodSeconds": 15}]
    autoscaling = {
        "enabled": True,
        "minReplicas": 1,
        "maxReplicas": 2,
        "behavior": {
            "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": policy},
            "scaleDown": {"stabilizationWindowSeconds": 30, "selectPolicy": "Max", "policies": policy},
        },
    }
    release.upgrade(ingestion={"autoscaling": autoscaling})
    yield release
    release.upgrade()


def test_load_brings_pods_that_take_their_share_and_calm_takes_them_away(
    scaled: Release, client: Client
) -> None:
    """Six pods of load, 3,000 readings/s each for at most 200 s."""
    namespace = scaled.namespace
    (first,) = namespace.ready_pods("ingestion")
    secrets = {"TIDEWIRE_TOKEN": ("client", "token")}
    environ = {"TIDEWIRE_ENDPOINT": f"grpc://{REGISTRY}:7001"}
    for number in range(6):
        words = ["--prefix", f"fleet{number}", "--devices", "50", "--rate", "1500", "--duration", "200s"]
        args = ["simulate", "--tenant", "acme", *words]
        namespace.pod(f"load-{number}", "tidewire", (), args, environ=environ, secrets=secrets)

    until(lambda: len(namespace.ready_pods("ingestion")) == 2, "a second pod is ready", 120)
    ready = time.monotonic()
    seen = [(ready, scaled.accepted(client))]
    (second,) = set(seen[0][1]) - {first["metadata"]["name"]}

    def share() -> float | None:
        """Of what was accepted in the last ten seconds or a little more."""
        seen.append((time.monotonic(), scaled.accepted(client)))
        while seen[-1][0] - seen[1][0] >= 10:
            seen.pop(0)
        (then, before), (now, after) = seen[0], seen[-1]
        gained = {name: after[name] - before[name] for name in before}
        part = gained[second] / max(sum(gained.values()), 1.0)
        return part if now - then >= 10 and part >= 0.3 else None

    part = until(share, "the new pod takes 30 % of the accepted readings", 60)
    print(f"\n{time.monotonic() - ready:.0f} s after it was ready the new pod takes {part:.0%}")

    namespace.kubectl("delete", "pods", *(f"load-{number}" for number in range(6)), "--wait=false")
    until(lambda: len(namespace.pods("ingestion")) == 1, "one pod is left", 180)


def test_an_upgrade_and_its_undoing_lose_nothing(release: Release, client: Client, next_tag: str) -> None:
    """Every service gets another image and its old one again; publishers keep a ledger and retry as devices do."""
    namespace = release.namespace
    namespace.pod(
        "ledger",
        "testkit",
        args=["ledger", "rolled", "500"],
        environ={"TIDEWIRE_ENDPOINT": f"grpc://{REGISTRY}:7001"},
        secrets={"TIDEWIRE_TOKEN": ("client", "token")},
    )
    until(lambda: "publishing" in namespace.kubectl("logs", "ledger"), "the ledger's load runs", 90)
    before = _pods(namespace)

    old = _images(namespace)

    release.upgrade(image={"tag": next_tag})
    upgraded, new = _pods(namespace), _images(namespace)
    namespace.helm("rollback", RELEASE, "--wait", "--timeout", "240s")
    undone = _pods(namespace)

    for earlier, later in ((before, upgraded), (upgraded, undone)):
        assert all(not earlier[service] & later[service] for service in SERVICES), "a pod was not replaced"
    for service in SERVICES:
        assert {name.rpartition(":")[2] for name, _ in new[service]} == {next_tag}
        assert not {made for _, made in old[service]} & {made for _, made in new[service]}, "the same image"
    assert _images(namespace) == old
    namespace.kubectl("exec", "ledger", "--", "touch", "/tmp/stop")
    until(lambda: _phase(namespace, "ledger") in {"Succeeded", "Failed"}, "the ledger is checked", 120)
    log = namespace.kubectl("logs", "ledger")
    assert _phase(namespace, "ledger") == "Succeeded", log[-3000:]
    result = json.loads(log.splitlines()[-1])
    print(f"\n{result}")
    assert result["violations"] == []
    assert result["acknowledged"] > 1000


def _pods(namespace: Namespace) -> dict[str, set[str]]:
    return {
        service: {pod["metadata"]["uid"] for pod in namespace.ready_pods(service)} for service in SERVICES
    }


def _images(namespace: Namespace) -> dict[str, set[tuple[str, str]]]:
    """Service → (reference, digest) of what its ready containers run."""
    return {
        service: {
            (str(container["image"]), str(container["imageID"]))
            for pod in namespace.ready_pods(service)
            for container in pod["status"]["containerStatuses"]
        }
        for service in SERVICES
    }


def _phase(namespace: Namespace, pod: str) -> str:
    return str(namespace.get("pod", pod)["status"]["phase"])


_REACH = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def reach(target):
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except OSError:
        return False
    return True
with ThreadPoolExecutor(32) as threads:
    print(json.dumps(dict(zip(sys.argv[1:], threads.map(reach, sys.argv[1:])))))
"""


def _reached(namespace: Namespace, pod: str, targets: dict[str, str]) -> set[str]:
    """Names of the targets to which the pod can connect."""
    command = ("exec", pod, "--", "/app/bin/python", "-c", _REACH, *targets.values())
    found = json.loads(namespace.kubectl(*command))
    return {name for name, target in targets.items() if found[target]}


def test_network_policies_allow_what_is_named_and_nothing_else(
    release: Release,
    client: Client,
    namespace: Namespace,
    kafka: KafkaCluster,
    cassandra: CassandraCluster,
) -> None:
    own = release.namespace
    targets = {"kafka": kafka.bootstrap_servers, "cassandra": cassandra.contact_points}
    targets["api"] = f"{kafka.addresses[0]}:6443"
    pods = {service: own.ready_pods(service)[0] for service in SERVICES}
    for number, (service, pod) in enumerate(pods.items(), 1):
        address = pod["status"]["podIP"]
        targets |= {service: f"{address}:{7000 + number}", f"{service} metrics": f"{address}:{7100 + number}"}
    pause = ["/app/bin/python", "-c", "import signal; signal.pause()"]
    own.pod("neighbour", "tidewire", pause)
    namespace.pod("stranger", "tidewire", pause)
    own.kubectl("wait", "--for=condition=Ready", "pod/neighbour", "--timeout=60s")
    namespace.kubectl("wait", "--for=condition=Ready", "pod/stranger", "--timeout=60s")

    metrics = {f"{service} metrics" for service in SERVICES}
    servers = {"kafka", "cassandra", "api"}
    # The node's own servers are open to pods without a policy.
    assert _reached(own, "client", targets) == {*SERVICES, *metrics, *servers}
    assert _reached(own, "neighbour", targets) == {*SERVICES, *servers}
    assert _reached(namespace, "stranger", targets) == servers
    calls = {
        "registry": {"storage", "kafka", "cassandra"},
        "ingestion": {"registry", "kafka"},
        "storage": {"kafka", "cassandra"},
    }
    for service, allowed in calls.items():
        name = pods[service]["metadata"]["name"]
        itself = {service, f"{service} metrics"}  # a pod always reaches itself
        assert _reached(own, name, targets) - itself == allowed, service


def test_what_is_uninstalled_leaves_its_keys_and_nothing_else(release: Release, client: Client) -> None:
    namespace = release.namespace
    namespace.helm("uninstall", RELEASE, "--wait", "--timeout", "120s")
    instance = ("--selector", f"app.kubernetes.io/instance={RELEASE}")
    until(lambda: not namespace.get("pods", *instance)["items"], "no pod is left", 60)

    # Without them nobody could use the topics and tables that are still there.
    assert namespace.left_of(RELEASE) == [f"secret/{RELEASE}-tidewire-keys"]
