"""The gRPC front end: bytes to batches, outcomes to bytes. Everything else is the use case's.

Requests and responses of telemetry are raw bytes here: the kit's decoder makes columns of them, which generated classes
cannot.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

from tidewire.ingestion.v1.ingestion_pb2 import PublishEventsRequest, PublishEventsResponse
from tidewire_ingestion.application.events import PublishEvents
from tidewire_ingestion.application.publish import PublishTelemetry
from tidewire_ingestion.application.submission import Lane, Submission
from tidewire_ingestion.conversions import (
    events_outcome_to_message,
    read_events,
    render_error,
    render_outcome,
)
from tidewire_kit.errors import TidewireError, Unauthenticated
from tidewire_kit.grpc import Call
from tidewire_kit.telemetry.wire import read_batch

RECHECK_SECONDS = 5.0
"""How often an idle stream's token is checked again; with the replica's delay a block holds within 10 s."""


class IngestionApi:
    """Servicer of `IngestionService`; `service_handler` wraps it with the methods of `RAW` raw."""

    RAW = frozenset({"PublishTelemetry", "StreamTelemetry"})

    def __init__(self, use_case: PublishTelemetry, events: PublishEvents, stream_window: int) -> None:
        self._use_case = use_case
        self._events = events
        self._stream_window = stream_window

    async def PublishTelemetry(self, request: bytes, call: Call) -> bytes:
        """One batch, answered when it is durable."""
        read = partial(read_batch, request)
        submission = self._use_case.publish(call.tenant, call.caller, len(request), read)
        return render_outcome(await submission.outcome)

    async def PublishEvents(self, request: PublishEventsRequest, call: Call) -> PublishEventsResponse:
        """A batch of events, answered when it is durable."""
        outcome = await self._events.publish(call.tenant, call.caller, read_events(request))
        return events_outcome_to_message(outcome)

    async def StreamTelemetry(self, requests: AsyncIterator[bytes], call: Call) -> None:
        """Many batches, each answered in order; up to `stream_window` of them wait for durability at once."""
        await _Stream(self._use_case, call, self._stream_window).run(requests)


class _Failed:
    """A batch that was not taken."""

    __slots__ = ("batch_id", "error", "sequence")

    def __init__(self, error: TidewireError, request: bytes) -> None:
        self.error = error
        self.batch_id, self.sequence = "", 0
        with contextlib.suppress(TidewireError):
            raw = read_batch(request)
            self.batch_id, self.sequence = raw.batch_id_text, raw.sequence


class _Stream:
    """One open stream: a task takes batches in, the call's own task answers, with a bounded queue between them."""

    def __init__(self, use_case: PublishTelemetry, call: Call, window: int) -> None:
        self._use_case = use_case
        self._call = call
        self._queue: asyncio.Queue[Submission | _Failed | None] = asyncio.Queue(window)
        self._ended_by: BaseException | None = None
        """Why reading ended, unless it was the client."""

    async def run(self, requests: AsyncIterator[bytes]) -> None:
        """Returns when the client has sent its last batch and all are answered.

        Raises Unauthenticated once the caller is blocked or its token has expired, after answering what was taken.
        """
        reader = asyncio.create_task(self._read(requests))
        watch = asyncio.create_task(self._watch(reader))
        try:
            while (item := await self._queue.get()) is not None:
                await self._call.context.write(await self._answer(item))
        finally:
            watch.cancel()
            reader.cancel()
            await asyncio.gather(reader, watch, return_exceptions=True)
        if self._ended_by is not None:
            raise self._ended_by

    async def _answer(self, item: Submission | _Failed) -> bytes:
        if isinstance(item, _Failed):
            return render_error(item.error, item.batch_id, item.sequence)
        try:
            return render_outcome(await item.outcome)
        except Unauthenticated:
            raise
        except TidewireError as error:
            return render_error(error, item.batch_id, item.sequence)

    async def _read(self, requests: AsyncIterator[bytes]) -> None:
        call, queue, publish, lane = self._call, self._queue, self._use_case.publish, Lane()
        try:
            tenant, caller = call.tenant, call.caller
            async for request in requests:
                call.check()
                item: Submission | _Failed
                try:
                    item = publish(tenant, caller, len(request), partial(read_batch, request), lane)
                except TidewireError as error:
                    item = _Failed(error, request)
                await queue.put(item)
        except asyncio.CancelledError:
            if self._ended_by is None:
                raise
        except Exception as error:  # noqa: BLE001 - raised again by `run`, which then has answered what was taken
            self._ended_by = error
        await queue.put(None)

    async def _watch(self, reader: asyncio.Task[None]) -> None:
        """Ends a stream whose caller may not publish any more, also when it sends nothing."""
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            try:
                self._call.check()
            except TidewireError as error:
                self._ended_by = error
                reader.cancel()
                return
