"""Who is alive: heartbeats on the compacted topic `tidewire.members.v1`, written and followed by every process.

The entry of a process carries its profile and, for the embedded log, the groups it consumes in; assignment follows
from that. A heartbeat counts from when it was seen, so clocks need not agree; only the age of what was there
before this process looked is taken from its time stamp. A process that died is noticed sooner by `vitals`.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tidewire_kit.errors import TidewireError
from tidewire_kit.lasting import ended
from tidewire_kit.log.embedded.settings import EmbeddedLogSettings
from tidewire_kit.log.embedded.vitals import Vitals
from tidewire_kit.log.port import Member, MemberProfile, TableItem, TableReader, TopicSpec

MEMBERS_TOPIC = "tidewire.members.v1"
MEMBERS_SPEC = TopicSpec(MEMBERS_TOPIC, partitions=1, compacted=True)

_FORGOTTEN_SECONDS = 60.0
_LOOK_SECONDS = 0.5
"""How often the others' locks and the age of their heartbeats are looked at."""
_log = logging.getLogger(__name__)

Put = Callable[[str, Sequence[TableItem]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Seen:
    member: Member
    announced: bool
    groups: Mapping[str, frozenset[str]]
    seen_at: float  # monotonic seconds


class Membership:
    """This process among the others. Everything runs on the event loop."""

    def __init__(self, settings: EmbeddedLogSettings, put: Put, reader: TableReader, directory: Path) -> None:
        self.member_id = uuid.uuid4().hex
        self._vitals = Vitals(directory, self.member_id)
        self._dead: set[str] = set()
        self._settings = settings
        self._put = put
        self._reader = reader
        self._profile: MemberProfile | None = None
        self._groups: dict[str, frozenset[str]] = {}
        self._host = socket.gethostname()
        self._started_at_us = settings.clock_us()
        self._seen: dict[str, _Seen] = {}
        self._live_ids: frozenset[str] = frozenset()
        self._listeners: list[Callable[[], None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.epoch = 0
        """Rises whenever the live members, or what they consume, change."""

    async def start(self) -> None:
        """Follows the others; returns when all that are there are known."""
        self._tasks = [
            asyncio.create_task(self._follow(), name="members"),
            asyncio.create_task(self._beat(), name="heartbeats"),
        ]
        caught_up = asyncio.create_task(self._reader.caught_up.wait())
        try:
            await asyncio.wait({caught_up, self._tasks[0]}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            caught_up.cancel()
        if self._tasks[0].done():
            self._tasks[0].result()
        self._look_for_dead()

    def ended(self) -> str | None:
        """As of `MessageLog.ended`."""
        return ended(*self._tasks)

    async def close(self) -> None:
        """Leaves at once, as far as the log still lets us."""
        try:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._tasks and self._speaks:
                with contextlib.suppress(TidewireError):
                    await self._put(MEMBERS_TOPIC, [(self.member_id.encode(), None)])
        finally:
            self._tasks = []
            self._vitals.close()

    async def announce(self, profile: MemberProfile) -> None:
        """Makes this process known, durably."""
        self._profile = profile
        await self._send()

    async def set_group(self, group: str, topics: frozenset[str]) -> None:
        """Joins a group with these topics (none: leaves it)."""
        if topics:
            self._groups[group] = topics
        else:
            self._groups.pop(group, None)
        await self._send()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Calls `listener` whenever `epoch` rises."""
        self._listeners.append(listener)

    def off_change(self, listener: Callable[[], None]) -> None:
        """Undoes `on_change`."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def members(self, service: str | None) -> list[Member]:
        """The live ones that announced themselves."""
        live = [seen.member for seen in self._live() if seen.announced]
        return sorted(
            (member for member in live if service is None or member.service == service),
            key=lambda member: (member.started_at_us, member.member_id),
        )

    def consumers(self, group: str, topic: str) -> list[str]:
        """Ids of the live members that consume `topic` in `group`; this process by what it knows of itself."""
        ids = {s.member.member_id for s in self._live() if topic in s.groups.get(group, ())} - {
            self.member_id
        }
        if topic in self._groups.get(group, ()):
            ids.add(self.member_id)
        return sorted(ids)

    @property
    def _speaks(self) -> bool:
        return self._profile is not None or bool(self._groups)

    def _live(self) -> list[_Seen]:
        oldest = time.monotonic() - self._settings.member_timeout_seconds
        return [
            seen
            for member_id, seen in self._seen.items()
            if member_id == self.member_id or (seen.seen_at >= oldest and member_id not in self._dead)
        ]

    async def _send(self) -> None:
        entry = {
            "service": self._profile.service if self._profile else "",
            "announced": self._profile is not None,
            "addresses": dict(self._profile.addresses) if self._profile else {},
            "host": self._host,
            "pid": os.getpid(),
            "groups": {group: sorted(topics) for group, topics in self._groups.items()},
            "started_at_us": self._started_at_us,
            "beat_at_us": self._settings.clock_us(),
        }
        value = json.dumps(entry, separators=(",", ":")).encode()
        self._take(self.member_id, value)
        self._notice()
        await self._put(MEMBERS_TOPIC, [(self.member_id.encode(), value)])

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._settings.heartbeat_seconds)
            try:
                if self._speaks:
                    await self._send()
                await self._forget()
            except TidewireError as error:
                _log.warning("heartbeat failed: %s", error)

    async def _forget(self) -> None:
        """Removes entries of members long gone; the first of the live ones does it for all."""
        live = sorted(seen.member.member_id for seen in self._live())
        if not live or live[0] != self.member_id:
            return
        oldest = time.monotonic() - _FORGOTTEN_SECONDS
        gone: list[TableItem] = [
            (k.encode(), None) for k, seen in self._seen.items() if seen.seen_at < oldest
        ]
        for member_id, _ in gone:
            self._vitals.forget(member_id.decode())
        if gone:
            await self._put(MEMBERS_TOPIC, gone)

    async def _follow(self) -> None:
        expiry = asyncio.create_task(self._expire())
        try:
            async for batch in self._reader:
                for key, value in batch:
                    self._take(key.decode(), value)
                self._notice()
        finally:
            expiry.cancel()

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(min(_LOOK_SECONDS, self._settings.member_timeout_seconds / 10))
            self._look_for_dead()
            self._notice()

    def _look_for_dead(self) -> None:
        self._dead &= self._seen.keys()
        for seen in self._live():
            if seen.member.member_id != self.member_id and self._vitals.is_dead(seen.member.member_id):
                self._dead.add(seen.member.member_id)

    def _take(self, member_id: str, value: bytes | None) -> None:
        if value is None:
            self._seen.pop(member_id, None)
            return
        entry = json.loads(value)
        seen_at = time.monotonic()
        if not self._reader.caught_up.is_set():
            seen_at -= max(0.0, (self._settings.clock_us() - entry["beat_at_us"]) / 1e6)
        member = Member(
            member_id,
            entry["service"],
            entry["host"],
            entry["pid"],
            entry["addresses"],
            entry["started_at_us"],
        )
        groups = {group: frozenset(topics) for group, topics in entry["groups"].items()}
        self._seen[member_id] = _Seen(member, entry["announced"], groups, seen_at)

    def _notice(self) -> None:
        """Tells the listeners if the live members or their groups differ from the last time."""
        now = frozenset(
            f"{s.member.member_id}/{group}/{topic}"
            for s in self._live()
            for group, topics in s.groups.items()
            for topic in topics
        )
        if now != self._live_ids:
            self._live_ids = now
            self.epoch += 1
            for listener in tuple(self._listeners):
                listener()
