"""Servers that are too old for Tidewire, as somebody's first try may meet them: releases that really were out.

Each is the newest that has to be refused. Installed on their first use, 80 MB together.
"""

import contextlib
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from tidewire_testkit.polling import until_sync
from tidewire_testkit.servers.addresses import free_address, is_free
from tidewire_testkit.servers.cassandra import CassandraCluster
from tidewire_testkit.servers.cluster import READY_SECONDS
from tidewire_testkit.servers.install import installed, java
from tidewire_testkit.servers.processes import Node

_KAFKA_PORT, _ZOOKEEPER_PORT = 9092, 2181
_SINCE_5 = ("storage_compatibility_mode", "memtable", "sstable")


class OldCassandra(CassandraCluster):
    """A node of Cassandra 4.1."""

    NAME = "cassandra-old"
    JAVA_OPTIONS: ClassVar[tuple[str, ...]] = ("cassandra", "cassandra-old")

    def _configuration(self, number: int) -> dict[str, object]:
        known = super()._configuration(number)
        return {key: value for key, value in known.items() if key not in _SINCE_5}


class OldKafka:
    """A broker of Kafka 2.7 and the ZooKeeper it needs; a context manager."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="tidewire-kafka-old-"))
        self.address = free_address(1, (_KAFKA_PORT, _ZOOKEEPER_PORT))
        base = [java(), "-cp", f"{installed('kafka-old')}/*", "-Xmx256m", "-XX:TieredStopAtLevel=1"]
        self._nodes = [
            self._node("zookeeper", [*base, "org.apache.zookeeper.server.quorum.QuorumPeerMain"]),
            self._node("broker", [*base, "kafka.Kafka"]),
        ]

    @property
    def bootstrap_servers(self) -> str:
        """host:port."""
        return f"{self.address}:{_KAFKA_PORT}"

    def __enter__(self) -> Self:
        zookeeper = {
            "dataDir": self.directory / "zookeeper" / "data",
            "clientPort": _ZOOKEEPER_PORT,
            "clientPortAddress": self.address,
            "admin.enableServer": "false",
        }
        broker = {
            "broker.id": 1,
            "zookeeper.connect": f"{self.address}:{_ZOOKEEPER_PORT}",
            "listeners": f"PLAINTEXT://{self.bootstrap_servers}",
            "log.dirs": self.directory / "broker" / "data",
            "auto.create.topics.enable": "false",
        }
        try:
            for node, properties in zip(self._nodes, (zookeeper, broker), strict=True):
                lines = (f"{key}={value}\n" for key, value in properties.items())
                (node.home / "properties").write_text("".join(lines))
                node.start()
            until_sync(self._listens, seconds=READY_SECONDS, message="the old broker listens")
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _node(self, name: str, command: list[str]) -> Node:
        home = self.directory / name
        home.mkdir()
        return Node(home, self.address, [*command, str(home / "properties")], leashed=True)

    def _listens(self) -> bool:
        for node in self._nodes:
            node.check_running()
        return not is_free(self.address, _KAFKA_PORT)

    def _close(self) -> None:
        for node in reversed(self._nodes):
            with contextlib.suppress(AssertionError):
                node.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
