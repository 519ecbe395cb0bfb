"""A collector of traces inside the test's process: what a process exports over OTLP is there to be looked at.

with collecting() as collector:
    run_a_process(OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint)
    spans = collector.spans()
"""

import contextlib
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what it is sent. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        """ExportTraceServiceRequest, in order of arrival."""
        self.arrived = threading.Event()
        """Set once anything has come."""
        self.endpoint = ""
        """Value for OTEL_EXPORTER_OTLP_ENDPOINT."""

    def Export(self, request: Any, context: Any) -> Any:
        """What exporters call."""
        self.requests.append(request)
        self.arrived.set()
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self) -> list[Any]:
        """All spans that have come."""
        return [
            span
            for request in tuple(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens on a free port of the loopback."""
    server, collector = grpc.server(futures.ThreadPoolExecutor(1)), Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(0).wait()


def attributes_of(span: Any) -> dict[str, Any]:
    """A span's attributes, text and whole numbers."""
    return {
        item.key: item.value.string_value if item.value.HasField("string_value") else item.value.int_value
        for item in span.attributes
    }
