"""The use case of events: decides on a batch of them, and answers when the admitted ones are durable.

Beside `PublishTelemetry`, with the same devices, quotas and reasons. Events are rare, so they are looked at one by one
and a batch goes to the log by itself.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tidewire_ingestion.application.admission import device_codes
from tidewire_ingestion.application.resolution import Resolution
from tidewire_ingestion.application.tenants import Tenants, TenantState
from tidewire_ingestion.domain import (
    MAX_AHEAD_US,
    MIN_TIME_US,
    EventBatch,
    EventOutcome,
    EventRefusal,
    GivenEvent,
    Reason,
)
from tidewire_ingestion.ports import EventObserver
from tidewire_kit.clock import Clock
from tidewire_kit.directory import Directory, TenantView
from tidewire_kit.errors import InvalidArgument, QuotaExceeded, TidewireError, Unauthenticated
from tidewire_kit.events import MOST_BODY_BYTES, Event, EventRecord, Severity, derived_id
from tidewire_kit.identity import Caller
from tidewire_kit.ids import TenantId

_TYPE = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,62}")
_CONTENT_TYPE_CHARACTERS = 127
_SEVERITIES = frozenset(Severity)
_SHOWN = 80

_WHY = {
    Reason.DEVICE_UNKNOWN: "device: {device}: no such device in this tenant; create it first, or correct the id",
    Reason.DEVICE_BLOCKED: "device: {device}: blocked, quarantined or retired; unblock it before it publishes",
    Reason.NOT_YOUR_DEVICE: "device: {device}: neither the caller nor below it; publish with that device's own "
    "credential, or make the caller its gateway",
    Reason.QUOTA_TENANT: "{detail} of the tenant is used up; send these events again after the delay, "
    "under a new batch_id",
    Reason.QUOTA_DEVICE: "device_readings_per_second is used up by {device}; send these events again after the delay, "
    "under a new batch_id",
    Reason.CLOCK_SKEW: "time: send one from the year 2000 to 10 minutes ahead, and set the device's clock",
    Reason.BODY_TOO_LARGE: "body: {detail} bytes; an event has at most 262144 (256 KiB)",
    Reason.BAD_EVENT: "{detail}",
}


class Writer(Protocol):
    """Makes events durable."""

    async def write(self, record: EventRecord) -> None:
        """See `tidewire_kit.events.EventWriter.write`."""


class PublishEvents:
    """Use from one event loop."""

    def __init__(
        self,
        directory: Directory,
        writer: Writer,
        resolution: Resolution,
        clock: Clock,
        observer: EventObserver,
        tenants: Tenants,
        *,
        pending_bytes: int,
    ) -> None:
        """`pending_bytes`: most bytes of bodies that may wait for the log; above it batches are refused."""
        self._directory = directory
        self._writer = writer
        self._resolution = resolution
        self._clock = clock
        self._observer = observer
        self._tenants = tenants
        self._most_pending = pending_bytes
        self._pending = 0

    async def publish(self, tenant: TenantId, caller: Caller, batch: EventBatch) -> EventOutcome:
        """Returns what became of the batch, once that is durable.

        Raises InvalidArgument, Unauthenticated (the tenant is blocked), Unavailable (stale directory, registry, log)
        and QuotaExceeded (OVERLOADED, LOG_FULL); then the batch is to be sent again with the same id.
        """
        received_us = self._clock.now_us()
        try:
            outcome = await self._publish(tenant, caller, batch, received_us)
        except TidewireError as error:
            self._observer.failed(tenant, error.reason)
            raise
        self._observer.events_answered(tenant, outcome.accepted)
        for refusal in outcome.refusals:
            self._observer.events_refused(tenant, refusal.reason, len(refusal.positions))
        return outcome

    async def _publish(
        self, tenant: TenantId, caller: Caller, batch: EventBatch, received_us: int
    ) -> EventOutcome:
        view = self._view(tenant)
        names = [event.device or caller.device_id for event in batch.events]
        if not all(names):
            field = f"events[{names.index('')}].device"
            raise InvalidArgument(
                field, "is empty, and the caller is not a device; name the device", reason="NO_DEVICES"
            )
        slots = _slots(view, caller, batch.events, names)
        if (slots < 0).any():
            await self._resolution.resolve(tenant, dict.fromkeys(names), view.devices.slot_of)
            view = self._view(tenant)
            slots = _slots(view, caller, batch.events, names)
        state = self._tenants.state(view)
        now = self._clock.monotonic()
        found = _Decision(state, batch.events, names, slots)
        found.check(caller, received_us, now)
        admitted = found.admitted()
        outcome = EventOutcome(batch.batch_id_text, len(admitted), found.refusals(), found.delay)
        if admitted:
            publisher, uids = caller.publisher_uid, view.devices.uids
            events = [
                _event(publisher, batch, position, uids[slots[position]].tobytes()) for position in admitted
            ]
            record = EventRecord(tenant, publisher, batch.batch_id, received_us, events)
            try:
                await self._write(record)
            except TidewireError:
                state.readings.put_back(len(admitted))
                raise
        return outcome

    async def _write(self, record: EventRecord) -> None:
        size = sum(len(event.body) for event in record.events)
        if self._pending and self._pending + size > self._most_pending:
            why = "too many bytes of events wait to become durable; send the batch again after the delay"
            raise QuotaExceeded("pending_bytes", why, reason="OVERLOADED", retry_delay_seconds=0.2)
        self._pending += size
        try:
            await self._writer.write(record)
        finally:
            self._pending -= size

    def _view(self, tenant: TenantId) -> TenantView:
        self._directory.require_fresh()
        view = self._directory.tenant(tenant)
        if view is None or not view.active:
            raise Unauthenticated(
                "the tenant is blocked, deleted or unknown; ask its administrator", reason="TENANT_BLOCKED"
            )
        return view


class _Decision:
    """Which events of a batch are admitted, and why others are not. Checks in order; the first that fails counts."""

    def __init__(
        self, state: TenantState, events: Sequence[GivenEvent], names: Sequence[str], slots: NDArray[np.intp]
    ) -> None:
        self._state = state
        self._events = events
        self._names = names
        self._slots = slots
        self._refused: dict[int, tuple[Reason, str]] = {}
        """Position → reason and detail."""
        self.delay = 0.0
        """Seconds until a quota has room; 0 unless one refused something."""

    def check(self, caller: Caller, received_us: int, now: float) -> None:
        """Decides."""
        state = self._state
        if state.batches.take(1, now) == 0:
            self.delay = state.batches.delay(1)
            self._refuse(range(len(self._events)), Reason.QUOTA_TENANT, "batches_per_second")
            return
        codes = device_codes(state, caller, self._slots)
        for position, event in enumerate(self._events):
            if fault := _fault(event):
                self._refuse([position], Reason.BAD_EVENT, fault)
            elif codes is not None and codes[position]:
                self._refuse([position], Reason(int(codes[position])))
            elif not MIN_TIME_US <= event.time_us <= received_us + MAX_AHEAD_US:
                self._refuse([position], Reason.CLOCK_SKEW)
            elif len(event.body) > MOST_BODY_BYTES:
                self._refuse([position], Reason.BODY_TOO_LARGE, str(len(event.body)))
        self._take_quotas(now)

    def _take_quotas(self, now: float) -> None:
        state, left = self._state, self.admitted()
        if left and state.device_readings.limited:
            over, delay = state.device_readings.take(self._slots[left], np.ones(len(left), np.int64), now)
            if over is not None:
                self.delay = max(self.delay, delay)
                self._refuse((left[place] for place in np.flatnonzero(over).tolist()), Reason.QUOTA_DEVICE)
                left = self.admitted()
        granted = state.readings.take(len(left), now) if left else 0
        if granted < len(left):
            self.delay = max(self.delay, state.readings.delay(len(left) - granted))
            self._refuse(left[granted:], Reason.QUOTA_TENANT, "readings_per_second")

    def _refuse(self, positions: Iterable[int], reason: Reason, detail: str = "") -> None:
        for position in positions:
            self._refused[position] = (reason, detail)

    def admitted(self) -> list[int]:
        """Positions of the events that are not refused."""
        return [position for position in range(len(self._events)) if position not in self._refused]

    def refusals(self) -> list[EventRefusal]:
        """The others, by reason."""
        by_reason: dict[Reason, list[int]] = {}
        for position in sorted(self._refused):
            by_reason.setdefault(self._refused[position][0], []).append(position)
        return [
            EventRefusal(reason, tuple(positions), self._message(reason, positions[0]))
            for reason, positions in sorted(by_reason.items())
        ]

    def _message(self, reason: Reason, position: int) -> str:
        device = repr(self._names[position][:_SHOWN])
        detail = self._refused[position][1]
        return f"events[{position}]." + _WHY[reason].format(device=device, detail=detail)


def _slots(
    view: TenantView, caller: Caller, events: Sequence[GivenEvent], names: Sequence[str]
) -> NDArray[np.intp]:
    """(events,): slot of each event's device; -1: not known."""
    table = view.devices
    own = -1 if caller.device_uid is None else table.slot_by_uid.get(caller.device_uid, -1)
    get = table.slot_of.get
    found = (get(name, -1) if event.device else own for event, name in zip(events, names, strict=True))
    return np.fromiter(found, np.intp, len(names))


def _fault(event: GivenEvent) -> str:
    """What is wrong with the fields of an event, naming the field; "" when nothing is."""
    if _TYPE.fullmatch(event.type) is None:
        return f"type: {event.type[:_SHOWN]!r} is not valid; use [a-z][a-z0-9_.-]{{0,62}}"
    if event.event_id and _ID.fullmatch(event.event_id) is None:
        return f"event_id: {event.event_id[:_SHOWN]!r} is not valid; use [A-Za-z0-9][A-Za-z0-9._:-]{{0,62}}, or none"
    if event.severity not in _SEVERITIES:
        return f"severity: {event.severity} is none; use TRACE, DEBUG, INFO, WARN, ERROR or FATAL"
    if len(event.content_type) > _CONTENT_TYPE_CHARACTERS:
        return f"content_type: {len(event.content_type)} characters; use at most {_CONTENT_TYPE_CHARACTERS}"
    return ""


def _event(publisher_uid: bytes, batch: EventBatch, position: int, device_uid: bytes) -> Event:
    given = batch.events[position]
    event = Event(
        device_uid,
        given.time_us,
        given.event_id,
        given.type,
        given.severity,
        given.content_type,
        given.body,
    )
    if given.event_id:
        return event
    event_id = derived_id(publisher_uid, batch.batch_id, position, event)
    return Event(
        device_uid, event.time_us, event_id, event.type, event.severity, event.content_type, event.body
    )
