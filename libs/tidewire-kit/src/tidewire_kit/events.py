"""Events on the log: how batches become records of the topic, and how readers get it back.

Ingestion writes by `EventWriter`; every reader of the topic decodes by `decode_events`. Events are rare beside
readings, so this is plain messages, one object an event.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum

from google.protobuf.message import DecodeError

from tidewire.events.v1.event_record_pb2 import EventEntry
from tidewire.events.v1.event_record_pb2 import EventRecord as EventRecordMessage
from tidewire_kit.ids import UID_BYTES, TenantId, partition_of
from tidewire_kit.log.port import Buffer, MessageLog, Outgoing
from tidewire_kit.observability import messaging, traces

MOST_BODY_BYTES = 256 << 10
"""Largest body of an event: 256 KiB."""
_RECORD_BYTES = 900_000
"""Where a record ends: below the log's `MAX_RECORD_BYTES` with room for what is not counted."""
_ENTRY_BYTES = 64
"""About what an entry takes beside its texts and its body."""
_MOST_NAME = 63
"""Characters of an id or a type."""
_MOST_CONTENT_TYPE = 127
_MOST_SEVERITY = 24
"""OpenTelemetry's last."""
_END_US = 253_402_300_800_000_000
"""The year 10000, which no timestamp of the API can say."""


class Severity(IntEnum):
    """How grave an event is; numbers as in the API, which are OpenTelemetry's."""

    UNSPECIFIED = 0
    TRACE = 1
    DEBUG = 5
    INFO = 9
    WARN = 13
    ERROR = 17
    FATAL = 21


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a tenant's device. Device, time and id together are its identity."""

    device_uid: bytes
    """16 bytes."""
    time_us: int
    """Event time, unix µs."""
    event_id: str
    type: str
    severity: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class EventRecord:
    """Events of one batch, all in one partition."""

    tenant: TenantId
    publisher_uid: bytes
    batch_id: bytes
    received_us: int
    """When the batch was received, unix µs."""
    events: list[Event]
    """At least one."""


def derived_id(publisher_uid: bytes, batch_id: bytes, position: int, event: Event) -> str:
    """The id of an event that came without one: 32 hexadecimal digits of all that makes a retry a retry.

    The content is part of it: what is sent under a batch id that was used before, but is another event, is kept.
    """
    digest = hashlib.blake2b(digest_size=16)
    severity = str(event.severity)
    for text in (event.type, severity, event.content_type, str(event.time_us), str(position)):
        digest.update(len(text).to_bytes(4, "little") + text.encode())
    digest.update(publisher_uid + batch_id + event.device_uid + event.body)
    return digest.hexdigest()


def encode_events(record: EventRecord) -> list[bytes]:
    """Serialises a record, as several when it is too large for one."""
    return [
        EventRecordMessage(
            tenant_uid=record.tenant,
            publisher_uid=record.publisher_uid,
            batch_id=record.batch_id,
            received_time_unix_us=record.received_us,
            events=[
                EventEntry(
                    device_uid=event.device_uid,
                    time_unix_us=event.time_us,
                    event_id=event.event_id,
                    type=event.type,
                    severity=event.severity,
                    content_type=event.content_type,
                    body=event.body,
                )
                for event in part
            ],
        ).SerializeToString()
        for part in _parts(record.events)
    ]


def _parts(events: Iterable[Event]) -> Iterator[list[Event]]:
    part: list[Event] = []
    size = 0
    for event in events:
        own = (
            len(event.body)
            + 4 * len(event.content_type)
            + _ENTRY_BYTES
            + len(event.type)
            + len(event.event_id)
        )
        if part and size + own > _RECORD_BYTES:
            yield part
            part, size = [], 0
        part.append(event)
        size += own
    if part:
        yield part


def decode_events(value: Buffer) -> EventRecord:
    """Parses a record of the topic. ValueError when it is none."""
    try:
        message = EventRecordMessage.FromString(bytes(value))
    except DecodeError as error:
        raise ValueError(f"not an EventRecord: {error}") from error
    if len(message.tenant_uid) != UID_BYTES or not message.events:
        raise ValueError("an EventRecord without tenant or events")
    events = []
    for entry in message.events:
        _check(entry)
        events.append(
            Event(
                entry.device_uid,
                entry.time_unix_us,
                entry.event_id,
                entry.type,
                entry.severity,
                entry.content_type,
                entry.body,
            )
        )
    return EventRecord(
        TenantId(message.tenant_uid),
        message.publisher_uid,
        message.batch_id,
        message.received_time_unix_us,
        events,
    )


def _check(entry: EventEntry) -> None:
    """ValueError unless every store can keep the event, and the API can show it."""
    if len(entry.device_uid) != UID_BYTES or not entry.event_id or not entry.type:
        raise ValueError("an event without device, id or type")
    for name, size, most in (
        ("event_id", len(entry.event_id), _MOST_NAME),
        ("type", len(entry.type), _MOST_NAME),
        ("content_type", len(entry.content_type), _MOST_CONTENT_TYPE),
        ("severity", entry.severity, _MOST_SEVERITY),
        ("body", len(entry.body), MOST_BODY_BYTES),
    ):
        if size > most:
            raise ValueError(f"an event whose {name} is too large: {size}; at most {most}")
    if not 0 <= entry.time_unix_us < _END_US:
        raise ValueError("an event before the year 1970 or after 9999")


def claimed_events(value: Buffer) -> int:
    """Events that a record which cannot be processed says it carries; 1 when that cannot be read."""
    try:
        return max(1, len(EventRecordMessage.FromString(bytes(value)).events))
    except DecodeError:
        return 1


class EventWriter:
    """Appends events to a topic."""

    def __init__(self, log: MessageLog, topic: str) -> None:
        self._log = log
        self._topic = topic
        self._tracing = traces.exporting()

    async def write(self, record: EventRecord) -> None:
        """Returns when all events of a batch, of whatever devices, are durable: by one commit of the log.

        Events of one device keep their order. Raises what `MessageLog.produce` does.
        """
        partitions = self._log.partitions(self._topic)
        by_partition: dict[int, list[Event]] = {}
        for event in record.events:
            number = partition_of(record.tenant, event.device_uid, partitions)
            by_partition.setdefault(number, []).append(event)
        outgoing = [*self._outgoing(record, by_partition)]
        context = messaging.current() if self._tracing else None
        if context is None:
            await self._log.produce(self._topic, outgoing)
            return
        span = messaging.SendSpan(self._topic, [context], len(outgoing))
        failure: Exception | None = None
        try:
            traced = [replace(one, headers=span.headers) for one in outgoing]
            await self._log.produce(self._topic, traced)
        except Exception as error:
            failure = error
            raise
        finally:
            span.end(failure)

    def _outgoing(self, record: EventRecord, by_partition: dict[int, list[Event]]) -> Iterator[Outgoing]:
        for number, events in by_partition.items():
            part = EventRecord(
                record.tenant, record.publisher_uid, record.batch_id, record.received_us, events
            )
            for value in encode_events(part):
                yield Outgoing(number, b"", [value])
