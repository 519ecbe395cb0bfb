"""How many partitions the telemetry topic of the benchmarks has: as many as users get who set nothing."""

from tidewire_kit.log.kafka import KafkaSettings

PARTITIONS = KafkaSettings().partitions
