"""The message log on a Kafka cluster, with confluent-kafka. The decisions are in ADR 9.

settings, config, client_log         what may be set; what the client library is told; what it says
errors, probe                        what its errors mean
admin, group_offsets, topics         the cluster asked; topics planned, created, checked
producer                             records and tables written, acknowledgements gathered
consumer, positions, client, worker  members of groups: the caller's half, bookkeeping, the blocking half, its thread
tables, plain_reader, messages       compacted topics; reading without a group; what is read as records
members, backlog                     who is alive; refusing to write what would be removed unread
statistics                           the client library's figures as metrics
log                                  all of it behind the port
"""

from tidewire_kit.log.kafka.log import KafkaLog
from tidewire_kit.log.kafka.settings import KafkaSettings

__all__ = ["KafkaLog", "KafkaSettings"]
