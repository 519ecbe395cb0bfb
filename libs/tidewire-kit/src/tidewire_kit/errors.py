"""The errors of the platform: what use cases, ports and adapters raise, and what callers of the API are told.

There is one small tree, so that one place (`tidewire_kit.grpc.status`) turns it into gRPC statuses and nobody else
needs to know gRPC. Everything that is not in the tree reaches a caller as INTERNAL with a fixed text. A message names
the field or object at fault and the remedy, and never holds a secret. Drivers' errors are logged and replaced.

    TidewireError                INTERNAL
    ├── InvalidArgument          INVALID_ARGUMENT      the caller's mistake; names the field
    ├── NotFound                 NOT_FOUND
    ├── AlreadyExists            ALREADY_EXISTS
    ├── EtagMismatch             ABORTED               read again, then write
    ├── FailedPrecondition       FAILED_PRECONDITION   not in this state; names what must change first
    ├── PermissionDenied         PERMISSION_DENIED     raised before any look-up, so it says nothing of existence
    ├── Unauthenticated          UNAUTHENTICATED
    ├── DeadlineExceeded         DEADLINE_EXCEEDED     nothing was begun
    ├── QuotaExceeded            RESOURCE_EXHAUSTED    may be repeated after `retry_delay_seconds`
    └── Unavailable              UNAVAILABLE           safe to repeat after `retry_delay_seconds`
"""

from collections.abc import Mapping
from typing import ClassVar


class TidewireError(Exception):
    """Base of the tree. Raised itself only for faults of ours (INTERNAL); `message` is then not shown to callers."""

    grpc_code: ClassVar[str] = "INTERNAL"
    """Name of the `grpc.StatusCode` that a caller of the API gets."""

    def __init__(
        self,
        message: str,
        *,
        reason: str = "INTERNAL",
        metadata: Mapping[str, str] | None = None,
        retry_delay_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        """What is wrong and what to do, for people."""
        self.reason = reason
        """UPPER_SNAKE, stable, for programs; unique within the domain `tidewire.dev`."""
        self.metadata: dict[str, str] = dict(metadata or {})
        """Everything dynamic in `message`, for programs."""
        self.retry_delay_seconds = retry_delay_seconds
        """Wait at least this long before trying again; None: trying again does not help."""

    def __reduce__(self) -> tuple[object, ...]:
        """Pickles by value: constructors of the subclasses take other arguments than `args`."""
        return _restore, (type(self), self.__dict__, self.args)


def _restore(cls: type[TidewireError], state: dict[str, object], args: tuple[object, ...]) -> TidewireError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


class InvalidArgument(TidewireError):
    """A field, setting or argument has a value that is never accepted."""

    grpc_code: ClassVar[str] = "INVALID_ARGUMENT"

    def __init__(self, field: str, why: str, *, reason: str = "INVALID_ARGUMENT") -> None:
        super().__init__(f"{field}: {why}", reason=reason, metadata={"field": field})
        self.field = field
        self.why = why


class NotFound(TidewireError):
    """There is no such object, or none that this caller may see. `name` is its resource name."""

    grpc_code: ClassVar[str] = "NOT_FOUND"

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} does not exist", reason="NOT_FOUND", metadata={"name": name})
        self.name = name


class AlreadyExists(TidewireError):
    """An object of this resource name exists."""

    grpc_code: ClassVar[str] = "ALREADY_EXISTS"

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} exists already", reason="ALREADY_EXISTS", metadata={"name": name})
        self.name = name


class EtagMismatch(TidewireError):
    """The object was changed by somebody else since the caller read it."""

    grpc_code: ClassVar[str] = "ABORTED"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} has changed since it was read; read it again and repeat with its new etag",
            reason="ETAG_MISMATCH",
            metadata={"name": name},
        )
        self.name = name


class FailedPrecondition(TidewireError):
    """The system is not in the state that the call needs, and repeating it alone does not help."""

    grpc_code: ClassVar[str] = "FAILED_PRECONDITION"

    def __init__(self, why: str, *, reason: str, subject: str = "") -> None:
        super().__init__(why, reason=reason, metadata={"subject": subject} if subject else None)
        self.subject = subject
        """The object, file or address that is in the wrong state."""


class PermissionDenied(TidewireError):
    """The caller is known and may not do this. Raise it before any check of existence."""

    grpc_code: ClassVar[str] = "PERMISSION_DENIED"

    def __init__(self, why: str, *, reason: str = "PERMISSION_DENIED") -> None:
        super().__init__(why, reason=reason)


class Unauthenticated(TidewireError):
    """It is not known who calls: no token, or one that does not hold (any more)."""

    grpc_code: ClassVar[str] = "UNAUTHENTICATED"

    def __init__(self, why: str, *, reason: str = "UNAUTHENTICATED") -> None:
        super().__init__(why, reason=reason)


class DeadlineExceeded(TidewireError):
    """The caller left too little time; nothing was begun."""

    grpc_code: ClassVar[str] = "DEADLINE_EXCEEDED"

    def __init__(self, why: str, *, reason: str = "DEADLINE_TOO_SHORT") -> None:
        super().__init__(why, reason=reason)


class QuotaExceeded(TidewireError):
    """A limit is reached. `limit` names it (for example `readings_per_second`)."""

    grpc_code: ClassVar[str] = "RESOURCE_EXHAUSTED"

    def __init__(self, limit: str, why: str, *, reason: str, retry_delay_seconds: float) -> None:
        super().__init__(
            why, reason=reason, metadata={"limit": limit}, retry_delay_seconds=retry_delay_seconds
        )
        self.limit = limit


class Unavailable(TidewireError):
    """Something that we depend on does not answer, or we are stopping. Safe to repeat with the same ids."""

    grpc_code: ClassVar[str] = "UNAVAILABLE"

    def __init__(
        self,
        dependency: str,
        why: str,
        *,
        reason: str = "UNAVAILABLE",
        retry_delay_seconds: float = 1.0,
    ) -> None:
        super().__init__(
            f"{dependency}: {why}",
            reason=reason,
            metadata={"dependency": dependency},
            retry_delay_seconds=retry_delay_seconds,
        )
        self.dependency = dependency
