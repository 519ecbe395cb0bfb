"""From gRPC statuses, with their details, to the exceptions of `tidewire_client.errors`: only this place knows both."""

from collections.abc import Mapping
from types import MappingProxyType

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from tidewire_client.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    FailedPrecondition,
    InternalError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    TidewireError,
    Unauthenticated,
    Unavailable,
)
from tidewire_client.unreachable import unreachable

_NOTHING: Mapping[str, str] = MappingProxyType({})

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
        return unreachable(where, address, details)
    if kind is DeadlineExceeded:
        return DeadlineExceeded(f"no answer from {where} in time")
    plain = kind(details or error.code().name)
    plain.from_platform = True
    return plain
