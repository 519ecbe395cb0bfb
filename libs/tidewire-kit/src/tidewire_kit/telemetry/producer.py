"""The coalescing producer: makes the admitted frames of many requests durable with few commits.

While one commit is in flight the requests that arrive are gathered; they go with the next one. So an idle service
commits at once, and a busy one writes few and large records. When the processor becomes the limit, commits are spaced
out (see `pace`). Ingestion has one producer per process, on its event loop.
"""

import asyncio
import copy
import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from tidewire_kit.clock import Clock
from tidewire_kit.errors import QuotaExceeded, TidewireError, Unavailable
from tidewire_kit.ids import TenantId
from tidewire_kit.log.port import MessageLog, Outgoing
from tidewire_kit.observability import messaging, traces
from tidewire_kit.observability.logs import get_logger
from tidewire_kit.telemetry.admitted import Admitted
from tidewire_kit.telemetry.gather import gather
from tidewire_kit.telemetry.pace import Pace

if TYPE_CHECKING:  # the library is optional
    from opentelemetry.trace import SpanContext

logger = get_logger(__name__)


class Prepared(Protocol):
    """What requests that were prepared together come to."""

    @property
    def frames(self) -> Sequence[Admitted]:
        """Their rows, in the order in which they are to lie in the log; none when nothing was admitted."""

    def done(self, error: Exception | None) -> None:
        """Told once that all these rows are durable (None), or why not; not called when there are none.

        Must be quick and must not raise.
        """


class Preparer[R](Protocol):
    """Whoever makes frames of requests."""

    def prepare(self, requests: Sequence[R]) -> Prepared:
        """Decides on requests, in their order. Whoever waits for one that puts nothing into a commit is told at once.

        Must not raise: a request that cannot be decided on fails alone.
        """


@dataclass(frozen=True, slots=True)
class ProducerLimits:
    """Bounds of the producer."""

    gather_seconds: float = 0.002
    """Requests wait for the commit before theirs at most this long; then a second commit goes along with it."""
    calm_gather_seconds: float = 0.0025
    """Most time between two commits while the loop's thread has time to spare; none while few requests come."""
    busy_gather_seconds: float = 0.012
    """The same when it is busy all the time."""
    gather_bytes: int = 1 << 20
    """Neither wait applies when this much is there: enough to be worth a commit."""
    commits_in_flight: int = 2
    commit_bytes: int = 4 << 20
    """A commit takes no further request once it has this much."""
    pending_bytes: int = 64 << 20
    """Admitted and not yet durable, all requests together; above it requests are refused."""
    tenant_share: float = 0.5
    """Part of `pending_bytes` that one tenant may take, so that the others find room."""


class ProducerObserver(Protocol):
    """Told what the producer does; must be quick and must not raise."""

    def committed(self, seconds: float, requests: int, records: int, value_bytes: int) -> None:
        """A commit became durable `seconds` after it was given to the log."""

    def commit_failed(self, error: Exception, requests: int) -> None:
        """A commit failed, with all requests that it carried."""


class _Request[R]:
    __slots__ = ("preparer", "request", "size", "span", "tenant")

    def __init__(self, tenant: TenantId, size: int, preparer: Preparer[R], request: R) -> None:
        self.tenant = tenant
        self.size = size
        self.preparer = preparer
        self.request = request
        self.span: SpanContext | None = None
        """Of the call that made it, while calls are traced."""


class _Commit:
    """The requests of one commit, and what they came to."""

    __slots__ = ("prepared", "requests")

    def __init__(self, requests: "list[_Request[Any]]", prepared: list[Prepared]) -> None:
        self.requests = requests
        self.prepared = prepared


class _Given:
    """Frames that were made before they were given to `publish`, and the future that waits for them."""

    __slots__ = ("durable", "frames")

    def __init__(self, frames: Sequence[Admitted], durable: "asyncio.Future[None]") -> None:
        self.frames = frames
        self.durable = durable

    def done(self, error: Exception | None) -> None:
        if self.durable.done():
            return  # its caller is gone
        if error is None:
            self.durable.set_result(None)
        else:
            self.durable.set_exception(copy.copy(error))  # raised on its own, with its own traceback
            self.durable.exception()  # a caller that does not look is no fault of ours


class _AllGiven:
    """`Prepared` of `_Given` requests."""

    def __init__(self, requests: Sequence[_Given]) -> None:
        self._requests = requests
        self.frames = [frame for request in requests for frame in request.frames]

    def done(self, error: Exception | None) -> None:
        for request in self._requests:
            request.done(error)


class _GivenPreparer:
    def prepare(self, requests: Sequence[_Given]) -> _AllGiven:
        return _AllGiven(requests)


_GIVEN = _GivenPreparer()


class TelemetryProducer:
    """Use from one event loop. Requests commit in the order of the calls of `publish` and `submit`.

    Order: if two requests hold readings of one device, those of the earlier call lie first in the log, or the earlier
    call has failed.
    """

    def __init__(
        self,
        log: MessageLog,
        topic: str,
        clock: Clock,
        *,
        limits: ProducerLimits | None = None,
        observer: ProducerObserver | None = None,
    ) -> None:
        """`topic` is ensured already."""
        self._log = log
        self._topic = topic
        self._partitions = log.partitions(topic)
        self._clock = clock
        self._limits = limits or ProducerLimits()
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Request[Any]] = deque()
        self._waiting_bytes = 0
        self._pending_bytes = 0
        self._tenant_bytes: dict[TenantId, int] = {}
        self._in_flight = 0
        self._pace = Pace(self._limits.calm_gather_seconds, self._limits.busy_gather_seconds)
        self._next_commit = 0.0
        """Time of the loop before which no commit starts without a reason."""
        self._due = 0.0
        """When `_timer` is to fire."""
        self._scheduled: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._tracing = traces.exporting()
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def pending_bytes(self) -> int:
        """About how much is admitted and not yet durable."""
        return self._pending_bytes

    def publish(self, tenant: TenantId, frames: Sequence[Admitted]) -> asyncio.Future[None]:
        """Takes the frames of one request (at least one); the future is done once all their rows are durable.

        Raises QuotaExceeded (OVERLOADED) when too much is pending and Unavailable (DRAINING) after `close`; nothing was
        taken then. The future fails with what the log raised; after LogFull nothing of the request is in the log,
        otherwise some of it may be, and a retry with the same batch id is not visible twice.
        """
        durable: asyncio.Future[None] = self._loop.create_future()
        size = sum(frame.bytes for frame in frames)
        self.submit(tenant, size, _GIVEN, _Given(frames, durable))
        return durable

    def submit[R](self, tenant: TenantId, size: int, preparer: Preparer[R], request: R) -> None:
        """As `publish`, for a request of about `size` bytes whose frames `preparer` is still to make.

        It is asked when a commit is put together, for all requests of the commit that follow each other and name the
        same preparer: deciding on many together costs little more than deciding on one.
        """
        if self._closed:
            why = "is stopping; send the batch to another endpoint"
            raise Unavailable("ingestion", why, reason="DRAINING")
        size = max(1, size)  # what is counted must not come to nothing while it is held
        held = self._tenant_bytes.get(tenant, 0)
        self._check_room(held, size)
        self._tenant_bytes[tenant] = held + size
        self._pending_bytes += size
        self._waiting_bytes += size
        self._waiting.append(_Request(tenant, size, preparer, request))
        if self._tracing:
            self._waiting[-1].span = messaging.current()
        self._idle.clear()
        self._schedule()

    async def flush(self) -> None:
        """Returns when everything taken so far is durable or has failed."""
        await self._idle.wait()

    async def close(self) -> None:
        """Takes nothing more, and returns when everything taken is durable or has failed. Idempotent."""
        self._closed = True
        await self.flush()

    # Inside

    def _check_room(self, tenant_held: int, size: int) -> None:
        limits = self._limits
        if self._pending_bytes and self._pending_bytes + size > limits.pending_bytes:
            limit, most = "pending_bytes", limits.pending_bytes
        elif tenant_held and tenant_held + size > limits.pending_bytes * limits.tenant_share:
            limit, most = "tenant_pending_bytes", int(limits.pending_bytes * limits.tenant_share)
        else:
            return
        why = f"more than {most >> 20} MiB wait to become durable; send the batch again after the delay"
        raise QuotaExceeded(limit, why, reason="OVERLOADED", retry_delay_seconds=0.2)

    def _schedule(self) -> None:
        """Sees to it that what waits is committed in time."""
        if self._scheduled is not None or self._in_flight >= self._limits.commits_in_flight:
            return
        if self._waiting_bytes >= self._limits.gather_bytes:
            delay = 0.0
        elif self._timer is not None:
            return
        else:
            delay = self._next_commit - self._loop.time()
            if self._in_flight:
                delay = max(delay, self._limits.gather_seconds)
        if delay > 0:
            self._due = self._loop.time() + delay
            self._timer = self._loop.call_at(self._due, self._commit_now)
        else:
            # Not at once: what else arrived in this round of the loop shall share the commit.
            self._scheduled = self._loop.call_soon(self._commit_now)

    def _commit_now(self) -> None:
        """Starts a commit of what waits; called by the loop."""
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        now, late = self._loop.time(), 0.0
        if self._timer is not None:
            late = max(0.0, now - self._due)
            self._timer.cancel()
            self._timer = None
        if not self._waiting or self._in_flight >= self._limits.commits_in_flight:
            return
        commit = self._take()
        self._next_commit = now + self._pace.spacing(len(commit.requests), late)
        frames = [frame for prepared in commit.prepared for frame in prepared.frames]
        if not frames:
            self._resolve(commit, None)
            return
        try:
            records = gather(frames, self._partitions)
        except Exception as error:
            logger.exception("gather_failed", requests=len(commit.requests))
            self._resolve(commit, error)
            return
        self._in_flight += 1
        task = self._loop.create_task(self._commit(commit, records))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take(self) -> _Commit:
        """Takes and prepares what fits into one commit."""
        requests: list[_Request[Any]] = []
        prepared: list[Prepared] = []
        waiting = self._waiting
        room = self._limits.commit_bytes
        while waiting and (not requests or waiting[0].size <= room):
            request = waiting.popleft()
            room -= request.size
            requests.append(request)
        self._waiting_bytes -= self._limits.commit_bytes - room
        for preparer, alike in itertools.groupby(requests, _preparer_of):
            prepared.append(preparer.prepare([each.request for each in alike]))
        return _Commit(requests, [each for each in prepared if each.frames])

    async def _commit(self, commit: _Commit, records: list[Outgoing]) -> None:
        started = self._clock.monotonic()
        error: Exception | None = None
        count = len(commit.requests)
        span: messaging.SendSpan | None = None
        try:
            if self._tracing:
                traced = [each.span for each in commit.requests if each.span]
                span = messaging.SendSpan(self._topic, traced, len(records))
                records = [replace(record, headers=span.headers) for record in records]
            await self._log.produce(self._topic, records)
        except TidewireError as failure:
            error = failure
        except asyncio.CancelledError:
            error = Unavailable("message log", "was interrupted; repeat with the same batch id")
            raise
        except Exception as failure:
            logger.exception("produce_failed", requests=count)
            error = failure
        finally:
            self._in_flight -= 1
            self._resolve(commit, error)
            if span is not None:
                span.end(error)
        if self._observer is not None:
            if error is None:
                size = sum(len(piece) for record in records for piece in record.value)
                self._observer.committed(self._clock.monotonic() - started, count, len(records), size)
            else:
                self._observer.commit_failed(error, count)

    def _resolve(self, commit: _Commit, error: Exception | None) -> None:
        held = self._tenant_bytes
        for request in commit.requests:
            self._pending_bytes -= request.size
            rest = held[request.tenant] - request.size
            if rest:
                held[request.tenant] = rest
            else:
                del held[request.tenant]
        for prepared in commit.prepared:
            prepared.done(error)
        if self._waiting:
            self._schedule()
        elif self._in_flight == 0:
            self._idle.set()


def _preparer_of(request: _Request[Any]) -> Any:
    return request.preparer
