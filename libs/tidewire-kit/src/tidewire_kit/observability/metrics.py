"""Metrics: the registry of a process, buckets that fit our spans, and the RED metrics of its RPCs.

Each service declares its instruments once, in its `metrics.py`, on the `CollectorRegistry` of its service context.
Names are `tidewire_<service>_<what>_<base unit>`, counters end in `_total`. Labels are bounded: never a device's id.
"""

from collections.abc import Iterable

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

LATENCY_BUCKETS_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""From a call answered out of memory to one at its deadline; 5 ms and 5 s are limits that we promise."""


def new_registry() -> CollectorRegistry:
    """Returns a registry with the process's own metrics (CPU, memory, files, garbage collection)."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class MethodMetrics:
    """The children of one RPC, looked up once."""

    __slots__ = ("_codes", "_requests", "in_flight", "method", "ok", "seconds", "service")

    def __init__(
        self, requests: Counter, seconds: Histogram, in_flight: Gauge, service: str, method: str
    ) -> None:
        self._requests = requests
        self._codes: dict[str, Counter] = {}
        self.service, self.method = service, method
        self.ok = requests.labels(service, method, grpc.StatusCode.OK.name)
        self.seconds = seconds.labels(service, method)
        self.in_flight = in_flight.labels(service, method)

    def failed(self, code: str) -> None:
        """Counts a call that ended with a code other than OK."""
        child = self._codes.get(code)
        if child is None:
            child = self._codes[code] = self._requests.labels(self.service, self.method, code)
        child.inc()


class RpcMetrics:
    """Rate, errors and duration of every RPC of a process."""

    def __init__(
        self, registry: CollectorRegistry, buckets: Iterable[float] = LATENCY_BUCKETS_SECONDS
    ) -> None:
        labels = ("grpc_service", "grpc_method")
        self._requests = Counter(
            "tidewire_grpc_requests", "RPCs ended, by status code.", (*labels, "grpc_code"), registry=registry
        )
        self._seconds = Histogram(
            "tidewire_grpc_request_duration_seconds",
            "Time from an RPC's first request to its end, in seconds.",
            labels,
            buckets=tuple(buckets),
            registry=registry,
        )
        self._in_flight = Gauge(
            "tidewire_grpc_streams_in_flight", "Streaming RPCs open now.", labels, registry=registry
        )

    def method(self, service: str, method: str) -> MethodMetrics:
        """Returns the children of one RPC. `service` is the proto service's full name."""
        return MethodMetrics(self._requests, self._seconds, self._in_flight, service, method)
