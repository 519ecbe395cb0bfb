"""The driver's errors as the platform's: what the session raises instead of what cassandra-driver does.

Two questions decide. Can repeating help (`transient`)? And was the request possibly carried out? A request that is not
idempotent and failed after it was sent has an unknown outcome, and says so by reason OUTCOME_UNKNOWN.
"""

from typing import Any

import cassandra
from cassandra import protocol
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionBusy, ConnectionException, ConnectionShutdown
from cassandra.pool import NoConnectionsAvailable

from tidewire_kit.cassandra.settings import variable
from tidewire_kit.errors import FailedPrecondition, TidewireError, Unavailable

DEPENDENCY = "cassandra"
OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
"""Reason of Unavailable: the request may have been carried out, or may be yet. Read before repeating it."""

_TRANSIENT = (
    cassandra.OperationTimedOut,
    cassandra.Timeout,
    cassandra.Unavailable,
    cassandra.CoordinationFailure,
    NoHostAvailable,
    NoConnectionsAvailable,
    ConnectionBusy,
    ConnectionException,
    ConnectionShutdown,
    protocol.OverloadedErrorMessage,
    protocol.IsBootstrappingErrorMessage,
    protocol.ServerError,
    protocol.TruncateError,
    protocol.ClientWriteError,
    OSError,
)
_CAS_WRITE_UNKNOWN = 0x1700
"""Code of the answer to a conditional write that a node accepted and no quorum; the driver has no class for it."""
_NOT_BEGUN = (
    NoConnectionsAvailable,
    ConnectionBusy,
    protocol.IsBootstrappingErrorMessage,
    protocol.OverloadedErrorMessage,
)


def transient(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, NoHostAvailable):
        causes = _causes(error)
        return not causes or any(transient(cause) for cause in causes)
    return isinstance(error, _TRANSIENT) or getattr(error, "code", None) == _CAS_WRITE_UNKNOWN


def too_few_copies(error: BaseException) -> bool:
    """Whether a node knows that fewer copies are alive than must answer."""
    return _shortage(error) is not None


def not_begun(error: BaseException, attempted: bool) -> bool:
    """Whether it is certain that nothing was carried out. `attempted`: the request was sent to some node."""
    return not attempted or isinstance(error, _NOT_BEGUN)


def translated(error: BaseException, *, outcome_unknown: bool = False) -> TidewireError:
    """Returns what to raise for an error of the driver.

    Unavailable where waiting helps, FailedPrecondition naming the setting where an administrator must act, and
    TidewireError (INTERNAL) for statements that the server does not accept: a mistake in the program.
    """
    if isinstance(error, TidewireError):
        return error
    found = configuration_error(error)
    if found is not None:
        return found
    if transient(error):
        if outcome_unknown:
            return Unavailable(
                DEPENDENCY,
                f"no answer whether the write was done ({_kind(error)}); read before repeating it",
                reason=OUTCOME_UNKNOWN,
                retry_delay_seconds=1.0,
            )
        return Unavailable(
            DEPENDENCY, _unavailable(error), reason="STORE_UNAVAILABLE", retry_delay_seconds=1.0
        )
    return TidewireError(f"{DEPENDENCY} refused a statement ({_kind(error)}): {_text(error)}")


def configuration_error(error: BaseException) -> FailedPrecondition | None:
    """Returns the error for an administrator when `error`, or what caused it, does not pass by itself."""
    for cause in _causes(error) if isinstance(error, NoHostAvailable) else [error]:
        if isinstance(cause, cassandra.Unauthorized | protocol.UnauthorizedErrorMessage):
            return FailedPrecondition(
                f"the user of {variable('username')} may not do this: {_text(cause)}; grant it the permission",
                reason="STORE_PERMISSION_MISSING",
            )
        if isinstance(cause, cassandra.AuthenticationFailed | protocol.BadCredentials):
            return FailedPrecondition(
                f"Cassandra did not accept the user and password ({_text(cause)}); correct {variable('username')} and "
                f"the file that {variable('password_file')} names",
                reason="STORE_AUTHENTICATION",
            )
    return None


def _causes(error: NoHostAvailable) -> list[BaseException]:
    errors: Any = error.errors
    values = errors.values() if isinstance(errors, dict) else errors or ()
    return [cause for cause in values if isinstance(cause, BaseException)]


def _shortage(error: BaseException) -> Any:
    causes = _causes(error) if isinstance(error, NoHostAvailable) else [error]
    return next((cause for cause in causes if isinstance(cause, cassandra.Unavailable)), None)


def _unavailable(error: BaseException) -> str:
    shortage = _shortage(error)
    if shortage is not None:
        return (
            f"{shortage.alive_replicas} of the {shortage.required_replicas} copies needed are alive; it goes on when "
            "the nodes are back"
        )
    if isinstance(error, NoHostAvailable):
        kinds = sorted({_kind(cause) for cause in _causes(error)})
        return f"no node answers ({', '.join(kinds) or 'none is up'})"
    return f"no answer in time ({_kind(error)})"


def _kind(error: BaseException) -> str:
    return type(error).__name__


def _text(error: BaseException, limit: int = 300) -> str:
    """The server's words, which may quote a statement's text but never its bound values."""
    text = " ".join(str(error).split())
    return text if len(text) <= limit else text[:limit] + "…"
