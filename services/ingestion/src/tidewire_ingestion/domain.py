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
