"""The whole platform on Kafka and Cassandra: how soon a reading is durable, and how soon it is visible."""

from benchmarks.bench_platform import latency
from benchmarks.figures import Figure, Scale
from tidewire_testkit.servers.cassandra import CassandraCluster
from tidewire_testkit.servers.kafka import KafkaCluster


def run(scale: Scale) -> list[Figure]:
    """Publish → acknowledged and acknowledged → visible at 50,000 readings/s."""
    with KafkaCluster() as kafka, CassandraCluster() as cassandra:
        environ = {**kafka.environ(), **cassandra.environ(), "TIDEWIRE_BACKEND": "distributed"}
        return latency(scale, rate=50_000, goal_ms=15, environ=environ)
