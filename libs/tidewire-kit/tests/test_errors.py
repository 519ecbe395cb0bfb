"""Errors and statuses: the table that callers of the API rely on, in both directions."""

import pickle

import grpc
import pytest
from google.rpc import error_details_pb2 as details
from grpc import aio

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
from tidewire_kit.grpc.limits import MessageTooLarge
from tidewire_kit.grpc.status import DETAILS_KEY, ERROR_DOMAIN, from_rpc_error, status_code, to_status
from tidewire_kit.log import LogFull, NotOwner

TABLE = [
    (InvalidArgument("device_id", "is empty"), "INVALID_ARGUMENT", "INVALID_ARGUMENT", details.BadRequest),
    (
        InvalidArgument("filter", "at 3", reason="FILTER_SYNTAX"),
        "INVALID_ARGUMENT",
        "FILTER_SYNTAX",
        details.BadRequest,
    ),
    (NotFound("tenants/a"), "NOT_FOUND", "NOT_FOUND", details.ResourceInfo),
    (AlreadyExists("tenants/a"), "ALREADY_EXISTS", "ALREADY_EXISTS", details.ResourceInfo),
    (EtagMismatch("tenants/a"), "ABORTED", "ETAG_MISMATCH", details.ResourceInfo),
    (
        FailedPrecondition("has children", reason="HAS_CHILDREN", subject="tenants/a/devices/b"),
        "FAILED_PRECONDITION",
        "HAS_CHILDREN",
        details.PreconditionFailure,
    ),
    (PermissionDenied("no"), "PERMISSION_DENIED", "PERMISSION_DENIED", None),
    (Unauthenticated("who?", reason="TOKEN_EXPIRED"), "UNAUTHENTICATED", "TOKEN_EXPIRED", None),
    (DeadlineExceeded("too late"), "DEADLINE_EXCEEDED", "DEADLINE_TOO_SHORT", None),
    (
        QuotaExceeded("readings_per_second", "too many", reason="QUOTA_TENANT", retry_delay_seconds=2.5),
        "RESOURCE_EXHAUSTED",
        "QUOTA_TENANT",
        details.QuotaFailure,
    ),
    (Unavailable("log", "is full", retry_delay_seconds=5.0), "UNAVAILABLE", "UNAVAILABLE", details.RetryInfo),
    (LogFull("no room"), "RESOURCE_EXHAUSTED", "LOG_FULL", details.QuotaFailure),
    (NotOwner("t", 1), "FAILED_PRECONDITION", "NOT_OWNER", details.PreconditionFailure),
    (MessageTooLarge(5_000_000), "RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE", None),
]


@pytest.mark.parametrize(("error", "code", "reason", "detail"), TABLE, ids=lambda value: str(value)[:30])
def test_each_error_has_its_status(error: TidewireError, code: str, reason: str, detail: type | None) -> None:
    status = to_status(error)
    assert status_code(status) is grpc.StatusCode[code]
    assert status.message == error.message
    info = details.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (reason, ERROR_DOMAIN)
    assert dict(info.metadata) == error.metadata
    kinds = [any_message.TypeName() for any_message in status.details]
    if detail is not None:
        assert detail.DESCRIPTOR.full_name in kinds
    assert ("google.rpc.RetryInfo" in kinds) == (error.retry_delay_seconds is not None)


@pytest.mark.parametrize(("error", "code", "reason", "detail"), TABLE, ids=lambda value: str(value)[:30])
def test_an_error_survives_a_hop(error: TidewireError, code: str, reason: str, detail: type | None) -> None:
    status = to_status(error)
    trailing = aio.Metadata((DETAILS_KEY, status.SerializeToString()))
    rpc_error = aio.AioRpcError(grpc.StatusCode[code], aio.Metadata(), trailing, details=status.message)
    again = from_rpc_error(rpc_error, "registry")
    assert again.grpc_code == error.grpc_code
    assert again.reason == reason
    assert again.message == error.message
    assert again.metadata.items() >= error.metadata.items()
    if error.retry_delay_seconds is not None:
        assert again.retry_delay_seconds == error.retry_delay_seconds


def test_a_status_without_details_keeps_its_code_and_names_the_dependency() -> None:
    rpc_error = aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, aio.Metadata(), aio.Metadata(), details="refused"
    )
    again = from_rpc_error(rpc_error, "registry")
    assert isinstance(again, Unavailable)
    assert again.message == "registry: refused"


def test_damaged_details_are_as_none() -> None:
    trailing = aio.Metadata((DETAILS_KEY, b"\xff\xff\xff"))
    rpc_error = aio.AioRpcError(grpc.StatusCode.INTERNAL, aio.Metadata(), trailing, details="broken")
    assert isinstance(from_rpc_error(rpc_error, "registry"), Unavailable)


@pytest.mark.parametrize("error", [row[0] for row in TABLE], ids=lambda error: type(error).__name__)
def test_errors_cross_processes(error: TidewireError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert again.__dict__ == error.__dict__
    assert str(again) == str(error)
