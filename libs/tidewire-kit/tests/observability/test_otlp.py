"""Traces leave a process for a collector when, and only when, the standard variable is set."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from tidewire_kit.observability.traces import ENDPOINT_VARIABLE
from tidewire_testkit.otlp import Collector, collecting

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


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


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
    collector: Collector,
) -> None:
    run(**{ENDPOINT_VARIABLE: collector.endpoint})
    assert collector.arrived.wait(20)
    (resource,) = collector.requests[0].resource_spans
    names = {item.key: item.value.string_value for item in resource.resource.attributes}
    assert names["service.name"] == "tidewire-toy"
    (span,) = resource.scope_spans[0].spans
    assert (span.name, span.trace_id.hex()) == ("tidewire.toy.v1.Toy/Do", TRACE)


def test_without_the_variable_nothing_is_sent(collector: Collector) -> None:
    run()
    assert collector.requests == []
