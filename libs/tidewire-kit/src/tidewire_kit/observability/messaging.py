"""Spans of records on their way through the log, by OpenTelemetry's conventions for messaging.

A trace that enters with a request goes on in the header `traceparent` of the records that carry it, and ends where the
owner of the partition has made its effect durable:

    PublishTelemetry (server) → send tidewire.telemetry.v1 (producer) → process tidewire.telemetry.v1 (consumer)

A commit gathers many requests. Its span is the child of the first one that is traced, and has links to the others. All
of this exists only while traces are exported: the callers ask `traces.exporting` once, when they are made.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from tidewire_kit.log.port import NO_HEADERS, LogRecord, TopicPartition
from tidewire_kit.observability import traces

if TYPE_CHECKING:  # the library is optional
    from opentelemetry.trace import Span, SpanContext

HEADER = "traceparent"
_MOST_LINKS = 64
_MOST_OPEN = 1_000
"""Records under way with a span of their own; of more the trace ends at the log."""


def current() -> "SpanContext | None":
    """The span of the call that is being answered, if it is sampled."""
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    return context if context.is_valid and context.trace_flags.sampled else None


class SendSpan:
    """One commit of the producer, from the gathered requests to the log's answer."""

    __slots__ = ("_span", "headers")

    def __init__(self, topic: str, requests: "Sequence[SpanContext]", records: int) -> None:
        """`requests`: the sampled spans whose readings go with it; none: nothing is traced."""
        self._span: Span | None = None
        self.headers: Mapping[str, bytes] = NO_HEADERS
        """What the records carry."""
        if not requests:
            return
        from opentelemetry import propagate, trace

        first = requests[0]
        others = {context.span_id: context for context in requests if context.span_id != first.span_id}
        self._span = span = trace.get_tracer("tidewire_kit").start_span(
            f"send {topic}",
            context=trace.set_span_in_context(trace.NonRecordingSpan(first)),
            kind=trace.SpanKind.PRODUCER,
            links=[trace.Link(context) for context in islice(others.values(), _MOST_LINKS)],
            attributes={**_attributes("send", topic), "messaging.batch.message_count": records},
        )
        carrier: dict[str, str] = {}
        propagate.inject(carrier, trace.set_span_in_context(span))
        if HEADER in carrier:
            self.headers = {HEADER: carrier[HEADER].encode()}

    def end(self, error: Exception | None) -> None:
        """The log has answered; `error`: what it raised."""
        if self._span is not None:
            _end(self._span, error)


class ProcessSpans:
    """Records that an owner has taken and whose effect is not yet durable."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._open: dict[tuple[TopicPartition, int], Span] = {}

    def begin(self, record: LogRecord) -> None:
        """The owner works on a record now."""
        header = record.headers.get(HEADER)
        if header is None or len(self._open) >= _MOST_OPEN:
            return
        from opentelemetry import propagate, trace

        self._open[(record.topic, record.partition), record.offset] = trace.get_tracer(
            "tidewire_kit"
        ).start_span(
            f"process {record.topic}",
            context=propagate.extract({HEADER: bytes(header).decode("ascii", "replace")}),
            kind=trace.SpanKind.CONSUMER,
            attributes={
                **_attributes("process", record.topic),
                "messaging.consumer.group.name": self._group,
                "messaging.destination.partition.id": str(record.partition),
                "messaging.kafka.offset": record.offset,
            },
        )

    def failed(self, record: LogRecord, error: Exception) -> None:
        """A record cannot be processed; its span ends with what became of it."""
        span = self._open.pop(((record.topic, record.partition), record.offset), None)
        if span is not None:
            _end(span, error)

    def durable(self, offsets: Mapping[TopicPartition, int]) -> None:
        """The effects of all records before these offsets are on disk."""
        for place in [place for place in self._open if place[1] < offsets.get(place[0], 0)]:
            self._open.pop(place).end()

    def abandon(self, why: str) -> None:
        """Everything that is not durable is forgotten here, and will be processed again by whoever comes next."""
        for span in self._open.values():
            span.add_event("abandoned", {"reason": why})
            span.end()
        self._open.clear()


def _attributes(operation: str, topic: str) -> dict[str, str]:
    return {
        "messaging.system": traces.messaging_system(),
        "messaging.operation.type": operation,
        "messaging.operation.name": operation,
        "messaging.destination.name": topic,
    }


def _end(span: "Span", error: Exception | None) -> None:
    from opentelemetry import trace

    if error is not None:
        span.record_exception(error)
        span.set_status(trace.Status(trace.StatusCode.ERROR, str(error)))
    span.end()
