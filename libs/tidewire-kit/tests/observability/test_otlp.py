"""Traces leave a process for a collector when, and only when, the standard variable is set."""

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from tidewire_kit.observability.traces import ENDPOINT_VARIABLE

TRACE = "0123456789abcdef0123456789abcdef"
PROGRAM = textwrap.dedent(f"""
    import asyncio, os
    from tidewire_kit.observability import traces

    class Context:
        def invocation_metadata(self):
            return (("traceparent", "00-{TRACE}-0123456789abcdef-01"),)

    async def handle(request, context):
        return request

    stop = traces.configure("toy", os.environ)
    asyncio.run(traces.traced("tidewire.toy.v1.Toy", "Do", handle)(b"", Context()))
    stop()
""")


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.arrived = threading.Event()

    def Export(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        self.arrived.set()
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
def collector() -> Iterator[tuple[str, Collector]]:
    server, collector = grpc.server(futures.ThreadPoolExecutor(1)), Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}", collector
    server.stop(0).wait()


def run(**environ: str) -> None:
    others = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**others, **environ},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_process_exports_the_spans_of_its_rpcs_under_the_callers_trace(
    collector: tuple[str, Collector],
) -> None:
    endpoint, received = collector
    run(**{ENDPOINT_VARIABLE: endpoint})
    assert received.arrived.wait(20)
    (resource,) = received.requests[0].resource_spans
    names = {item.key: item.value.string_value for item in resource.resource.attributes}
    assert names["service.name"] == "tidewire-toy"
    (span,) = resource.scope_spans[0].spans
    assert (span.name, span.trace_id.hex()) == ("tidewire.toy.v1.Toy/Do", TRACE)


def test_without_the_variable_nothing_is_sent(collector: tuple[str, Collector]) -> None:
    _, received = collector
    run()
    assert received.requests == []
