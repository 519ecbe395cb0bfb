"""The client library's own figures as Prometheus metrics: a useful handful of what it reports every few seconds.

The reports come on the clients' threads, one client after the other; prometheus_client is safe there.
"""

import json
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge


class Statistics:
    """The metrics of all clients of one log."""

    def __init__(self, registry: CollectorRegistry, prefix: str) -> None:
        """`prefix` is removed from the names of topics."""
        self._prefix = prefix
        self._counted: dict[tuple[str, str], int] = {}
        broker, consumer = ("client", "broker"), ("group", "topic", "partition")
        self._queued_records = Gauge(
            "tidewire_kafka_queued_records",
            "Records that wait in the client to be acknowledged.",
            ["client"],
            registry=registry,
        )
        self._queued_bytes = Gauge(
            "tidewire_kafka_queued_bytes",
            "Bytes of records that wait in the client to be acknowledged.",
            ["client"],
            registry=registry,
        )
        self._request_p99 = Gauge(
            "tidewire_kafka_request_p99_seconds",
            "Time from a request to the broker's answer, 99th percentile of the last report, in seconds.",
            broker,
            registry=registry,
        )
        self._waiting_p99 = Gauge(
            "tidewire_kafka_request_waiting_p99_seconds",
            "Time that requests waited in the client before they were sent, 99th percentile, in seconds.",
            broker,
            registry=registry,
        )
        self._requests_in_flight = Gauge(
            "tidewire_kafka_requests_in_flight",
            "Requests that the broker has not answered yet.",
            broker,
            registry=registry,
        )
        self._connected = Gauge(
            "tidewire_kafka_broker_connected",
            "1: the connection to the broker is up; 0: it is not.",
            broker,
            registry=registry,
        )
        self._errors = Counter(
            "tidewire_kafka_broker_errors",
            "Failed transmissions and requests that timed out.",
            broker,
            registry=registry,
        )
        self._lag = Gauge(
            "tidewire_kafka_consumer_lag_records",
            "Records of a partition that this process owns and its group has not committed, at the last report.",
            consumer,
            registry=registry,
        )
        self._lag_seen: dict[str, set[tuple[str, str, str]]] = {}

    def of(self, client: str) -> Callable[[str], None]:
        """The callback for one client: `producer`, or the name of a group."""
        return lambda report: self._take(client, json.loads(report))

    def _take(self, client: str, report: dict[str, Any]) -> None:
        if client == "producer":
            self._queued_records.labels(client).set(report.get("msg_cnt", 0))
            self._queued_bytes.labels(client).set(report.get("msg_size", 0))
        for broker in report.get("brokers", {}).values():
            if broker.get("nodeid", -1) >= 0:
                self._take_broker(client, broker)
        if client != "producer":
            self._take_lag(client, report)

    def _take_broker(self, client: str, broker: dict[str, Any]) -> None:
        labels = (client, str(broker["nodeid"]))
        self._request_p99.labels(*labels).set(broker.get("rtt", {}).get("p99", 0) / 1e6)
        self._waiting_p99.labels(*labels).set(broker.get("outbuf_latency", {}).get("p99", 0) / 1e6)
        self._requests_in_flight.labels(*labels).set(broker.get("waitresp_cnt", 0))
        self._connected.labels(*labels).set(broker.get("state") == "UP")
        errors = broker.get("txerrs", 0) + broker.get("rxerrs", 0) + broker.get("req_timeouts", 0)
        # A client that was replaced counts from zero again.
        new = errors - self._counted.get(labels, 0)
        self._errors.labels(*labels).inc(new if new >= 0 else errors)
        self._counted[labels] = errors

    def _take_lag(self, group: str, report: dict[str, Any]) -> None:
        owned: set[tuple[str, str, str]] = set()
        for name, topic in report.get("topics", {}).items():
            for number, partition in topic.get("partitions", {}).items():
                end = partition.get("hi_offset", -1)
                if partition.get("fetch_state") == "active" and end >= 0:
                    labels = (group, name.removeprefix(self._prefix), number)
                    begin = max(partition.get("committed_offset", 0), partition.get("lo_offset", 0), 0)
                    self._lag.labels(*labels).set(max(0, end - begin))
                    owned.add(labels)
        for labels in self._lag_seen.get(group, set()) - owned:
            self._lag.remove(*labels)
        self._lag_seen[group] = owned
