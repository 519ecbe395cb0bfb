"""The coalescing producer: makes the admitted frames of many requests durable with few commits.

While one commit is in flight the requests that arrive are gathered; they go with the next one. So an idle service
commits at once, and a busy one writes few and large records. When the processor becomes the limit, commits are spaced
out (see `pace`). Ingestion has one producer per process, on its event loop.
"""

import asyncio
import copy
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

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

Prepare = Callable[[], Sequence[Admitted]]
"""Returns a request's admitted frames, none when nothing was admitted. May raise; only this request fails then."""
Done = Callable[[Exception | None], None]
"""Told once that all rows of a request are durable (None), or why not. Must be quick and must not raise."""


@dataclass(frozen=True, slots=True)
class ProducerLimits:
    """Bounds of the producer."""

    gather_seconds: float = 0.002
    """Requests wait for the commit before theirs at most this long; then a second commit goes along with it."""
    busy_gather_seconds: float = 0.006
    """Time between two commits when the loop's thread is busy all the time; less when it is less busy."""
    gather_bytes: int = 256 << 10
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


class _Request:
    __slots__ = ("done", "prepare", "size", "span", "tenant")

    def __init__(self, tenant: TenantId, size: int, prepare: Prepare, done: Done) -> None:
        self.tenant = tenant
        self.size = size
        self.prepare = prepare
        self.done = done
        self.span: SpanContext | None = None
        """Of the call that made it, while calls are traced."""


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
        self._waiting: deque[_Request] = deque()
        self._waiting_bytes = 0
        self._pending_bytes = 0
        self._tenant_bytes: dict[TenantId, int] = {}
        self._in_flight = 0
        self._pace = Pace(self._limits.busy_gather_seconds)
        self._next_commit = 0.0
        """Time of the loop before which no commit starts without a reason."""
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

        def done(error: Exception | None) -> None:
            if durable.done():
                return  # its caller is gone
            if error is None:
                durable.set_result(None)
            else:
                durable.set_exception(error)
                durable.exception()  # a caller that does not look is no fault of ours

        self.submit(tenant, sum(frame.bytes for frame in frames), lambda: frames, done)
        return durable

    def submit(self, tenant: TenantId, size: int, prepare: Prepare, done: Done) -> None:
        """As `publish`, for a request of about `size` bytes whose frames are still to be made.

        `prepare` is called when a commit is put together: requests are then decoded and decided on back to back, with
        code and data still in the processor's caches, which makes small requests several times cheaper.
        """
        if self._closed:
            why = "is stopping; send the batch to another endpoint"
            raise Unavailable("ingestion", why, reason="DRAINING")
        held = self._tenant_bytes.get(tenant, 0)
        self._check_room(held, size)
        self._tenant_bytes[tenant] = held + size
        self._pending_bytes += size
        self._waiting_bytes += size
        self._waiting.append(_Request(tenant, size, prepare, done))
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
            self._timer = self._loop.call_later(delay, self._commit_now)
        else:
            # Not at once: what else arrived in this round of the loop shall share the commit.
            self._scheduled = self._loop.call_soon(self._commit_now)

    def _commit_now(self) -> None:
        """Starts a commit of what waits; called by the loop."""
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting or self._in_flight >= self._limits.commits_in_flight:
            return
        self._next_commit = self._loop.time() + self._pace.spacing()
        requests, frames = self._take()
        if not requests:
            self._go_on()
            return
        try:
            records = gather(frames, self._partitions)
        except Exception as error:
            logger.exception("gather_failed", requests=len(requests))
            self._resolve(requests, error)
            return
        self._in_flight += 1
        task = self._loop.create_task(self._commit(requests, records))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take(self) -> tuple[list[_Request], list[Admitted]]:
        """Prepares what fits into one commit. Requests with nothing to commit are done with here."""
        requests: list[_Request] = []
        frames: list[Admitted] = []
        waiting = self._waiting
        room = self._limits.commit_bytes
        while waiting and (room == self._limits.commit_bytes or waiting[0].size <= room):
            request = waiting.popleft()
            self._waiting_bytes -= request.size
            room -= request.size
            try:
                admitted = request.prepare()
            except Exception as error:  # noqa: BLE001 - whoever made the request is told, whatever it is
                self._finish(request, error)
                continue
            if admitted:
                requests.append(request)
                frames += admitted
            else:
                self._finish(request, None)
        return requests, frames

    async def _commit(self, requests: list[_Request], records: list[Outgoing]) -> None:
        started = self._clock.monotonic()
        error: Exception | None = None
        span: messaging.SendSpan | None = None
        if self._tracing:
            span = messaging.SendSpan(
                self._topic, [each.span for each in requests if each.span], len(records)
            )
            records = [replace(record, headers=span.headers) for record in records]
        try:
            await self._log.produce(self._topic, records)
        except TidewireError as failure:
            error = failure
        except asyncio.CancelledError:
            error = Unavailable("message log", "was interrupted; repeat with the same batch id")
            raise
        except Exception as failure:
            logger.exception("produce_failed", requests=len(requests))
            error = failure
        finally:
            if span is not None:
                span.end(error)
            self._in_flight -= 1
            self._resolve(requests, error)
        if self._observer is not None:
            if error is None:
                size = sum(len(piece) for record in records for piece in record.value)
                self._observer.committed(self._clock.monotonic() - started, len(requests), len(records), size)
            else:
                self._observer.commit_failed(error, len(requests))

    def _resolve(self, requests: list[_Request], error: Exception | None) -> None:
        for request in requests:
            # Each error is raised on its own, with its own traceback.
            self._finish(request, None if error is None else copy.copy(error))
        self._go_on()

    def _finish(self, request: _Request, error: Exception | None) -> None:
        self._pending_bytes -= request.size
        held = self._tenant_bytes[request.tenant] - request.size
        if held:
            self._tenant_bytes[request.tenant] = held
        else:
            del self._tenant_bytes[request.tenant]
        request.done(error)

    def _go_on(self) -> None:
        if self._waiting:
            self._schedule()
        elif self._in_flight == 0:
            self._idle.set()
