"""Where the platform under test keeps its data: the tests of the whole run unchanged on every backend.

`tests/conftest.py` chooses one per test (`use`), `UpProcess` asks for it (`current`). Each data directory has, on Kafka
and Cassandra, a topic prefix and a keyspace of its own, so that a restart over the same directory finds its data and
no two platforms see each other's.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

SERVICES = ("registry", "ingestion", "storage")
PATIENCE = 3.0
"""Of the distributed backend: a keyspace takes half a minute to make on a busy machine, and twice as many processes
start."""
_SERVER_SECONDS = 60.0
"""Servers that everybody on this machine tests with may be slow to answer."""


class Backend(Protocol):
    """What a platform under test is told."""

    @property
    def name(self) -> str:
        """`embedded` or `distributed`."""

    @property
    def patience(self) -> float:
        """How many times longer than on the embedded backend commands and starts may take."""

    @property
    def processes(self) -> Mapping[str, int]:
        """Service → how many of its processes run unless a test says otherwise."""

    def environ(self, data_dir: Path) -> dict[str, str]:
        """The settings for a platform over this data directory."""

    def release(self, below: Path) -> None:
        """Removes what platforms with data directories below this path have left on servers; they must have ended."""


class EmbeddedBackend:
    """All in the data directory."""

    name = "embedded"
    patience = 1.0
    processes: Mapping[str, int] = dict.fromkeys(SERVICES, 1)

    def environ(self, data_dir: Path) -> dict[str, str]:
        """Nothing to tell: it is the default."""
        return {}

    def release(self, below: Path) -> None:
        """The test's temporary directory goes by itself."""


class DistributedBackend:
    """On a Kafka and a Cassandra that others use too; two processes of each service."""

    name = "distributed"
    patience = PATIENCE
    processes: Mapping[str, int] = dict.fromkeys(SERVICES, 2)

    def __init__(self, kafka_servers: str, contact_points: str, *, partitions: int = 8) -> None:
        """`kafka_servers` and `contact_points`: plain, without authentication; one replica is all they give."""
        self._kafka = kafka_servers
        self._cassandra = contact_points
        self._partitions = partitions
        self._used: dict[str, Path] = {}

    def environ(self, data_dir: Path) -> dict[str, str]:
        """Names are made of the directory's path, so that the same directory has the same ones."""
        name = _name_of(data_dir)
        self._used[name] = data_dir
        return {
            "TIDEWIRE_BACKEND": "distributed",
            "TIDEWIRE_KAFKA_BOOTSTRAP_SERVERS": self._kafka,
            "TIDEWIRE_KAFKA_TOPIC_PREFIX": f"{name}.",
            "TIDEWIRE_KAFKA_PARTITIONS": str(self._partitions),
            "TIDEWIRE_KAFKA_CONNECT_TIMEOUT_SECONDS": "30",
            "TIDEWIRE_CASSANDRA_CONNECT_TIMEOUT_SECONDS": "60",
            "TIDEWIRE_KAFKA_REPLICATION_FACTOR": "1",
            "TIDEWIRE_KAFKA_MIN_INSYNC_REPLICAS": "1",
            "TIDEWIRE_CASSANDRA_CONTACT_POINTS": self._cassandra,
            "TIDEWIRE_CASSANDRA_KEYSPACE": name,
            "TIDEWIRE_CASSANDRA_REPLICATION_FACTOR": "1",
        }

    def release(self, below: Path) -> None:
        """Drops keyspaces (even an empty one costs a node memory) and topics."""
        used = {name for name, data_dir in self._used.items() if data_dir.is_relative_to(below)}
        for name in used:
            del self._used[name]
        if used:
            _drop_keyspaces(self._cassandra, used)
            _delete_topics(self._kafka, used)


class OwnServersBackend:
    """On servers that a test has started for itself, however they are secured; what is left goes with them."""

    name = "distributed"
    patience = PATIENCE

    def __init__(self, settings: Mapping[str, str], *, processes: int = 1) -> None:
        """`settings`: how the servers are reached, by the names of their variables. `processes`: of each service."""
        self.processes: Mapping[str, int] = dict.fromkeys(SERVICES, processes)
        self._settings = {"TIDEWIRE_BACKEND": "distributed", "TIDEWIRE_KAFKA_PARTITIONS": "4", **settings}

    def environ(self, data_dir: Path) -> dict[str, str]:
        """Each data directory has its own names, as on servers that are shared."""
        name = _name_of(data_dir)
        return {
            **self._settings,
            "TIDEWIRE_KAFKA_TOPIC_PREFIX": f"{name}.",
            "TIDEWIRE_CASSANDRA_KEYSPACE": name,
        }

    def release(self, below: Path) -> None:
        """The servers go."""


def _name_of(data_dir: Path) -> str:
    return "t" + hashlib.sha256(str(data_dir).encode()).hexdigest()[:12]


def _drop_keyspaces(contact_points: str, names: set[str]) -> None:
    from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
    from cassandra.policies import RoundRobinPolicy

    hosts = [point.rpartition(":") for point in contact_points.split(",")]
    profile = ExecutionProfile(RoundRobinPolicy())
    with Cluster(
        [host for host, _, _ in hosts],
        port=int(hosts[0][2]),
        protocol_version=5,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        connect_timeout=_SERVER_SECONDS,
        control_connection_timeout=_SERVER_SECONDS,
    ) as cluster:
        session: Any = cluster.connect()
        for name in names:
            session.execute(f"DROP KEYSPACE IF EXISTS {name}", timeout=_SERVER_SECONDS)


def _delete_topics(servers: str, names: set[str]) -> None:
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": servers})
    known = admin.list_topics(timeout=_SERVER_SECONDS).topics
    ours = [topic for topic in known if topic.partition(".")[0] in names]
    if ours:
        for done in admin.delete_topics(ours, operation_timeout=_SERVER_SECONDS).values():
            done.result()


_current: Backend = EmbeddedBackend()


def use(backend: Backend) -> None:
    """Makes this the backend of the platforms that are made from now on."""
    global _current
    _current = backend


def current() -> Backend:
    """The backend chosen last; the embedded one when none was."""
    return _current
