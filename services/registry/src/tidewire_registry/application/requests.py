"""Making mutations safe to repeat: by callers with a `request_id`, and by ourselves after a conflict."""

import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tidewire_kit.errors import InvalidArgument, Unavailable
from tidewire_kit.ids import TenantId, Uid
from tidewire_registry.ports import Conflict, RegistryStore, Replay

REPLAY_SECONDS = 24 * 3600
"""How long a request's outcome is remembered."""
_ATTEMPTS = 100
"""In each round one of those who change the same object succeeds, so as many as that may do it at once."""


@dataclass(frozen=True, slots=True)
class RequestKey:
    """A caller's `request_id`, and a hash of everything else in the request."""

    request_id: str
    fingerprint: bytes


def check_request_id(request_id: str) -> None:
    """Raises InvalidArgument unless it is a UUID in its usual form."""
    try:
        if str(uuid.UUID(request_id)) == request_id.lower():
            return
    except ValueError:
        pass
    raise InvalidArgument("request_id", f"{request_id[:60]!r} is not a UUID; make one for each new request")


async def remembered(store: RegistryStore, scope: TenantId, key: RequestKey | None) -> Replay | None:
    """What an earlier try of this request made; None when there was none."""
    if key is None:
        return None
    replay = await store.replay(scope, key.request_id)
    if replay is not None and replay.fingerprint != key.fingerprint:
        raise InvalidArgument(
            "request_id",
            "was used for another request within 24 hours; make a new one",
            reason="REQUEST_ID_REUSED",
        )
    return replay


class _HasUid(Protocol):
    @property
    def uid(self) -> bytes: ...


def memory(
    key: RequestKey | None, ids: Sequence[str], objects: Sequence[_HasUid], now_us: int
) -> Replay | None:
    """What to keep of a request that made `objects`."""
    if key is None:
        return None
    return Replay(key.request_id, key.fingerprint, ids, [Uid(o.uid) for o in objects], now_us)


async def settled[T](decide: Callable[[], Awaitable[T]]) -> T:
    """Runs `decide` (read, decide, commit) until it meets no conflict."""
    for _ in range(_ATTEMPTS):
        try:
            return await decide()
        except Conflict:
            continue
    raise Unavailable(
        "registry store", "the object is being changed by others all the time", reason="CONTENTION"
    )
