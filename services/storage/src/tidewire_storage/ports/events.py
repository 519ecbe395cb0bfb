"""What storage needs of a place for events.

The owner of the events topic writes, queries read, upkeep removes. `tests/contract` says in tests what this module says
in words; the embedded and the Cassandra adapter pass it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tidewire_kit.events import Event, EventRecord
from tidewire_kit.ids import TenantId
from tidewire_storage.domain.blocks import TopicPartitionKey


@dataclass(frozen=True, slots=True)
class EventFlush:
    """What becomes durable of a partition of the events topic: the whole or nothing of it counts."""

    place: TopicPartitionKey
    expected_offset: int | None
    """Progress that must be stored now (None: none), else ProgressMoved."""
    next_offset: int
    records: Sequence[tuple[int, EventRecord]]
    """(offset, record), rising, all before `next_offset`."""
    dead_lettered: int = 0
    """Events of records that could not be processed."""


@dataclass(slots=True)
class EventAccount:
    """What became of the events that were read from the log; `accepted` is all of them."""

    accepted: int = 0
    stored: int = 0
    duplicate: int = 0
    dead_lettered: int = 0
    dropped: int = 0
    """Of tenants and devices that were deleted by then."""
    removed: int = 0
    """Stored, and removed again by retention or deletion. 0 where the store does not count them."""
    present: int | None = None
    """Counted again in the store; None where that is too much work."""

    @property
    def difference(self) -> int:
        """Events lost (positive) or there twice (negative); 0 always."""
        lost = self.accepted - self.stored - self.duplicate - self.dead_lettered - self.dropped
        return lost + (0 if self.present is None else self.stored - self.removed - self.present)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it is found again."""

    event: Event
    received_us: int

    @property
    def key(self) -> "EventKey":
        """Its place in the order."""
        return EventKey(self.event.time_us, self.event.device_uid, self.event.event_id)


@dataclass(frozen=True, slots=True, order=True)
class EventKey:
    """Identity of an event within its tenant; events are listed by it, falling."""

    time_us: int
    device_uid: bytes
    event_id: str


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are asked for."""

    devices: frozenset[bytes] | None
    """Uids; None: all."""
    type: str
    """Empty: all."""
    min_severity: int
    start_us: int
    end_us: int
    """Exclusive."""


class EventStore(Protocol):
    """Where events are kept. The tenant is the first argument of whatever concerns one tenant.

    An event is stored once however often it is committed, and in whatever flush: its key is its identity. What a
    `commit` that returned has written is seen by every `page` that begins later, in any process of the platform.
    """

    async def open(self) -> None:
        """Before anything else. Raises FailedPrecondition, saying what to do, and Unavailable."""

    async def close(self) -> None:
        """Lets go of everything. Idempotent."""

    async def progress(self, places: Collection[TopicPartitionKey]) -> Mapping[TopicPartitionKey, int | None]:
        """How far each place is stored; None: nothing of it is. Every place is in the answer. Raises Unavailable."""

    async def commit(self, flush: EventFlush) -> EventAccount:
        """Makes a flush durable; returns what became of its events. Raises ProgressMoved, StoreFull (nothing was
        written), Unavailable (unknown: ask `progress`), and RecordRefused where it is one record that cannot be kept.
        Nothing is counted twice, whatever was raised before."""

    async def page(
        self, tenant: TenantId, wanted: EventFilter, after: EventKey | None, limit: int, most_bytes: int
    ) -> list[StoredEvent]:
        """Events below `after` (None: from the newest on), falling by key. Fewer than `limit` only at the end, or when
        their bodies have `most_bytes`; at least one where there is one."""

    async def account(self) -> EventAccount:
        """The sums over all tenants."""

    async def expire(self, tenant: TenantId, before_us: int) -> int:
        """Removes a tenant's events before this time. Returns how many, as far as it knows."""

    async def bury(self, tenants: Collection[TenantId], devices: Collection[tuple[TenantId, bytes]]) -> int:
        """Removes all of deleted tenants and (tenant, device uid)s, and stores nothing of them any more. Idempotent.
        Returns the events removed, as far as it knows."""
