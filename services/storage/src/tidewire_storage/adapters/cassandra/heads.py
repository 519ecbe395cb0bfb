"""Places and their heads: what storage adds to the kit's journal, which makes a commit of a place atomic.

A commit is broken off harmlessly at any point: before the head moves nothing has happened but bytes that nobody names
(`orphans` removes them), after it whoever looks at the head next carries out what it says. The bytes of blocks are
acknowledged before the head moves, so a head never names what is not there; that also holds on a single node that loses
the end of its commit log, as what survives of it is a prefix (docs/reference/cassandra.md).
"""

import asyncio
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tidewire_kit.cassandra.journal import Entry, Journal
from tidewire_kit.cassandra.journal import Head as UnitHead
from tidewire_kit.ids import new_uid
from tidewire_storage.adapters.cassandra.tables import Mutation, Tables, decode_entry, encode_entry
from tidewire_storage.domain.blocks import TopicPartitionKey

_STATE = struct.Struct("<qq")
_UNIT = struct.Struct(">16sI")
_NOTHING = -1
_MANY_MUTATIONS = 64

_WRITE_PLACE = "INSERT INTO storage_places (topic, incarnation, log_partition) VALUES (?, ?, ?)"
_PLACES = "SELECT incarnation, log_partition FROM storage_places WHERE topic = ?"


@dataclass(frozen=True, slots=True)
class Head:
    """What a place stands at; version 0: nothing was ever committed."""

    version: int
    next_offset: int | None
    log_time_us: int


@dataclass(frozen=True, slots=True)
class Change:
    """What a commit makes of a place."""

    next_offset: int | None
    log_time_us: int
    mutations: Sequence[Mutation]


def now_us() -> int:
    """Wall time in µs."""
    return time.time_ns() // 1000


def new_attempt() -> bytes:
    """16 bytes, never used before, which begin with the time."""
    return now_us().to_bytes(8, "big") + new_uid()[:8]


def attempt_us(attempt: bytes) -> int:
    """When an attempt began."""
    return int.from_bytes(attempt[:8], "big")


class Heads:
    """The heads of a topic's places. On one loop."""

    def __init__(self, tables: Tables, topic: str) -> None:
        self._tables = tables
        self._topic = topic
        self._journal: Journal
        self._registered: set[TopicPartitionKey] = set()

    async def open(self) -> None:
        """Prepares statements."""
        self._journal = await Journal.open(self._tables.session, "storage_heads", self._carry_out)

    async def close(self) -> None:
        """Waits for what is being carried out."""
        await self._journal.close()

    async def places(self) -> list[TopicPartitionKey]:
        """All places that may have anything."""
        rows = await self._tables.rows(_PLACES, self._topic)
        return [TopicPartitionKey(row.incarnation, row.log_partition) for row in rows]

    async def head(self, place: TopicPartitionKey) -> Head:
        """The head, with all that it says carried out."""
        return _head(await self._journal.settle(_unit(place)))

    async def commit(
        self, place: TopicPartitionKey, build: Callable[[Head], Awaitable[Change | None]]
    ) -> Head | None:
        """Commits what `build` makes of the head; see `Journal.commit`. None: there was nothing to do."""
        if place not in self._registered:
            await self._tables.rows(_WRITE_PLACE, self._topic, place.incarnation, place.partition)
            self._registered.add(place)

        async def build_entry(unit: UnitHead) -> Entry | None:
            change = await build(_head(unit))
            if change is None:
                return None
            body: bytes | None = None
            if (
                len(change.mutations) > _MANY_MUTATIONS
            ):  # many tenants: milliseconds, which others need not wait
                body = await asyncio.to_thread(encode_entry, change.mutations)
            elif change.mutations:
                body = encode_entry(change.mutations)
            next_offset = _NOTHING if change.next_offset is None else change.next_offset
            return Entry(body, _STATE.pack(next_offset, change.log_time_us))

        head = await self._journal.commit(_unit(place), build_entry)
        return None if head is None else _head(head)

    async def fence(self, place: TopicPartitionKey) -> None:
        """Moves the head without changing anything else: no conditional write begun before succeeds after it."""

        async def nothing(head: Head) -> Change:
            return Change(head.next_offset, head.log_time_us, [])

        await self.commit(place, nothing)

    async def _carry_out(self, unit: bytes, version: int, body: bytes) -> None:
        await self._tables.carry_out(decode_entry(body), version)


def _unit(place: TopicPartitionKey) -> bytes:
    return _UNIT.pack(place.incarnation, place.partition)


def _head(unit: UnitHead) -> Head:
    if not unit.state:
        return Head(unit.version, None, 0)
    next_offset, log_time_us = _STATE.unpack(unit.state)
    return Head(unit.version, None if next_offset == _NOTHING else next_offset, log_time_us)
