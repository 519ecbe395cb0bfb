"""What the message log raises beyond plain `Unavailable`; part of the port, the same for every adapter.

TidewireError
├── QuotaExceeded ── LogFull         nothing was appended; room comes back by itself or by an administrator
├── FailedPrecondition
│   ├── TopicMismatch                a topic exists with another shape
│   └── NotOwner                     the partition is not (any more) this consumer's
├── NotFound ── UnknownTopic         a topic that this process has not ensured
└── LogCorrupt                       data that was durable is damaged: stop and restore, never skip
"""

from tidewire_kit.errors import FailedPrecondition, NotFound, QuotaExceeded, TidewireError


class LogFull(QuotaExceeded):
    """The log has reached its cap, or the disk its floor, and nothing that may go is left. Nothing was appended."""

    def __init__(self, why: str, *, retry_delay_seconds: float = 5.0) -> None:
        super().__init__("message log", why, reason="LOG_FULL", retry_delay_seconds=retry_delay_seconds)


class TopicMismatch(FailedPrecondition):
    """A topic exists with another partition count, kind or incarnation."""

    def __init__(self, why: str, *, topic: str) -> None:
        super().__init__(why, reason="TOPIC_MISMATCH", subject=topic)


class NotOwner(FailedPrecondition):
    """The partition is not assigned to this consumer, or no longer."""

    def __init__(self, topic: str, partition: int) -> None:
        why = f"partition {partition} of {topic} is not assigned to this consumer; wait for `assigned`"
        super().__init__(why, reason="NOT_OWNER", subject=f"{topic}/{partition}")


class UnknownTopic(NotFound):
    """The topic was not ensured by this process."""


class LogCorrupt(TidewireError):
    """Data below the durable position is damaged. `place` names file and byte position, for the administrator."""
