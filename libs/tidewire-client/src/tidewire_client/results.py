"""What became of a batch: the values that a publisher hands to its callers."""

from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID

from tidewire.ingestion.v1 import ingestion_pb2
from tidewire_client.encoding import EncodedBatch
from tidewire_client.errors import TidewireError


@dataclass(frozen=True, slots=True)
class Refusal:
    """Rows of one frame that were refused for one reason.

    Attributes:
        reason: such as `DEVICE_UNKNOWN`.
        message: what was wrong and what to do.
        frame: number of the frame in the batch.
        rows: refused rows.
        readings: readings in them.
        first_rows: numbers of the first refused rows in the frame, at most 10, rising.
        batch: the batch, for `batch.rows_at(refusal.frame, refusal.first_rows)`.
    """

    reason: str
    message: str
    frame: int
    rows: int
    readings: int
    first_rows: tuple[int, ...]
    batch: EncodedBatch

    def examples(self) -> list[tuple[str, int]]:
        """(device id, time in µs) of the first refused rows."""
        return self.batch.rows_at(self.frame, self.first_rows)


@dataclass(frozen=True, slots=True)
class BatchResult:
    """Outcome of one batch: accepted readings are durable.

    Attributes:
        batch: what was sent; `batch.tag` is the sender's.
        accepted_readings: durable readings.
        refused_readings: readings in refused rows; all of them when `error` is set.
        refusals: by frame and reason.
        missed_batches: batches that the platform misses before this one, by the publisher's count.
        retry_delay_seconds: how long to wait before sending more; set when a quota refused rows.
        attempts: how often it was sent.
        error: why nothing of it was kept; None when it was taken.
    """

    batch: EncodedBatch
    accepted_readings: int
    refused_readings: int
    refusals: tuple[Refusal, ...] = ()
    missed_batches: int = 0
    retry_delay_seconds: float | None = None
    attempts: int = 1
    error: TidewireError | None = None

    @property
    def batch_id(self) -> UUID:
        """The batch's id."""
        return self.batch.batch_id

    @property
    def ok(self) -> bool:
        """Whether every reading is durable."""
        return self.error is None and not self.refused_readings and not self.refusals


@dataclass(slots=True)
class Totals:
    """Running counts of a publisher, in readings where nothing else is said.

    `refused` are those the platform refused, by reason; `failed` those in batches that failed as a whole, refused or
    never acknowledged.
    """

    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    batches: int = 0
    resent_batches: int = 0
    missed_batches: int = 0

    @property
    def refused_readings(self) -> int:
        """Refused readings, all reasons together."""
        return sum(self.refused.values())

    def add(self, result: BatchResult) -> None:
        """Counts one outcome."""
        self.batches += 1
        self.resent_batches += result.attempts - 1
        self.accepted += result.accepted_readings
        self.missed_batches += result.missed_batches
        if result.error is not None:
            self.failed += result.batch.readings
            if result.error.from_platform:
                self.refused[result.error.reason] += result.batch.readings
        for refusal in result.refusals:
            self.refused[refusal.reason] += refusal.readings


def result_of(
    batch: EncodedBatch, response: ingestion_pb2.PublishTelemetryResponse, attempts: int
) -> BatchResult:
    """The outcome that an acknowledgement without `status` tells."""
    refusals = tuple(
        Refusal(
            ingestion_pb2.RefusalReason.Name(refusal.reason)
            if refusal.reason in ingestion_pb2.RefusalReason.values()
            else f"REASON_{refusal.reason}",
            refusal.message,
            refusal.frame,
            refusal.rows,
            refusal.readings,
            tuple(refusal.first_rows),
            batch,
        )
        for refusal in response.refusals
    )
    delay = response.retry_delay.seconds + response.retry_delay.nanos / 1e9
    return BatchResult(
        batch,
        response.accepted_readings,
        response.refused_readings,
        refusals,
        response.missed_batches,
        delay or None,
        attempts,
    )
