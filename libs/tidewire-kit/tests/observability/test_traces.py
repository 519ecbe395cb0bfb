"""Spans of RPCs, with a tracer of the test's own in place of the exporter's."""

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tidewire_kit.observability import traces


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(traces, "_exporting", True)
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


class _Context:
    def invocation_metadata(self) -> tuple[tuple[str, object], ...]:
        traceparent = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
        return (("traceparent", traceparent), ("x-bin", b"\x00"))


async def test_a_span_continues_the_callers_trace(spans: InMemorySpanExporter) -> None:
    async def handle(request: bytes, context: object) -> bytes:
        if request == b"bad":
            raise ValueError
        return request

    handled = traces.traced("tidewire.toy.v1.Toy", "Do", handle)
    assert await handled(b"x", _Context()) == b"x"
    with pytest.raises(ValueError):  # noqa: PT011
        await handled(b"bad", _Context())
    good, bad = spans.get_finished_spans()
    assert good.name == "tidewire.toy.v1.Toy/Do"
    assert good.parent is not None
    assert f"{good.parent.trace_id:032x}" == "0123456789abcdef0123456789abcdef"
    assert good.attributes is not None
    assert good.attributes["rpc.method"] == "Do"
    assert bad.status.status_code is trace.StatusCode.ERROR
