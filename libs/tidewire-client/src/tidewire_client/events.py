"""Events: published in batches, each answered when it is durable, and listed newest first."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc.aio

from tidewire.ingestion.v1 import ingestion_pb2 as ingestion
from tidewire.ingestion.v1.ingestion_pb2_grpc import IngestionServiceStub
from tidewire.storage.v1 import storage_pb2 as storage
from tidewire.storage.v1.storage_pb2_grpc import StorageServiceStub
from tidewire.type.v1 import event_pb2
from tidewire_client.connect import INGESTION, STORAGE, AsyncConnection
from tidewire_client.errors import InvalidArgument
from tidewire_client.names import tenant_name
from tidewire_client.times import Moment, now_us, timestamp_us, to_timestamp

if TYPE_CHECKING:
    from tidewire.ingestion.v1.ingestion_pb2_grpc import IngestionServiceAsyncStub
    from tidewire.storage.v1.storage_pb2_grpc import StorageServiceAsyncStub

SEVERITIES = tuple(name for name, number in event_pb2.Severity.items() if number)
"""From the least to the gravest."""
_BATCH_EVENTS = 1_000
_BATCH_BYTES = 3 << 20
_ENTRY_BYTES = 512


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened on a device.

    Attributes:
        device: device id; "": the authenticated device.
        type: `[a-z][a-z0-9_.-]{0,62}`, such as `door.opened`.
        time: when; None: now. Listed events have int microseconds.
        severity: one of SEVERITIES, or "".
        content_type: media type of the body.
        body: at most 256 KiB.
        event_id: of the same device, time and id one is kept; "": one is derived.
        receive_time_unix_us: when the platform took it in; 0 before.
    """

    device: str
    type: str
    time: Moment | None = None
    severity: str = ""
    content_type: str = ""
    body: bytes = b""
    event_id: str = ""
    receive_time_unix_us: int = 0


@dataclass(frozen=True, slots=True)
class EventRefusal:
    """Events that were refused for one reason; `positions` are those in what was given."""

    reason: str
    positions: tuple[int, ...]
    message: str


@dataclass(frozen=True, slots=True)
class EventResult:
    """What became of published events."""

    accepted: int
    refusals: tuple[EventRefusal, ...]


class AsyncEventClient:
    """Publishes and lists events. Raises TidewireError; see `tidewire_client.errors`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection

    async def publish(self, events: Iterable[Event]) -> EventResult:
        """Publishes events in their order and returns when all are answered: durable, or refused.

        What could not be reached is tried again under the same batch id, so no event is there twice.
        """
        accepted, first = 0, 0
        refusals: list[EventRefusal] = []

        def on(
            channel: grpc.aio.Channel,
        ) -> Callable[..., Awaitable[ingestion.PublishEventsResponse]]:
            stub: IngestionServiceAsyncStub = IngestionServiceStub(channel)
            return stub.PublishEvents

        for batch in _batches([_message(event) for event in events]):
            request = ingestion.PublishEventsRequest(batch_id=str(uuid.uuid4()), events=batch)
            answer = await self.connection.call(INGESTION, on, request)
            accepted += answer.accepted_events
            refusals += [
                EventRefusal(
                    ingestion.RefusalReason.Name(one.reason),
                    tuple(first + position for position in one.positions),
                    one.message,
                )
                for one in answer.refusals
            ]
            first += len(batch)
        return EventResult(accepted, tuple(refusals))

    async def iterate(
        self,
        devices: Sequence[str] = (),
        *,
        type: str = "",  # noqa: A002 - the field's name
        min_severity: str = "",
        start: Moment | None = None,
        end: Moment | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Event]:
        """Events, newest first.

        Args:
            devices: device ids; none: all.
            type: "": all.
            min_severity: one of SEVERITIES; "": all.
            start: first moment, inclusive.
            end: last moment, exclusive.
            limit: at most so many.
        """
        request = storage.ListEventsRequest(
            parent=tenant_name(await self.connection.tenant()),
            devices=devices,
            type=type,
            min_severity=_severity(min_severity),
            start_time=to_timestamp(start, "start") if start is not None else None,
            end_time=to_timestamp(end, "end") if end is not None else None,
        )

        def on(channel: grpc.aio.Channel) -> Callable[..., Awaitable[storage.ListEventsResponse]]:
            stub: StorageServiceAsyncStub = StorageServiceStub(channel)
            return stub.ListEvents

        left = limit
        while left is None or left > 0:
            request.page_size = 1_000 if left is None else min(1_000, left)
            page = await self.connection.call(STORAGE, on, request)
            for message in page.events:
                yield _event(message)
            if left is not None:
                left -= len(page.events)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return

    async def list(
        self,
        devices: Sequence[str] = (),
        *,
        type: str = "",  # noqa: A002 - the field's name
        min_severity: str = "",
        start: Moment | None = None,
        end: Moment | None = None,
        limit: int | None = None,
    ) -> "list[Event]":
        """Events as a list; arguments as `iterate`."""
        return [
            event
            async for event in self.iterate(
                devices, type=type, min_severity=min_severity, start=start, end=end, limit=limit
            )
        ]


def _severity(name: str) -> event_pb2.Severity.ValueType:
    if name and name.upper() not in SEVERITIES:
        raise InvalidArgument(
            f"'{name}' is no severity; severities are {', '.join(SEVERITIES)}", field="severity"
        )
    return event_pb2.Severity.Value(name.upper() if name else "SEVERITY_UNSPECIFIED")


def _message(event: Event) -> event_pb2.Event:
    return event_pb2.Event(
        event_id=event.event_id,
        device=event.device,
        type=event.type,
        time=to_timestamp(now_us() if event.time is None else event.time, "time"),
        severity=_severity(event.severity),
        content_type=event.content_type,
        body=event.body,
    )


def _event(message: event_pb2.Event) -> Event:
    named = event_pb2.Severity.Name(message.severity) if message.severity else ""
    return Event(
        message.device,
        message.type,
        timestamp_us(message.time),
        named,
        message.content_type,
        message.body,
        message.event_id,
        timestamp_us(message.receive_time),
    )


def _batches(messages: Sequence[event_pb2.Event]) -> Iterable[Sequence[event_pb2.Event]]:
    batch: list[event_pb2.Event] = []
    size = 0
    for message in messages:
        own = len(message.body) + _ENTRY_BYTES
        if batch and (len(batch) == _BATCH_EVENTS or size + own > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += own
    if batch:
        yield batch
