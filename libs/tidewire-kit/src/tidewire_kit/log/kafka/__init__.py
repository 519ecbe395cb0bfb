"""The message log on a Kafka cluster (4.x), with confluent-kafka. The decisions are in ADR 9.

settings, config, errors          what may be set; what the client library is told; what its errors mean
topics, admin                     topics planned, created, checked; offsets asked for
producer                          records and tables written, acknowledgements gathered
consumer, rebalance, worker       members of groups: one thread each, rebalances handed to the event loop
tables, members                   compacted topics read; who is alive
backlog                           refusing to write what would be removed unread
statistics                        the client library's figures as metrics
log                               all of it behind the port
"""

from tidewire_kit.log.kafka.log import KafkaLog
from tidewire_kit.log.kafka.settings import KafkaSettings

__all__ = ["KafkaLog", "KafkaSettings"]
