"""Sends batches in order over one stream, and again, unchanged, until each has its outcome.

The publisher hands batches in; this module owns the stream, the window, the retries and the reconnecting:

- At most `window` batches are on their way. When the stream breaks, all that have no acknowledgement are sent again, in
  order, with the same ids, on a new stream and, if the registry names another address by now, to there.
- The platform says how old a stream may become, so that new processes get their share. At that age nothing more is sent
  on it; when all that was sent is acknowledged the next one is opened. That is no trouble, and nothing is sent twice.
- A batch that was refused whole for now (a full log, a quota) is sent again after the delay that was asked for. It may
  be overtaken by those already on their way, by none that were not.
- A batch that is refused for good has its outcome, and the next one follows.
- What the platform will not forgive (a token that stays refused, `retry_seconds` without a success) ends the sender:
  every batch then has the error as its outcome.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

import grpc
import grpc.aio

from tidewire.ingestion.v1 import ingestion_pb2
from tidewire_client.backoff import Backoff
from tidewire_client.connect import INGESTION, AsyncConnection
from tidewire_client.encoding import EncodedBatch
from tidewire_client.errors import (
    Conflict,
    DeadlineExceeded,
    FailedPrecondition,
    InternalError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    PublisherClosed,
    ResourceExhausted,
    TidewireError,
    Unauthenticated,
    Unavailable,
)
from tidewire_client.pending import Pending
from tidewire_client.results import BatchResult, result_of
from tidewire_client.status import from_rpc_error, from_status
from tidewire_client.stream_age import StreamAge

STREAM = "/tidewire.ingestion.v1.IngestionService/StreamTelemetry"
log = logging.getLogger("tidewire_client")
UNARY = "/tidewire.ingestion.v1.IngestionService/PublishTelemetry"
_FOR_NOW = (Unavailable, ResourceExhausted, Conflict)
_AUTHENTICATION_SECONDS = 5.0  # a credential just made is known everywhere within that
_BROKEN_WRITE = "Internal error from Core"  # gRPC's own words, with INTERNAL: nobody has answered so
_SHORT_SECONDS = 0.5  # a stream that ended so soon, and acknowledged nothing, is not tried again at once
_INTERNAL_TRIES = 5  # of one batch, before it is taken for the cause of the server's trouble

type _Call = grpc.aio.StreamStreamCall[bytes, ingestion_pb2.PublishTelemetryResponse]


class Sender:
    """Owns the batches that have no outcome yet. Lives on one event loop; `start` before anything else.

    Args:
        connection: who to ask for channels and tokens.
        window: batches on their way at once, when streaming.
        buffer_readings: readings held at most; `enqueue` waits below that.
        streaming: False for one unary call a batch, one after the other.
        retry_seconds: how long to go on without any success; None: for ever.
        acknowledge_seconds: how long to wait for an acknowledgement before the stream is taken for dead.
        on_outcome: called on the loop with each outcome, before its future is done.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        *,
        window: int,
        buffer_readings: int,
        streaming: bool,
        retry_seconds: float | None,
        acknowledge_seconds: float,
        on_outcome: Callable[[BatchResult], None],
    ) -> None:
        self._connection = connection
        self._window = window
        self._buffer_readings = buffer_readings
        self._streaming = streaming
        self._retry_seconds = retry_seconds
        self._acknowledge_seconds = acknowledge_seconds
        self._on_outcome = on_outcome
        self._queue: deque[Pending] = deque()
        self._on_way: deque[Pending] = deque()
        self._again: list[Pending] = []
        self._held_readings = 0
        self._waiting_readings = 0
        self._hold_until = 0.0
        self._failing_since: float | None = None
        self._progress_at = 0.0
        self._acknowledged = False  # anything on the stream that is open
        self._backoff = Backoff()
        self._work = asyncio.Event()
        self._settled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.error: TidewireError | None = None
        self.last_trouble: TidewireError | None = None

    def start(self) -> None:
        """Begins to send, on the running loop."""
        self._task = asyncio.create_task(self._run(), name="tidewire-sender")

    @property
    def held_readings(self) -> int:
        """Readings without an outcome, those that wait for room included."""
        return self._held_readings + self._waiting_readings

    def has_room(self, readings: int) -> bool:
        """Whether `enqueue` would not have to wait. A batch larger than the buffer has room when it is alone."""
        return not self._held_readings or self._held_readings + readings <= self._buffer_readings

    async def enqueue(self, batch: EncodedBatch) -> asyncio.Future[BatchResult]:
        """Takes a batch; waits while the buffer is full. Raises PublisherClosed or what ended the sender.

        The future gives the batch's outcome and never raises.
        """
        self._waiting_readings += batch.readings
        try:
            while not self.has_room(batch.readings) and self.error is None:
                self._settled.clear()
                await self._settled.wait()
        finally:
            self._waiting_readings -= batch.readings
        if self.error is not None:
            raise self.error
        if self._task is None or self._task.done():
            raise PublisherClosed("the publisher is closed")
        pending = Pending(batch, asyncio.get_running_loop().create_future())
        self._queue.append(pending)
        self._held_readings += batch.readings
        self._work.set()
        return pending.future

    @property
    def _idle(self) -> bool:
        return not (self._queue or self._on_way or self._again)

    async def drain(self) -> None:
        """Waits until every batch has its outcome. Raises what ended the sender."""
        while not self._idle and self.error is None:
            self._settled.clear()
            await self._settled.wait()
        if self.error is not None:
            raise self.error

    async def close(self) -> None:
        """Stops. Batches without an outcome get PublisherClosed as theirs."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._end(PublisherClosed("the publisher was closed before the acknowledgement came"))

    def _end(self, error: TidewireError) -> None:
        for pending in [*self._on_way, *self._again, *self._queue]:
            self._finish(pending, self._failure(pending, error))
        self._on_way.clear()
        self._again.clear()
        self._queue.clear()
        self._settled.set()

    @staticmethod
    def _failure(pending: Pending, error: TidewireError) -> BatchResult:
        return BatchResult(
            pending.batch, 0, pending.batch.readings, attempts=max(1, pending.attempts), error=error
        )

    def _finish(self, pending: Pending, result: BatchResult) -> None:
        self._held_readings -= pending.batch.readings
        self._on_outcome(result)
        if not pending.future.done():
            pending.future.set_result(result)
        self._settled.set()

    async def _run(self) -> None:
        while True:
            while self._idle:
                self._work.clear()
                await self._work.wait()
            try:
                await self._try()
            except TidewireError as error:
                self.last_trouble = error
                if self._is_final(error):
                    self.error = error
                    self._end(error)
                    return
                if not self._idle:
                    await asyncio.sleep(self._backoff.next_delay(error.retry_delay_seconds))
            except Exception as fault:  # a fault of ours must end in an outcome, not in a silence
                log.exception("the sender failed")
                self.error = InternalError(f"the publisher failed: {fault!r}")
                self._end(self.error)
                return

    async def _try(self) -> None:
        try:
            await (self._stream() if self._streaming else self._one_call())
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # gRPC cancels the calls of a channel that is closed; nobody has asked this task to end.
            raise Unavailable("the connection was closed under the call") from None

    def _is_final(self, error: TidewireError) -> bool:
        """Whether to give up after the stream, or the call, failed; notes the trouble."""
        now = time.monotonic()
        if self._idle:
            return False  # a stream without work ended: the next batch opens another
        if self._failing_since is None:
            self._failing_since = now
        failing_seconds = now - self._failing_since
        if isinstance(error, Unauthenticated) or (
            isinstance(error, InvalidArgument) and not error.from_platform  # no token to be had
        ):
            if self._connection.token_source is not None:
                self._connection.token_source.renew()
            return failing_seconds > _AUTHENTICATION_SECONDS
        if isinstance(error, PermissionDenied | FailedPrecondition | NotFound):
            return True
        if self._retry_seconds is not None and failing_seconds >= self._retry_seconds:
            return True
        if not isinstance(error, _FOR_NOW):
            self._blame_first(error)
        return False

    def _blame_first(self, error: TidewireError) -> None:
        """The stream broke without a reason of its own: after some tries its first batch is held to be the cause."""
        waiting = self._on_way or self._queue
        if not waiting:
            return
        waiting[0].troubles += 1
        if waiting[0].troubles >= _INTERNAL_TRIES:
            pending = waiting.popleft()
            self._finish(pending, self._failure(pending, error))

    def _succeeded(self) -> None:
        self._failing_since = None
        self._backoff.reset()

    def _settle(self, pending: Pending, response: ingestion_pb2.PublishTelemetryResponse) -> None:
        """Gives a batch its outcome, or puts it aside to be sent again."""
        if not response.HasField("status") or response.status.code == 0:
            self._succeeded()
            result = result_of(pending.batch, response, pending.attempts)
            if result.retry_delay_seconds:
                self._hold_until = time.monotonic() + result.retry_delay_seconds
            self._finish(pending, result)
            return
        error = from_status(response.status)
        self.last_trouble = error
        if isinstance(error, Unauthenticated | PermissionDenied):
            self._on_way.appendleft(pending)
            raise error
        if isinstance(error, InternalError):
            pending.troubles += 1
        if isinstance(error, _FOR_NOW) or (
            isinstance(error, InternalError) and pending.troubles < _INTERNAL_TRIES
        ):
            if not self._again:
                delay = self._backoff.next_delay(error.retry_delay_seconds)
                self._hold_until = time.monotonic() + delay
            self._again.append(pending)
            self._failing_since = self._failing_since or time.monotonic()
            if self._retry_seconds is not None and (
                time.monotonic() - self._failing_since >= self._retry_seconds
            ):
                raise error
            return
        self._succeeded()
        self._finish(pending, self._failure(pending, error))

    def _take_back(self) -> None:
        """Everything without an outcome returns to the queue, in the order in which it was first sent."""
        back = [*self._again, *self._on_way]  # acknowledgements come in order: the refused were sent before
        self._again.clear()
        self._on_way.clear()
        self._queue.extendleft(reversed(back))

    async def _stream(self) -> None:
        """Opens a stream and works on it until it ends. Raises TidewireError when it breaks."""
        self._take_back()
        channel = await self._connection.channel(INGESTION, refresh=self._backoff.attempts > 0)
        method: grpc.aio.StreamStreamMultiCallable[bytes, ingestion_pb2.PublishTelemetryResponse] = (
            channel.stream_stream(
                STREAM, response_deserializer=ingestion_pb2.PublishTelemetryResponse.FromString
            )
        )
        call = method(metadata=self._connection.metadata())
        self._progress_at = time.monotonic()
        self._acknowledged = False
        age = StreamAge(call, self._work.set)
        tasks = {asyncio.create_task(self._read(call, age)), asyncio.create_task(self._write(call, age))}
        try:
            while True:
                done, _ = await asyncio.wait(
                    tasks, timeout=self._acknowledge_seconds / 4, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()
                if done:
                    return
                if self._on_way and time.monotonic() - self._progress_at > self._acknowledge_seconds:
                    raise DeadlineExceeded(
                        f"ingestion acknowledged nothing for {self._acknowledge_seconds:g} s"
                    )
        except grpc.aio.AioRpcError as failure:
            if failure.code() is grpc.StatusCode.UNIMPLEMENTED:
                self._streaming = False  # something on the way passes no streams
                return
            if failure.details() == _BROKEN_WRITE:
                raise Unavailable("the stream ended while it was being written to") from failure
            raise from_rpc_error(failure, INGESTION, self._address()) from failure
        finally:
            for task in tasks:
                task.cancel()
            call.cancel()
            await asyncio.gather(*tasks, age.close(), return_exceptions=True)

    def _address(self) -> str:
        return ", ".join(self._connection.known_addresses(INGESTION))

    async def _read(self, call: _Call, age: StreamAge) -> None:
        while True:
            response = await call.read()
            if not isinstance(
                response, ingestion_pb2.PublishTelemetryResponse
            ):  # the end; a failure is raised
                if self._acknowledged or age.seconds > _SHORT_SECONDS:
                    return  # of old age
                raise Unavailable("ingestion ended the stream")
            self._progress_at = time.monotonic()
            self._acknowledged = True
            if not self._on_way or response.batch_id != str(self._on_way[0].batch.batch_id):
                raise Unavailable("ingestion acknowledged a batch out of order; starting over")
            self._settle(self._on_way.popleft(), response)
            self._work.set()

    async def _write(self, call: _Call, age: StreamAge) -> None:
        while True:
            if age.reached:
                await call.done_writing()
                await asyncio.Event().wait()  # the reader sees the end, after the last acknowledgement
            if self._again and not self._on_way:
                self._take_back()
            delay = self._hold_until - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            elif self._queue and not self._again and len(self._on_way) < self._window:
                pending = self._queue.popleft()
                if not self._on_way:
                    self._progress_at = time.monotonic()
                self._on_way.append(pending)
                pending.attempts += 1
                try:
                    await call.write(pending.batch.payload)
                except asyncio.InvalidStateError:
                    await asyncio.Event().wait()  # the stream has ended: the reader tells why
            else:
                self._work.clear()
                await self._work.wait()

    async def _one_call(self) -> None:
        """Sends the first batch by a unary call. Raises TidewireError when it is to be sent again."""
        self._take_back()
        delay = self._hold_until - time.monotonic()
        if delay > 0:
            await asyncio.sleep(delay)
        pending = self._queue[0]
        channel = await self._connection.channel(INGESTION, refresh=self._backoff.attempts > 0)
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, ingestion_pb2.PublishTelemetryResponse] = (
            channel.unary_unary(
                UNARY, response_deserializer=ingestion_pb2.PublishTelemetryResponse.FromString
            )
        )
        pending.attempts += 1
        try:
            response = await method(
                pending.batch.payload,
                metadata=self._connection.metadata(),
                timeout=self._acknowledge_seconds,
            )
        except grpc.aio.AioRpcError as failure:
            error = from_rpc_error(failure, INGESTION, self._address())
            if isinstance(error, (*_FOR_NOW, InternalError, Unauthenticated, PermissionDenied)):
                raise error from failure
            self._succeeded()
            self._queue.popleft()
            self._finish(pending, self._failure(pending, error))
            return
        self._queue.popleft()
        self._settle(pending, response)
