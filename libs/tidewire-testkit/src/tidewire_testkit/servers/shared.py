"""The servers that tests of faults kill: kept from test to test while they have the shape asked for, and made whole.

By the fixture `fault_servers` of `fixtures`. Three nodes take most of a minute to start on a busy machine, so tests of
one shape stand together. What a test does not ask for does not run beside it.
"""

from tidewire_testkit.servers.cassandra import CassandraCluster
from tidewire_testkit.servers.cluster import Cluster
from tidewire_testkit.servers.kafka import QUICK_FAILOVER, KafkaCluster


class FaultServers:
    """At most one Kafka and one Cassandra at a time. What tests leave in them stays: use names of your own."""

    def __init__(self) -> None:
        self._kafka: KafkaCluster | None = None
        self._cassandra: CassandraCluster | None = None

    def kafka(self, nodes: int) -> KafkaCluster:
        """One or three brokers that run, and nothing else."""
        self._close_cassandra()
        kafka = self._kafka_of(nodes)
        kafka.wait_ready()
        return kafka

    def cassandra(self, nodes: int) -> CassandraCluster:
        """One or three nodes that run, and nothing else."""
        self._close_kafka()
        cassandra = self._cassandra_of(nodes)
        cassandra.wait_ready()
        return cassandra

    def both(self, nodes: int) -> tuple[KafkaCluster, CassandraCluster]:
        """One or three of each; they start at the same time."""
        kafka, cassandra = self._kafka_of(nodes), self._cassandra_of(nodes)
        for cluster in (kafka, cassandra):
            cluster.wait_ready()
        return kafka, cassandra

    def close(self) -> None:
        """Ends them."""
        self._close_kafka()
        self._close_cassandra()

    def _kafka_of(self, nodes: int) -> KafkaCluster:
        if self._kafka is None or len(self._kafka.addresses) != nodes:
            self._close_kafka()
            self._kafka = KafkaCluster(nodes, settings=QUICK_FAILOVER)
        return _revived(self._kafka)

    def _cassandra_of(self, nodes: int) -> CassandraCluster:
        if self._cassandra is None or len(self._cassandra.addresses) != nodes:
            self._close_cassandra()
            self._cassandra = CassandraCluster(nodes)
        return _revived(self._cassandra)

    def _close_kafka(self) -> None:
        if self._kafka is not None:
            self._kafka.close()
            self._kafka = None

    def _close_cassandra(self) -> None:
        if self._cassandra is not None:
            self._cassandra.close()
            self._cassandra = None


def _revived[T: Cluster](cluster: T) -> T:
    """A test that failed may have left nodes down or suspended."""
    for number in cluster.running:
        cluster.resume(number)
    cluster.start(wait=False)
    return cluster
