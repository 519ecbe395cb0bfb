"""Telemetry as columns: the batch that a publisher sends, the record in the log, and the producer between them.

`batch` and `wire` read what arrives, `record` is what lies in the log, `producer` gathers the one into the other.
Ingestion uses all of it; the owners of partitions (storage, alerting, routing) use `record`.
"""
