"""A cluster to test on, our images in it, and what is collected when a test fails.

E2E_KUBECONFIG names a kubeconfig; its current context must be one that this file knows by its name as a cluster for
tests, or be named by E2E_CONTEXT, so that nobody tests on a cluster by mistake. Without it the cluster of tests/cluster
is brought up, and taken down again unless it ran before. E2E_REGISTRY: where the cluster finds the images instead of
being given them (`make images` and a push go before, of the tag NEXT_TAG too).
"""

import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidewire_testkit.pods import Cluster, Namespace
from tidewire_testkit.servers.cassandra import CassandraCluster
from tidewire_testkit.servers.kafka import KafkaCluster
from tidewire_testkit.workstation import Workstation

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "tests" / "cluster"
CHART = ROOT / "charts" / "tidewire"
TEST_CONTEXTS = re.compile(r"kind-.+|k3d-.+|minikube|tidewire")
NODE_ADDRESS = "10.244.0.1"
"""Of our own cluster's node, where its pods reach what else runs on this machine."""
IMAGES = ("registry", "ingestion", "storage", "tidewire", "testkit")
SERVED = IMAGES[:-1]
VERSION = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]  # type: ignore[index]

NEXT_TAG = f"{VERSION}-next"
"""Of the images to which a release is upgraded: other images of the same tree."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Keeps how a test ended, for the fixtures that outlive its call."""
    report = yield
    if report.when == "call":  # type: ignore[attr-defined]
        item.stash[FAILED] = report.failed  # type: ignore[attr-defined]
    return report


FAILED: pytest.StashKey[bool] = pytest.StashKey()


def chosen_context(kubeconfig: Path) -> str:
    """The current context of a kubeconfig, when tests may use it; otherwise the run ends."""
    words = ["kubectl", "--kubeconfig", str(kubeconfig), "config", "current-context"]
    environ = os.environ | {"PATH": f"{os.environ['PATH']}:{tools()}"}
    context = subprocess.run(words, env=environ, capture_output=True, text=True, check=True).stdout.strip()
    if context != os.environ.get("E2E_CONTEXT") and not TEST_CONTEXTS.fullmatch(context):
        pytest.exit(
            f"will not test on {context!r}: it is not known as a cluster for tests. If it is one, set "
            f"E2E_CONTEXT={context}",
            returncode=2,
        )
    return context


def serves() -> bool:
    """Whether our own cluster runs already."""
    state = os.environ.get("TIDEWIRE_CLUSTER_STATE", "/var/lib/tidewire-cluster")
    look = ["kubectl", "--kubeconfig", f"{state}/admin.kubeconfig", "get", "--raw", "/readyz"]
    environ = os.environ | {"PATH": f"{tools()}:{os.environ['PATH']}"}
    return subprocess.run(look, env=environ, capture_output=True, timeout=60, check=False).returncode == 0


def tools() -> Path:
    """Where the cluster's recipe puts kubectl and helm."""
    cache = os.environ.get("TIDEWIRE_CLUSTER_CACHE") or Path.home() / ".cache" / "tidewire-cluster"
    return Path(cache) / "bin"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster, with the images of this tree in it."""
    given = os.environ.get("E2E_KUBECONFIG")
    started = False
    if given:
        kubeconfig = Path(given)
    else:
        lock = os.open("/run/lock/tidewire-e2e", os.O_CREAT | os.O_RDWR)  # given up when the session ends
        fcntl.flock(
            lock, fcntl.LOCK_EX
        )  # there is one such cluster a machine, and the tests have it to themselves
        subprocess.run([RECIPE / "build"], check=True)
        started = not serves()
        up = subprocess.run([RECIPE / "up"], stdout=subprocess.PIPE, text=True, check=True)
        kubeconfig = Path(up.stdout.strip())
    # What a user has is preferred with a cluster of theirs, which may need a version or a plugin of its own.
    found = Cluster(kubeconfig, chosen_context(kubeconfig), None if given else tools())
    try:
        if "E2E_REGISTRY" not in os.environ:
            images = [sys.executable, str(ROOT / "scripts" / "images.py")]
            subprocess.run([*images, "build", *IMAGES], check=True)
            found.run(*images, "load", *IMAGES, seconds=300)
        yield found
    finally:
        if started and "E2E_KEEP" not in os.environ:
            subprocess.run([RECIPE / "down"], check=True)


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """A namespace of the test's own."""
    yield from _namespace(cluster, request, request.node.name)


@pytest.fixture(scope="module")
def module_namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """A namespace that the tests of a module share."""
    yield from _namespace(cluster, request, Path(request.node.name).stem)


def _namespace(cluster: Cluster, request: pytest.FixtureRequest, name: str) -> Iterator[Namespace]:
    short = re.sub(r"[^a-z0-9]+", "-", name.lower()).removeprefix("test-")[:40].strip("-")
    registry = os.environ.get("E2E_REGISTRY", "localhost")
    found = Namespace(cluster, f"e2e-{short}", registry, VERSION)
    found.create()
    yield found
    items = request.session.items if request.scope == "module" else [request.node]
    if any(item.stash.get(FAILED, False) for item in items):
        found.collect(ROOT / "build" / "e2e" / found.name)
    if "E2E_KEEP" not in os.environ:
        found.delete()


@pytest.fixture(scope="session")
def kafka(cluster: Cluster) -> Iterator[KafkaCluster]:
    """A broker on the node's address; on another cluster E2E_NODE_ADDRESS, where its pods reach this machine."""
    with KafkaCluster(address=os.environ.get("E2E_NODE_ADDRESS", NODE_ADDRESS)) as servers:
        yield servers


@pytest.fixture(scope="session")
def cassandra(cluster: Cluster) -> Iterator[CassandraCluster]:
    """A node of Cassandra there."""
    with CassandraCluster(address=os.environ.get("E2E_NODE_ADDRESS", NODE_ADDRESS)) as servers:
        yield servers


@pytest.fixture(scope="session")
def images() -> list[str]:
    """Helm's options that name the images of this run."""
    return ["--set", f"image.registry={os.environ.get('E2E_REGISTRY', 'localhost')}"]


@pytest.fixture(scope="session")
def next_tag(cluster: Cluster) -> str:
    """The tag of another version of the images, which the cluster has too."""
    if "E2E_REGISTRY" not in os.environ:
        words = [sys.executable, str(ROOT / "scripts" / "images.py")]
        cluster.run(*words, "relabel", "--tag", NEXT_TAG, *SERVED, seconds=300)
        cluster.run(*words, "load", "--tag", NEXT_TAG, *SERVED, seconds=300)
    return NEXT_TAG


@pytest.fixture(scope="session")
def chart() -> str:
    """The chart's directory."""
    return str(CHART)


@pytest.fixture
def workstation(cluster: Cluster, tmp_path: Path) -> Workstation:
    """Somebody outside of the cluster, with contexts of their own."""
    return Workstation(cluster, tmp_path)
