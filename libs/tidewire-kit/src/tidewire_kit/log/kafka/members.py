"""Who is alive: heartbeats on the compacted topic `tidewire.members.v1`, written and followed by every process.

A heartbeat counts from when it was seen, so clocks need not agree; only the age of what was there before this process
looked is taken from its time stamp. Every process beats, also one that announces nothing: its own heartbeats tell it
whether the topic moves at all. While it does not, nobody expires: silence of everybody is the log's, not theirs.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from tidewire_kit.errors import TidewireError
from tidewire_kit.lasting import ended
from tidewire_kit.log.port import Member, MemberProfile, TableItem, TableReader, TopicSpec
from tidewire_kit.topics import MEMBERS

MEMBERS_SPEC = TopicSpec(MEMBERS, partitions=1, compacted=True)
HEARTBEAT_SECONDS = 2.0
GONE_SECONDS = 5.0
_OUTAGE_SECONDS = 2 * HEARTBEAT_SECONDS
_FORGOTTEN_SECONDS = 60.0
_log = logging.getLogger(__name__)

Put = Callable[[str, Sequence[TableItem]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Seen:
    member: Member
    announced: bool
    seen_at: float  # monotonic seconds


class Membership:
    """This process among the others. Everything runs on the event loop."""

    def __init__(self, put: Put, reader: TableReader) -> None:
        self.member_id = uuid.uuid4().hex
        self._put = put
        self._reader = reader
        self._profile: MemberProfile | None = None
        self._host = socket.gethostname()
        self._started_at_us = time.time_ns() // 1000
        self._seen: dict[str, _Seen] = {}
        self._moved_at = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Follows the others; returns when all that are there are known."""
        self._tasks = [asyncio.create_task(self._follow(), name="members")]
        caught_up = asyncio.create_task(self._reader.caught_up.wait())
        await asyncio.wait({caught_up, self._tasks[0]}, return_when=asyncio.FIRST_COMPLETED)
        caught_up.cancel()
        if self._tasks[0].done():
            self._tasks[0].result()
        self._tasks.append(asyncio.create_task(self._beat(), name="heartbeats"))

    def ended(self) -> str | None:
        """As of `MessageLog.ended`."""
        return ended(*self._tasks)

    async def close(self) -> None:
        """Leaves at once, as far as the log still lets us."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tasks:
            self._tasks = []
            with contextlib.suppress(TidewireError, TimeoutError):
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._put(MEMBERS, [(self.member_id.encode(), None)])

    async def announce(self, profile: MemberProfile) -> None:
        """Makes this process known, durably."""
        self._profile = profile
        await self._send()

    def members(self, service: str | None) -> list[Member]:
        """The live ones that announced themselves."""
        oldest = self._moved_at - GONE_SECONDS
        live = (
            seen.member
            for member_id, seen in self._seen.items()
            if seen.announced and (member_id == self.member_id or seen.seen_at >= oldest)
        )
        return sorted(
            (member for member in live if service is None or member.service == service),
            key=lambda member: (member.started_at_us, member.member_id),
        )

    async def _send(self) -> None:
        profile = self._profile
        entry = {
            "service": profile.service if profile else "",
            "announced": profile is not None,
            "addresses": dict(profile.addresses) if profile else {},
            "host": self._host,
            "pid": os.getpid(),
            "started_at_us": self._started_at_us,
            "beat_at_us": time.time_ns() // 1000,
        }
        value = json.dumps(entry, separators=(",", ":")).encode()
        self._take(self.member_id, value, time.monotonic())
        await self._put(MEMBERS, [(self.member_id.encode(), value)])

    async def _beat(self) -> None:
        while True:
            try:
                await self._send()
                await self._forget()
            except TidewireError as error:
                _log.warning("heartbeat failed: %s", error)
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _forget(self) -> None:
        """Removes entries of members long gone; the first of the live ones does it for all."""
        oldest = self._moved_at - GONE_SECONDS
        live = min((k for k, seen in self._seen.items() if seen.seen_at >= oldest), default=None)
        if live != self.member_id:
            return
        oldest = self._moved_at - _FORGOTTEN_SECONDS
        gone: list[TableItem] = [
            (k.encode(), None) for k, seen in self._seen.items() if seen.seen_at < oldest
        ]
        if gone:
            await self._put(MEMBERS, gone)

    async def _follow(self) -> None:
        async for batch in self._reader:
            now = time.monotonic()
            if batch and self._reader.caught_up.is_set():
                self._moved(now)
            for key, value in batch:
                self._take(key.decode(), value, now)

    def _moved(self, now: float) -> None:
        """The topic moves. After a standstill everybody gets the time of it back."""
        still = now - self._moved_at
        if still > _OUTAGE_SECONDS:
            self._seen = {k: replace(seen, seen_at=seen.seen_at + still) for k, seen in self._seen.items()}
        self._moved_at = now

    def _take(self, member_id: str, value: bytes | None, now: float) -> None:
        if value is None:
            self._seen.pop(member_id, None)
            return
        entry = json.loads(value)
        if not self._reader.caught_up.is_set():
            now -= max(0.0, time.time() - entry["beat_at_us"] / 1e6)
        member = Member(
            member_id,
            entry["service"],
            entry["host"],
            entry["pid"],
            entry["addresses"],
            entry["started_at_us"],
        )
        self._seen[member_id] = _Seen(member, entry["announced"], now)
