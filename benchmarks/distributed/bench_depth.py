"""Storage in depth on Kafka and Cassandra: bytes a reading on Cassandra's disk, and how quickly questions are answered.

As `benchmarks.bench_depth`, with fewer readings, as Cassandra, Kafka, platform and loader share the machine: with those
of one day and more, a day of one series is a whole day.
"""

import json

from benchmarks.bench_depth import Goals, depth
from benchmarks.figures import Figure, Scale, progress
from tidewire_kit.cassandra import CassandraSettings
from tidewire_kit.settings import load
from tidewire_testkit.servers.kafka import KafkaCluster
from tidewire_testkit.servers.managed import ManagedCassandra

DISTRIBUTED = Goals(25_000_000, 1.8, 5, 15, 15, 1_000, 300)


def run(scale: Scale) -> list[Figure]:
    """Bytes a reading, memory of storage, and the median time of five questions."""
    with KafkaCluster() as kafka, ManagedCassandra() as cassandra:
        environ = {**kafka.environ(), **cassandra.environ(), "TIDEWIRE_BACKEND": "distributed"}
        keyspace = load(CassandraSettings, environ).keyspace
        return depth(scale, DISTRIBUTED, environ, lambda: _on_disk(cassandra, keyspace))


def _on_disk(cassandra: ManagedCassandra, keyspace: str) -> int:
    """Bytes of the files of storage's tables, once memory is flushed and what was replaced is compacted away."""
    cassandra.nodetool("flush", keyspace)
    cassandra.nodetool("compact", keyspace)
    found = json.loads(cassandra.nodetool("tablestats", "-F", "json", keyspace))
    by_table = {
        name: int(table["space_used_live"])
        for name, table in found[keyspace]["tables"].items()
        if name.startswith("storage_")
    }
    largest = sorted(by_table.items(), key=lambda item: -item[1])[:4]
    progress("on disk: " + ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in largest))
    return sum(by_table.values())
