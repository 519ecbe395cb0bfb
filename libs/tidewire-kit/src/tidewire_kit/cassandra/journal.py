"""Commits over several rows and tables that are atomic by ONE conditional write. Used by the stores of both services.

A *unit* is what commits one after the other: a tenant of the registry, a partition of the log in storage. It has a
head row; a commit replaces the head if its version is still the one that was read, and the new head carries the
*entry*: what is to be written, in a form that the store understands. From that moment the commit is decided. Then the
entry is applied; who dies in between is completed by whoever touches the unit next.

    journal = await Journal.open(session, "registry_heads", apply)

    async def build(head: Head) -> Entry | None:
        ...read rows (they are settled: every commit up to head.version is applied), check conditions, raise what does
        ...not hold; return Entry(body) with the writes, or None when there is nothing to do
    head = await journal.commit(unit, build)

    async def apply(unit: bytes, version: int, body: bytes) -> None:
        ...write the rows of `body`, each with USING TIMESTAMP version

The store's part of the bargain
- `apply` is idempotent and complete: it may run again, in several processes at once, and late, when newer commits are
  already applied. So **every write and delete that it makes is USING TIMESTAMP version** (a bound value); then a late
  one changes nothing newer. At equal timestamps Cassandra lets a delete win, so an entry that clears a row or range
  and writes into it clears with `cleared_before(version)`.
- No other writes touch those rows, except with versions of the same unit.
- Tables written so keep `gc_grace_seconds` at a day or more: a process that slept between commit and apply for longer
  than that could bring deleted rows back.
- `build` may be called several times and has no effects (idempotent ones, such as blocks under keys of their own, are
  fine).
- A reader that goes by rows alone may see part of a commit that has not returned yet. One that must not, calls `settle`
  first and reads rows after it.

What a version is: µs of unix time of its commit, or one more than the last where a clock stands behind. So it rises
with every commit of a unit, whatever the clocks do, and rows have timestamps that administrators recognise.

The tables, in the schema step of the store (`heads` stands for the name given to `open`):

    CREATE TABLE heads (unit blob PRIMARY KEY, version bigint, recent blob, state blob, body blob, chunks int,
                        applied bigint);
    CREATE TABLE heads_chunks (unit blob, version bigint, entry blob, chunk int, body blob,
                               PRIMARY KEY (unit, version, entry, chunk));

`applied` is the version up to which the unit is settled; a plain write with the version as its timestamp, so the
highest wins without a condition. `recent` holds the ids of the last entries, newest first, by which a committer that
got no answer learns whether its entry is among them. A body too large for a conditional write lies in `heads_chunks`,
written before the commit; nobody looks at chunks to which no head refers, and the next large commit removes them.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from tidewire_kit.cassandra.errors import DEPENDENCY, OUTCOME_UNKNOWN
from tidewire_kit.cassandra.journal_tables import ID_BYTES, HeadRow, JournalTables
from tidewire_kit.cassandra.session import CassandraSession
from tidewire_kit.errors import TidewireError, Unavailable

RECENT_ENTRIES = 32
_FIRST_PAUSE_SECONDS = 0.005
_LONGEST_PAUSE_SECONDS = 0.25
_POLLS_BEFORE_HELPING = 4
_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Head:
    """Where a unit stands, settled."""

    unit: bytes
    version: int
    """Version of the last commit; 0: there was none."""
    state: bytes
    """The small state that its commits carry; empty at first."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a commit does."""

    body: bytes | None = None
    """The writes, for `apply`; None: nothing but the state changes, and the commit costs one conditional write."""
    state: bytes | None = None
    """The head's new state, at most a few KB, changed by the same conditional write; None: it stays."""


type Build = Callable[[Head], Awaitable[Entry | None]]
"""Decides what to commit on top of a head. What it raises ends the commit, unless the head has changed meanwhile: then
it is asked again."""

type Apply = Callable[[bytes, int, bytes], Awaitable[None]]
"""(unit, version, body) → the rows are written. Raises Unavailable when they may not all be."""


def cleared_before(version: int) -> int:
    """Returns the timestamp of deletes that make room for writes of the same entry."""
    return version - 1


class Journal:
    """Commits to the units of one table of heads. One per store and process; on the session's event loop."""

    def __init__(self, tables: JournalTables, apply: Apply, commit_seconds: float) -> None:
        self._tables = tables
        self._apply = apply
        self._commit_seconds = commit_seconds
        self._locks: dict[bytes, _CountedLock] = {}
        self._finishing: dict[tuple[bytes, int], asyncio.Task[None]] = {}

    @classmethod
    async def open(cls, session: CassandraSession, table: str, apply: Apply) -> "Journal":
        """Prepares the statements. Raises Unavailable, and TidewireError when the tables are not as above."""
        tables = await JournalTables.open(session, table)
        return cls(tables, apply, 2 * session.settings.request_timeout_seconds)

    async def commit(self, unit: bytes, build: Build, *, timeout_seconds: float | None = None) -> Head | None:
        """Commits what `build` returns and applies it; returns the new head, None when `build` returned None.

        Commits of this process to one unit take place one after the other, in the order of the calls.

        Raises what `build` raises; Unavailable with reason STORE_CONTENTION when others committed all the time (nothing
        was done), STORE_UNAVAILABLE (nothing was done) and OUTCOME_UNKNOWN (it is done or will be, or not: ask by what
        the entry wrote).
        """
        async with self._turn(unit):
            deadline = time.monotonic() + (timeout_seconds or self._commit_seconds)
            pause = _FIRST_PAUSE_SECONDS
            while True:
                before = await self._settled(unit)
                try:
                    entry = await build(_public(before))
                except Exception:
                    if not await self._moved(before):
                        raise
                else:
                    if entry is not None:
                        after, decided = await self._decide(before, entry, deadline)
                        if decided:
                            return await self._finish(after, entry.body)
                    elif not await self._moved(before):
                        return None
                if time.monotonic() + pause > deadline:
                    raise Unavailable(
                        DEPENDENCY,
                        "others commit to the same unit all the time; nothing was done",
                        reason="STORE_CONTENTION",
                        retry_delay_seconds=0.5,
                    )
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def settle(self, unit: bytes) -> Head:
        """Completes the unit's last commit if need be and returns the head. Rows read after it show every commit that
        returned before it was called, each whole. Raises Unavailable."""
        return _public(await self._settled(unit))

    async def sweep(self, older_than_seconds: float = 5.0) -> int:
        """Completes commits that their process has not completed in that time; returns how many. Reads every head: call
        it at the start and every half minute or so. Raises Unavailable."""
        now_us = time.time_ns() // 1000
        completed = 0
        async for unit in self._tables.unsettled(now_us - int(older_than_seconds * 1e6), now_us):
            await self._settled(unit)
            completed += 1
        return completed

    async def forget(self, unit: bytes) -> None:
        """Removes the head of a unit that nobody commits to any more. Idempotent."""
        async with self._turn(unit):
            head = await self._settled(unit)
            if head.version:
                await self._tables.remove(head)

    async def close(self) -> None:
        """Waits for what is being completed in the background."""
        if self._finishing:
            await asyncio.wait(self._finishing.values())

    async def _moved(self, before: HeadRow) -> bool:
        """Whether others committed since: what `build` has read may then be half of their commit."""
        return (await self._tables.read(before.unit)).version != before.version

    async def _settled(self, unit: bytes) -> HeadRow:
        head = await self._tables.read(unit)
        for _ in range(_POLLS_BEFORE_HELPING):
            if not head.pending:
                return head
            ours = self._finishing.get((unit, head.version))
            if ours is not None:
                await asyncio.wait([ours])
                if not ours.cancelled() and ours.exception() is None:
                    return replace(head, applied=head.version)
            else:
                await asyncio.sleep(_POLL_SECONDS)  # its process is most likely about to finish it
            head = await self._tables.read(unit)
        while head.pending:
            body = await self._tables.body(head)
            if body is not None:
                await self._complete(head, body)
                return replace(head, applied=head.version)
            head = await self._tables.read(unit)  # somebody else has completed it meanwhile
        return head

    async def _decide(self, before: HeadRow, entry: Entry, deadline: float) -> tuple[HeadRow, bool]:
        """Makes the conditional write; returns the new head and whether it is decided for us."""
        identity = uuid.uuid4().bytes
        body = entry.body
        after = HeadRow(
            unit=before.unit,
            version=max(before.version + 1, time.time_ns() // 1000),
            recent=(identity + before.recent)[: RECENT_ENTRIES * ID_BYTES],
            state=before.state if entry.state is None else entry.state,
            chunks=self._tables.chunk_count(body),
            applied=before.applied,
        )
        if body is not None and after.chunks > 0:
            await self._tables.write_chunks(after, body)
        try:
            if await self._tables.replace(before, after, body):
                return after, True
        except Unavailable as error:
            if error.reason != OUTCOME_UNKNOWN:
                raise
        # "Not applied" is no answer either: a node that proposes twice may find its own first proposal in the way.
        return after, await self._learn(before, after, body, deadline)

    async def _learn(self, before: HeadRow, after: HeadRow, body: bytes | None, deadline: float) -> bool:
        """Finds out what became of a conditional write that got no good answer; returns whether the entry is in.

        A serial read alone does not settle it: the request may still wait in a node and take effect afterwards, as long
        as the version is the one it expects. So while it is, the same write is made again: it moves the version, by
        itself or by failing against its own first try, and then the list of recent entries says which.
        """
        pause = _FIRST_PAUSE_SECONDS
        found = before
        while True:
            try:
                found = await self._tables.read(before.unit, serial=True)
                if found.version != before.version or after.entry in found.entries():
                    break
                if await self._tables.replace(before, after, body):
                    return True
            except Unavailable as error:
                if time.monotonic() + pause > deadline:
                    raise _unknown(error.message) from error
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        entries = found.entries()
        if after.entry in entries:
            return True
        # Others committed since. If the list still reaches back to the entry on which ours built, all since are in it,
        # ours is not among them, and it can come no more.
        reaches_back = before.entry in entries if before.version else len(entries) < RECENT_ENTRIES
        if not reaches_back:
            raise _unknown("too many commits followed")
        return False

    async def _finish(self, head: HeadRow, body: bytes | None) -> Head:
        """After the commit point. On a task of its own: a caller that gives up leaves no commit half applied."""
        if body is None:
            return _public(head)
        key = (head.unit, head.version)
        task = self._finishing[key] = asyncio.ensure_future(self._complete(head, body))
        task.add_done_callback(lambda done: self._finished(key, done))
        try:
            await asyncio.shield(task)
        except Unavailable as error:
            raise _unknown(f"it is decided, but not yet visible: {error.message}") from error
        return _public(head)

    def _finished(self, key: tuple[bytes, int], task: "asyncio.Task[None]") -> None:
        del self._finishing[key]
        if not task.cancelled():
            task.exception()  # whoever waited got it; nobody may wait any more

    async def _complete(self, head: HeadRow, body: bytes) -> None:
        await self._apply(head.unit, head.version, body)
        try:
            await self._tables.mark_applied(head)
        except Unavailable:
            pass  # the rows are there; the next to come applies them once more

    def _turn(self, unit: bytes) -> "_Turn":
        return _Turn(self._locks, unit)


def _public(head: HeadRow) -> Head:
    return Head(head.unit, head.version, head.state)


def _unknown(why: str) -> TidewireError:
    return Unavailable(
        DEPENDENCY, f"it is not known whether the commit took effect ({why})", reason=OUTCOME_UNKNOWN
    )


class _CountedLock:
    """A lock and how many hold or want it, so that the last one removes it."""

    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class _Turn:
    """`async with` over the lock of one unit; asyncio's locks are fair."""

    __slots__ = ("_lock", "_locks", "_unit")

    def __init__(self, locks: dict[bytes, _CountedLock], unit: bytes) -> None:
        self._locks = locks
        self._unit = unit
        self._lock = locks.setdefault(unit, _CountedLock())

    async def __aenter__(self) -> None:
        self._lock.users += 1
        try:
            await self._lock.lock.acquire()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *exception: object) -> None:
        self._lock.lock.release()
        self._leave()

    def _leave(self) -> None:
        self._lock.users -= 1
        if self._lock.users == 0 and self._locks.get(self._unit) is self._lock:
            del self._locks[self._unit]
