"""What ingestion decides on: reasons to refuse rows, and the outcome of a batch."""

from dataclasses import dataclass, field
from enum import IntEnum

MIN_TIME_US = 946_684_800_000_000
"""2000-01-01T00:00:00Z: older times come from clocks that were never set."""
MAX_AHEAD_US = 600_000_000
"""10 minutes: clocks that are further ahead would hide what follows."""
MAX_METRICS = 1_000
"""Metrics of one device, and columns of one frame."""
FIRST_ROWS = 10
"""Row numbers that a refusal names."""


class Reason(IntEnum):
    """Why rows were refused; numbers as in the API. A row has one: of several, the one that is checked first."""

    DEVICE_UNKNOWN = 1
    DEVICE_BLOCKED = 2
    NOT_YOUR_DEVICE = 3
    QUOTA_TENANT = 4
    QUOTA_DEVICE = 5
    CLOCK_SKEW = 6
    NOT_FINITE = 7
    BAD_METRIC = 8
    TOO_MANY_METRICS = 9
    BAD_EVENT = 10
    BODY_TOO_LARGE = 11


@dataclass(frozen=True, slots=True)
class Refusal:
    """Rows of one frame that were refused for one reason."""

    reason: Reason
    frame: int
    rows: int
    readings: int
    first_rows: tuple[int, ...]
    """Rising, at most `FIRST_ROWS`."""
    message: str
    """What was wrong and what to do, naming the field."""


@dataclass(slots=True)
class Outcome:
    """What became of a batch. Holds once its admitted rows are durable."""

    batch_id: str
    sequence: int
    accepted_readings: int = 0
    refused_readings: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    missed_batches: int = 0
    retry_delay_seconds: float = 0.0
    """0 unless a quota refused rows."""


@dataclass(frozen=True, slots=True)
class GivenEvent:
    """An event as it came; only the types of its fields are known."""

    device: str
    """Empty: the caller's."""
    time_us: int
    event_id: str
    """Empty: to be derived."""
    type: str
    severity: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class EventBatch:
    """The unit of sending, acknowledging and retrying events."""

    batch_id: bytes
    """16 bytes: idempotency key within (tenant, publisher)."""
    batch_id_text: str
    events: list[GivenEvent]
    """At least one."""


@dataclass(frozen=True, slots=True)
class EventRefusal:
    """Events of a batch that were refused for one reason."""

    reason: Reason
    positions: tuple[int, ...]
    """Rising."""
    message: str
    """What was wrong with the first and what to do, naming the field."""


@dataclass(frozen=True, slots=True)
class EventOutcome:
    """What became of a batch of events. Holds once the admitted ones are durable."""

    batch_id: str
    accepted: int
    refusals: list[EventRefusal]
    retry_delay_seconds: float
    """0 unless a quota refused events."""
