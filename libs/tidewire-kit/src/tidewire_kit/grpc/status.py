"""Errors ↔ gRPC statuses with details (google.rpc), in one place for both directions.

`service_handler` renders what a servicer raised; clients within the platform turn what they got back into the same
errors, so that an error survives a hop. The details travel in the trailing metadata `grpc-status-details-bin`.
"""

from typing import Any, Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2 as details
from google.rpc.code_pb2 import Code
from google.rpc.status_pb2 import Status

from tidewire_kit.errors import (
    AlreadyExists,
    DeadlineExceeded,
    EtagMismatch,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    TidewireError,
    Unauthenticated,
    Unavailable,
)

ERROR_DOMAIN: Final = "tidewire.dev"
DETAILS_KEY: Final = "grpc-status-details-bin"
INTERNAL_TEXT: Final = "internal error; it is in the server's log under the trace id in the details"


def to_status(error: TidewireError) -> Status:
    """Returns the status of an error: code, message, and ErrorInfo first among the details."""
    status = Status(code=Code.Value(error.grpc_code), message=error.message)
    _add(status, details.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN, metadata=error.metadata))
    match error:
        case InvalidArgument():
            violation = details.BadRequest.FieldViolation(
                field=error.field, description=error.why, reason=error.reason
            )
            _add(status, details.BadRequest(field_violations=[violation]))
        case NotFound() | AlreadyExists() | EtagMismatch():
            _add(status, details.ResourceInfo(resource_name=error.name))
        case FailedPrecondition():
            unmet = details.PreconditionFailure.Violation(
                type=error.reason, subject=error.subject, description=error.message
            )
            _add(status, details.PreconditionFailure(violations=[unmet]))
        case QuotaExceeded():
            exceeded = details.QuotaFailure.Violation(subject=error.limit, description=error.message)
            _add(status, details.QuotaFailure(violations=[exceeded]))
        case _:
            pass
    if error.retry_delay_seconds is not None:
        delay = Duration()
        delay.FromMicroseconds(round(error.retry_delay_seconds * 1e6))
        _add(status, details.RetryInfo(retry_delay=delay))
    return status


def internal_status(trace_id: str) -> Status:
    """Returns the status of an unexpected fault: a fixed text, and where in the log to look."""
    status = Status(code=Code.INTERNAL, message=INTERNAL_TEXT)
    _add(status, details.ErrorInfo(reason="INTERNAL", domain=ERROR_DOMAIN, metadata={"trace_id": trace_id}))
    return status


def status_code(status: Status) -> grpc.StatusCode:
    """Returns the gRPC library's code of a status."""
    return grpc.StatusCode[Code.Name(status.code)]


def from_rpc_error(error: grpc.RpcError, dependency: str) -> TidewireError:
    """Returns the error that a call to another service of the platform failed with.

    Without readable details only the code is kept, and what is not the caller's mistake becomes Unavailable naming
    `dependency`.
    """
    code: grpc.StatusCode = error.code()
    text: str = error.details() or code.name
    status = _status_of(error)
    info = details.ErrorInfo()
    retry: float | None = None
    for detail in status.details if status is not None else ():
        detail.Unpack(info)
        retry_info = details.RetryInfo()
        if detail.Unpack(retry_info):
            retry = retry_info.retry_delay.ToTimedelta().total_seconds()
    metadata = dict(info.metadata)
    made = _by_code(code, text, info.reason or code.name, metadata, retry, dependency)
    made.metadata.update(metadata)
    return made


def _by_code(
    code: grpc.StatusCode,
    text: str,
    reason: str,
    metadata: dict[str, str],
    retry: float | None,
    dependency: str,
) -> TidewireError:
    error: TidewireError
    match code:
        case grpc.StatusCode.INVALID_ARGUMENT:
            field = metadata.get("field", "request")
            error = InvalidArgument(field, text.removeprefix(f"{field}: "), reason=reason)
        case grpc.StatusCode.NOT_FOUND:
            error = NotFound(metadata.get("name", dependency))
        case grpc.StatusCode.ALREADY_EXISTS:
            error = AlreadyExists(metadata.get("name", dependency))
        case grpc.StatusCode.ABORTED:
            error = EtagMismatch(metadata.get("name", dependency))
        case grpc.StatusCode.FAILED_PRECONDITION:
            error = FailedPrecondition(text, reason=reason, subject=metadata.get("subject", ""))
        case grpc.StatusCode.PERMISSION_DENIED:
            error = PermissionDenied(text, reason=reason)
        case grpc.StatusCode.UNAUTHENTICATED:
            error = Unauthenticated(text, reason=reason)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            error = DeadlineExceeded(text, reason=reason)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            limit = metadata.get("limit", dependency)
            error = QuotaExceeded(limit, text, reason=reason, retry_delay_seconds=retry or 1.0)
        case _:
            if code is grpc.StatusCode.UNAVAILABLE:
                text = text.removeprefix(f"{metadata.get('dependency', dependency)}: ")
            error = Unavailable(
                metadata.get("dependency", dependency), text, reason=reason, retry_delay_seconds=retry or 1.0
            )
    return error


def _status_of(error: grpc.RpcError) -> Status | None:
    trailing: Any = error.trailing_metadata() or ()
    for key, value in trailing:
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return Status.FromString(value)
            except DecodeError:
                return None
    return None


def _add(status: Status, detail: Message) -> None:
    packed = AnyMessage()
    packed.Pack(detail)
    status.details.append(packed)
