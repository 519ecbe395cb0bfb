"""Spans of records between the producer and the owner, with a tracer of the test's own in place of the exporter's."""

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tidewire_kit.log.port import LogRecord
from tidewire_kit.observability import messaging
from tidewire_kit.observability.messaging import ProcessSpans, SendSpan

TOPIC = "tidewire.telemetry.v1"
PARENT = b"00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


def record(partition: int, offset: int, **headers: bytes) -> LogRecord:
    return LogRecord(TOPIC, partition, offset, 0, b"", b"", headers)


def call() -> trace.Span:
    return trace.get_tracer("calls").start_span("call")


def test_a_commit_is_the_child_of_its_first_request_and_linked_to_the_others(
    spans: InMemorySpanExporter,
) -> None:
    first, second = call(), call()
    contexts = [first.get_span_context(), second.get_span_context(), second.get_span_context()]
    span = SendSpan(TOPIC, contexts, 4)
    span.end(None)
    (sent,) = spans.get_finished_spans()
    assert sent.parent == first.get_span_context()
    assert [link.context for link in sent.links] == [second.get_span_context()]
    assert (sent.name, sent.kind) == (f"send {TOPIC}", trace.SpanKind.PRODUCER)
    assert sent.attributes == {
        "messaging.system": "tidewire",
        "messaging.operation.type": "send",
        "messaging.operation.name": "send",
        "messaging.destination.name": TOPIC,
        "messaging.batch.message_count": 4,
    }
    assert sent.context is not None
    told = span.headers["traceparent"].decode()
    assert (
        told == f"00-{sent.context.trace_id:032x}-{sent.context.span_id:016x}-{sent.context.trace_flags:02x}"
    )


def test_a_commit_without_a_traced_request_carries_nothing(spans: InMemorySpanExporter) -> None:
    span = SendSpan(TOPIC, [], 4)
    span.end(None)
    assert not span.headers
    assert spans.get_finished_spans() == ()


def test_a_commit_that_fails_says_so(spans: InMemorySpanExporter) -> None:
    SendSpan(TOPIC, [call().get_span_context()], 1).end(OSError("the disk"))
    (sent,) = spans.get_finished_spans()
    assert sent.status.status_code is trace.StatusCode.ERROR
    assert sent.status.description == "the disk"


def test_only_a_sampled_call_is_followed(spans: InMemorySpanExporter) -> None:
    assert messaging.current() is None
    span = call()
    with trace.use_span(span):
        assert messaging.current() == span.get_span_context()
    dropped = trace.SpanContext(1, 1, is_remote=True, trace_flags=trace.TraceFlags(0))
    with trace.use_span(trace.NonRecordingSpan(dropped)):
        assert messaging.current() is None


def test_a_record_is_processed_until_its_effect_is_durable(spans: InMemorySpanExporter) -> None:
    open_spans = ProcessSpans("tidewire.storage")
    for partition, offset in ((0, 5), (0, 6), (1, 5)):
        open_spans.begin(record(partition, offset, traceparent=PARENT))
    open_spans.begin(record(2, 0))
    open_spans.durable({(TOPIC, 0): 6, (TOPIC, 3): 100})
    (done,) = spans.get_finished_spans()
    assert done.parent is not None
    assert f"{done.parent.trace_id:032x}-{done.parent.span_id:016x}" == PARENT.decode()[3:-3]
    assert (done.name, done.kind) == (f"process {TOPIC}", trace.SpanKind.CONSUMER)
    assert done.attributes == {
        "messaging.system": "tidewire",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": TOPIC,
        "messaging.consumer.group.name": "tidewire.storage",
        "messaging.destination.partition.id": "0",
        "messaging.kafka.offset": 5,
    }
    open_spans.failed(record(1, 5), ValueError("not a record"))
    assert spans.get_finished_spans()[1].status.status_code is trace.StatusCode.ERROR
    open_spans.abandon("revoked")
    (event,) = spans.get_finished_spans()[2].events
    assert event.name == "abandoned"
    open_spans.durable({(TOPIC, 0): 100})
    assert len(spans.get_finished_spans()) == 3


def test_a_header_that_is_none_starts_a_trace_of_its_own(spans: InMemorySpanExporter) -> None:
    open_spans = ProcessSpans("tidewire.storage")
    open_spans.begin(record(0, 0, traceparent=b"\xff not a traceparent"))
    open_spans.durable({(TOPIC, 0): 1})
    (done,) = spans.get_finished_spans()
    assert done.parent is None
