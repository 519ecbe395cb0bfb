"""What can go wrong, as exceptions that say what to do.

Every client turns the platform's gRPC status, with its details, into one of these, so that callers catch by kind and
never look at gRPC. The kinds follow the status codes:

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

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

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


_BY_CODE: dict[int, type[TidewireError]] = {
    code_pb2.INVALID_ARGUMENT: InvalidArgument,
    code_pb2.OUT_OF_RANGE: InvalidArgument,
    code_pb2.NOT_FOUND: NotFound,
    code_pb2.ALREADY_EXISTS: AlreadyExists,
    code_pb2.ABORTED: Conflict,
    code_pb2.FAILED_PRECONDITION: FailedPrecondition,
    code_pb2.UNAUTHENTICATED: Unauthenticated,
    code_pb2.PERMISSION_DENIED: PermissionDenied,
    code_pb2.RESOURCE_EXHAUSTED: ResourceExhausted,
    code_pb2.UNAVAILABLE: Unavailable,
    code_pb2.CANCELLED: Unavailable,
    code_pb2.DEADLINE_EXCEEDED: DeadlineExceeded,
}


def from_status(status: status_pb2.Status) -> TidewireError:
    """Turns a rich status into the exception of its code, with what its details say."""
    reason, field, delay, metadata, remedy = "", "", None, _NOTHING, ""
    info, bad, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    for detail in status.details:
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
            remedy = metadata.get("remedy", "")
        elif detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field
        elif detail.Unpack(retry):
            delay = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    kind = _BY_CODE.get(status.code, InternalError)
    if reason == "MESSAGE_TOO_LARGE":  # never a matter of time
        kind = InvalidArgument
    message = status.message or code_pb2.Code.Name(status.code)
    if remedy in message:
        remedy = ""
    error = kind(
        message, reason=reason, field=field, retry_delay_seconds=delay, metadata=metadata, remedy=remedy
    )
    error.from_platform = True
    return error


def from_rpc_error(error: grpc.aio.AioRpcError, service: str = "", address: str = "") -> TidewireError:
    """Turns what a gRPC call raised into an exception of ours.

    `service` and `address` name who was called, for the message of a call that reached nobody.
    """
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it has all the methods that are used
    except ValueError:  # details that contradict the code: trust the code
        status = None
    if status is not None:
        return from_status(status)
    number, _ = error.code().value
    kind = _BY_CODE.get(number, InternalError)
    where = f"{service} at {address}" if address else service or "the platform"
    details = error.details() or ""
    if kind is Unavailable:
        return Unavailable(f"cannot reach {where}: {_brief(details)}")
    if kind is DeadlineExceeded:
        return DeadlineExceeded(f"no answer from {where} in time")
    plain = kind(details or error.code().name)
    plain.from_platform = True
    return plain


def _brief(details: str) -> str:
    """The telling end of gRPC's nested connection messages: `… (111): Connection refused`."""
    for known in ("Connection refused", "Connection reset", "No route to host", "Name or service not known"):
        if known in details:
            return known[0].lower() + known[1:]
    if "DNS resolution failed" in details or "Could not contact DNS" in details:
        return "the host name is not known"
    if "handshake" in details.lower() or "CERTIFICATE_VERIFY_FAILED" in details:
        return f"the TLS handshake failed ({details.rsplit(':', 1)[-1].strip() or 'no reason given'})"
    return details or "no reason given"
