"""What can go wrong, as exceptions that say what to do.

`tidewire_client.status` turns the platform's gRPC status, with its details, into one of these, so that callers catch by
kind and never look at gRPC. The kinds follow the status codes:

    TidewireError
    ├── InvalidArgument      a field is wrong; `field` names it
    ├── NotFound, AlreadyExists, Conflict (an etag that is no longer current)
    ├── FailedPrecondition   the object's state does not allow it
    ├── Unauthenticated      no token, or not a valid one
    ├── PermissionDenied     a valid token that may not do this
    ├── ResourceExhausted    a quota or a full log; `retry_delay_seconds` says when to come back
    ├── Unavailable          cannot be reached, or says so itself; safe to retry
    │   └── DeadlineExceeded
    ├── InternalError        a fault of the platform, or an answer that makes no sense
    ├── BufferFull           the publisher holds as many readings as it may, and was asked not to wait
    └── PublisherClosed      the publisher was closed, or has given up
"""

from collections.abc import Mapping
from types import MappingProxyType

_NOTHING: Mapping[str, str] = MappingProxyType({})


class TidewireError(Exception):
    """Anything that the platform refused or that kept a request from it.

    Attributes:
        message: what is wrong and what to do, one sentence or two.
        reason: stable machine-readable reason in UPPER_SNAKE, such as `DEVICE_UNKNOWN`; the code's name when none came.
        field: the request's field that is wrong, or "".
        retry_delay_seconds: how long the platform asks to wait before trying again; None when it did not say.
        metadata: what is variable in the message, by name.
        remedy: what to do about it when the platform says so apart from the message, or "".
        from_platform: whether the platform answered so; else the SDK found it, or nobody answered.
    """

    code = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        field: str = "",
        retry_delay_seconds: float | None = None,
        metadata: Mapping[str, str] = _NOTHING,
        remedy: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.code
        self.field = field
        self.retry_delay_seconds = retry_delay_seconds
        self.metadata = metadata
        self.remedy = remedy
        self.from_platform = False

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}" if self.remedy else self.message


class InvalidArgument(TidewireError):
    """A field of the request is wrong."""

    code = "INVALID_ARGUMENT"


class NotFound(TidewireError):
    """There is no such object."""

    code = "NOT_FOUND"


class AlreadyExists(TidewireError):
    """An object of that name exists."""

    code = "ALREADY_EXISTS"


class Conflict(TidewireError):
    """Somebody else changed the object first."""

    code = "ABORTED"


class FailedPrecondition(TidewireError):
    """The state of the object does not allow it."""

    code = "FAILED_PRECONDITION"


class Unauthenticated(TidewireError):
    """There is no token, or it is not valid."""

    code = "UNAUTHENTICATED"


class PermissionDenied(TidewireError):
    """The token is valid, and its roles do not allow this."""

    code = "PERMISSION_DENIED"


class ResourceExhausted(TidewireError):
    """A quota is used up, or the log is full."""

    code = "RESOURCE_EXHAUSTED"


class Unavailable(TidewireError):
    """The platform cannot be reached, or cannot serve now. Safe to retry."""

    code = "UNAVAILABLE"


class DeadlineExceeded(Unavailable):
    """No answer came in time; whether the request took effect is not known."""

    code = "DEADLINE_EXCEEDED"


class InternalError(TidewireError):
    """A fault of the platform."""

    code = "INTERNAL"


class BufferFull(TidewireError):
    """The publisher holds as many unacknowledged readings as it may."""

    code = "BUFFER_FULL"


class PublisherClosed(TidewireError):
    """The publisher was closed, or has given up."""

    code = "PUBLISHER_CLOSED"
