"""Events, newest first, by pages."""

from collections.abc import Sequence
from dataclasses import dataclass

from tidewire_kit.errors import InvalidArgument
from tidewire_kit.ids import TenantId
from tidewire_storage.application import page_token
from tidewire_storage.application.names import Names
from tidewire_storage.application.sweep import MAX_US
from tidewire_storage.ports import EventFilter, EventKey, EventStore, StoredEvent

_PAGE_BYTES = 2 << 20
_MIN_US = -(1 << 62)


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events with their devices' names."""

    events: list[tuple[str, StoredEvent]]
    next_page_token: str


class ListEvents:
    """The use case."""

    def __init__(self, store: EventStore, names: Names) -> None:
        self._store = store
        self._names = names

    async def page(
        self,
        tenant: TenantId,
        device_ids: Sequence[str],
        type_: str,
        min_severity: int,
        start_us: int | None,
        end_us: int | None,
        size: int,
        token: str,
    ) -> EventPage:
        """A page. NotFound for a device that does not exist, InvalidArgument for a token of another question."""
        view = self._names.tenant(tenant)
        devices = (
            frozenset(self._names.device(tenant, name)[0] for name in device_ids) if device_ids else None
        )
        start, end = _MIN_US if start_us is None else start_us, MAX_US if end_us is None else end_us
        wanted = EventFilter(devices, type_, min_severity, start, end)
        question = ("events", tenant, sorted(device_ids), type_, min_severity, start_us, end_us)
        after = _key(page_token.read(token, question))
        found = await self._store.page(tenant, wanted, after, size, _PAGE_BYTES)
        # One of a device that is deleted and not yet purged has no name; it is nobody's any more.
        slot_of, names = view.devices.slot_by_uid, view.devices.names
        events = [
            (names[slot_of[item.event.device_uid]], item)
            for item in found
            if item.event.device_uid in slot_of
        ]
        more = len(found) >= size or sum(len(item.event.body) for item in found) >= _PAGE_BYTES
        return EventPage(events, page_token.make(question, _position(found[-1].key)) if more else "")


def _position(key: EventKey) -> str:
    return f"{key.time_us} {key.device_uid.hex()} {key.event_id}"


def _key(position: str) -> EventKey | None:
    if not position:
        return None
    try:
        time, device, event_id = position.split(" ")
        return EventKey(int(time), bytes.fromhex(device), event_id)
    except ValueError:
        raise InvalidArgument(
            "page_token", "is not a token; pass the next_page_token of the page before unchanged"
        ) from None
