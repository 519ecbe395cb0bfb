"""Metrics: the registry of a process, buckets that fit our spans, and the RED metrics of its RPCs.

Each service declares its instruments once, in its `metrics.py`, on the `CollectorRegistry` of its service context.
Names are `tidewire_<service>_<what>_<base unit>`, counters end in `_total`. Labels are bounded: never a device's id.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

import grpc
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

LATENCY_BUCKETS_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""From a call answered out of memory to one at its deadline; 5 ms and 5 s are limits that we promise."""
_RPC_LABELS = ("grpc_service", "grpc_method")


def new_registry() -> CollectorRegistry:
    """Returns a registry with the process's own metrics (CPU, memory, files, garbage collection)."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class MethodMetrics:
    """The counts of one RPC, as plain numbers: every call passes here, and a scrape comes every few seconds."""

    __slots__ = ("_bounds", "buckets", "codes", "in_flight", "method", "seconds", "service")

    def __init__(self, bounds: Sequence[float], in_flight: Gauge, service: str, method: str) -> None:
        self._bounds = bounds
        self.service, self.method = service, method
        self.in_flight = in_flight.labels(service, method)
        self.codes: dict[str, int] = {grpc.StatusCode.OK.name: 0}
        """Calls that ended, by status code."""
        self.buckets = [0] * (len(bounds) + 1)
        """Calls by duration; not cumulative, the last one is for those above all bounds."""
        self.seconds = 0.0

    def ended(self, code: str) -> None:
        """Counts a call that ended with a code."""
        self.codes[code] = self.codes.get(code, 0) + 1

    def took(self, seconds: float) -> None:
        """Counts a call's duration."""
        self.seconds += seconds
        self.buckets[bisect_left(self._bounds, seconds)] += 1


class RpcMetrics(Collector):
    """Rate, errors and duration of every RPC of a process."""

    def __init__(
        self, registry: CollectorRegistry, buckets: Iterable[float] = LATENCY_BUCKETS_SECONDS
    ) -> None:
        self._bounds = tuple(buckets)
        self._methods: dict[tuple[str, str], MethodMetrics] = {}
        self._in_flight = Gauge(
            "tidewire_grpc_streams_in_flight", "Streaming RPCs open now.", _RPC_LABELS, registry=registry
        )
        registry.register(self)

    def method(self, service: str, method: str) -> MethodMetrics:
        """Returns the counts of one RPC. `service` is the proto service's full name."""
        metrics = self._methods.get((service, method))
        if metrics is None:
            metrics = MethodMetrics(self._bounds, self._in_flight, service, method)
            self._methods[service, method] = metrics
        return metrics

    def collect(self) -> Iterator[Metric]:
        """Called by the registry for each scrape."""
        requests = CounterMetricFamily(
            "tidewire_grpc_requests", "RPCs ended, by status code.", labels=(*_RPC_LABELS, "grpc_code")
        )
        seconds = HistogramMetricFamily(
            "tidewire_grpc_request_duration_seconds",
            "Time from an RPC's first request to its end, in seconds.",
            labels=_RPC_LABELS,
        )
        for metrics in self._methods.values():
            labels = (metrics.service, metrics.method)
            for code, count in metrics.codes.items():
                requests.add_metric((*labels, code), count)
            bounds = [*map(floatToGoString, self._bounds), "+Inf"]
            cumulative = zip(bounds, accumulate(metrics.buckets), strict=True)
            seconds.add_metric(labels, [(bound, count) for bound, count in cumulative], metrics.seconds)
        yield requests
        yield seconds
