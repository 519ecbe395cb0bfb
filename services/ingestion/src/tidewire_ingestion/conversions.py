"""Between the API's messages and the domain's values."""

from google.protobuf.duration_pb2 import Duration

from tidewire.ingestion.v1.ingestion_pb2 import PublishTelemetryResponse, RefusalReason
from tidewire.ingestion.v1.ingestion_pb2 import Refusal as RefusalMessage
from tidewire_ingestion.domain import Outcome, Reason, Refusal
from tidewire_kit.errors import TidewireError
from tidewire_kit.grpc import to_status
from tidewire_kit.telemetry.record import varint

_REASONS: dict[Reason, RefusalReason.ValueType] = {
    reason: RefusalReason.Value(reason.name) for reason in Reason
}


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
