"""What a process tells of its use of Cassandra: requests, outcomes, time, in flight, nodes.

Made by `connect` on the registry of the process; without one it counts into nothing that is exported.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tidewire_kit.observability.metrics import LATENCY_BUCKETS_SECONDS


class OperationMetrics:
    """The children of one kind of request, looked up once."""

    __slots__ = ("_requests", "operation", "retries", "seconds", "succeeded")

    def __init__(self, requests: Counter, seconds: Histogram, retries: Counter, operation: str) -> None:
        self._requests = requests
        self.operation = operation
        self.succeeded = requests.labels(operation, "OK")
        self.seconds = seconds.labels(operation)
        self.retries = retries.labels(operation)

    def failed(self, outcome: str) -> None:
        """Counts a request that ended with an error of this reason."""
        self._requests.labels(self.operation, outcome).inc()


class CassandraMetrics:
    """Rate, errors and duration by operation: read, write, batch, conditional, prepare."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        registry = registry if registry is not None else CollectorRegistry()
        requests = Counter(
            "tidewire_cassandra_requests",
            "Requests to Cassandra ended, by kind and outcome (OK or the error's reason).",
            ("operation", "outcome"),
            registry=registry,
        )
        seconds = Histogram(
            "tidewire_cassandra_request_duration_seconds",
            "Time from handing a request to the session to its end, waiting and repeating included, in seconds.",
            ("operation",),
            buckets=LATENCY_BUCKETS_SECONDS,
            registry=registry,
        )
        retries = Counter(
            "tidewire_cassandra_retries",
            "Requests sent again because a try failed or was not answered in time.",
            ("operation",),
            registry=registry,
        )
        self.in_flight = Gauge(
            "tidewire_cassandra_requests_in_flight",
            "Requests that wait for an answer now.",
            registry=registry,
        )
        self.nodes_up = Gauge(
            "tidewire_cassandra_nodes_up",
            "Nodes of the datacenter that are taken to be up.",
            registry=registry,
        )
        self.read = OperationMetrics(requests, seconds, retries, "read")
        self.write = OperationMetrics(requests, seconds, retries, "write")
        self.batch = OperationMetrics(requests, seconds, retries, "batch")
        self.conditional = OperationMetrics(requests, seconds, retries, "conditional")
        self.schema = OperationMetrics(requests, seconds, retries, "schema")
