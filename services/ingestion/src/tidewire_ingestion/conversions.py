"""Between the API's messages and the domain's values."""

from google.protobuf.duration_pb2 import Duration

from tidewire.ingestion.v1.ingestion_pb2 import EventRefusal as EventRefusalMessage
from tidewire.ingestion.v1.ingestion_pb2 import (
    PublishEventsRequest,
    PublishEventsResponse,
    PublishTelemetryResponse,
    RefusalReason,
)
from tidewire.ingestion.v1.ingestion_pb2 import Refusal as RefusalMessage
from tidewire.type.v1.event_pb2 import Event as EventMessage
from tidewire_ingestion.domain import EventBatch, EventOutcome, GivenEvent, Outcome, Reason, Refusal
from tidewire_kit.errors import InvalidArgument, TidewireError
from tidewire_kit.grpc import to_status
from tidewire_kit.telemetry.batch import new_batch_id, parse_batch_id
from tidewire_kit.telemetry.record import varint

_REASONS: dict[Reason, RefusalReason.ValueType] = {
    reason: RefusalReason.Value(reason.name) for reason in Reason
}


MOST_EVENTS = 1_000
"""Events of one call."""


def render_outcome(outcome: Outcome) -> bytes:
    """The serialized PublishTelemetryResponse of an outcome."""
    if not outcome.refusals and not outcome.missed_batches:
        # Nearly all answers: three fields, put together faster than a message is made.
        text = outcome.batch_id.encode()
        head = b"\x0a%c%b" % (len(text), text)
        if outcome.sequence:
            head += b"\x10" + varint(outcome.sequence)
        return head + b"\x18" + varint(outcome.accepted_readings)
    response = PublishTelemetryResponse(
        batch_id=outcome.batch_id,
        sequence=outcome.sequence,
        accepted_readings=outcome.accepted_readings,
        refused_readings=outcome.refused_readings,
        refusals=map(_refusal, outcome.refusals),
        missed_batches=outcome.missed_batches,
    )
    if outcome.retry_delay_seconds:
        delay = Duration()
        delay.FromMicroseconds(round(outcome.retry_delay_seconds * 1e6))
        response.retry_delay.CopyFrom(delay)
    return response.SerializeToString()


def render_error(error: TidewireError, batch_id: str, sequence: int) -> bytes:
    """The serialized PublishTelemetryResponse of a batch that failed as a whole, on a stream."""
    response = PublishTelemetryResponse(batch_id=batch_id, sequence=sequence, status=to_status(error))
    return response.SerializeToString()


def _refusal(refusal: Refusal) -> RefusalMessage:
    return RefusalMessage(
        reason=_REASONS[refusal.reason],
        frame=refusal.frame,
        rows=refusal.rows,
        readings=refusal.readings,
        first_rows=refusal.first_rows,
        message=refusal.message,
    )


def read_events(request: PublishEventsRequest) -> EventBatch:
    """The batch of a request. Raises InvalidArgument naming the field."""
    count = len(request.events)
    if not 0 < count <= MOST_EVENTS:
        why = (
            "is empty; send at least one event"
            if not count
            else f"has {count} elements; send at most {MOST_EVENTS:,}"
        )
        raise InvalidArgument("events", why, reason="EVENT_COUNT")
    text = request.batch_id
    batch_id, text = (parse_batch_id(text), text) if text else new_batch_id()
    return EventBatch(batch_id, text, [_given(event) for event in request.events])


def _given(event: EventMessage) -> GivenEvent:
    time_us = event.time.seconds * 1_000_000 + event.time.nanos // 1_000
    return GivenEvent(
        event.device, time_us, event.event_id, event.type, event.severity, event.content_type, event.body
    )


def events_outcome_to_message(outcome: EventOutcome) -> PublishEventsResponse:
    """The response of an outcome."""
    response = PublishEventsResponse(
        batch_id=outcome.batch_id,
        accepted_events=outcome.accepted,
        refused_events=sum(len(refusal.positions) for refusal in outcome.refusals),
        refusals=[
            EventRefusalMessage(
                reason=_REASONS[refusal.reason], positions=refusal.positions, message=refusal.message
            )
            for refusal in outcome.refusals
        ],
    )
    if outcome.retry_delay_seconds:
        response.retry_delay.FromMicroseconds(round(outcome.retry_delay_seconds * 1e6))
    return response
