"""Real Kafka and Cassandra for tests, without containers: install, start, and lose them for real.

`kafka.KafkaCluster` and `cassandra.CassandraCluster` are what tests of faults use; `fixtures` is what all other tests
use; `python -m tidewire_testkit.servers` is the command that tests/servers explains.
"""
