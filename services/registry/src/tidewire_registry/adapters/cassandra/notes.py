"""What is unpublished: notes beside the objects, small whatever the size of the fleet. Called by store.CassandraStore.

A commit writes a note for each object it changes; `mark` deletes notes of what is on the topic. A queue in Cassandra is
read over the marks of what was deleted from it, so notes lie in partitions of ten seconds each (`period`), which are
found by a directory and forgotten when they are empty; and notes of one commit are deleted by one deletion of a range.

A note is never deleted by what it says but by its place, and only by who wrote or read it before the publish: so what
another process notes meanwhile stays noted. What is too old when it is marked (another process's newer revision may
have been put before it) is noted again, so that the present state is put once more, after it.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from tidewire_kit.cassandra import CassandraSession
from tidewire_kit.ids import TenantId, Uid
from tidewire_registry.adapters.cassandra.plan import (
    ROWS_PER_BATCH,
    CommitPlan,
    Mode,
    Noted,
    Rows,
    together,
    write_rows,
)
from tidewire_registry.domain.changes import Kind

PERIOD_US = 10_000_000
_COLUMNS = ("period", "tenant", "note", "part", "uid", "kind", "id", "revision")
_FORGOTTEN_US = 60_000_000
"""An empty period is looked at until so long after its end."""
_SKEW_US = 5_000_000
"""By so much the clocks of two processes may differ."""
AGAIN = 0
"""Revision of notes that are not of a commit: whatever the present one is."""
_NOTES_PER_PERIOD = 20_000
_NOTES_PER_PART = ROWS_PER_BATCH
"""Notes that are deleted by one deletion of a range. They come with one batch, so that who reads some reads all."""
_REMEMBERED = 200_000


class Part(NamedTuple):
    """Place of some notes."""

    period: int
    tenant: TenantId
    note: int
    """Number of the commit; unix µs of a note made again."""
    part: int


class Note(NamedTuple):
    """One object that is unpublished."""

    part: Part
    kind: Kind
    id: str
    uid: Uid
    revision: int


class Notes:
    """One per store. `now_us` is the wall clock."""

    def __init__(self, session: CassandraSession, now_us: Callable[[], int]) -> None:
        self._session = session
        self._now_us = now_us
        self._known: dict[Uid, list[Note]] = {}
        self._whole: dict[Part, set[Uid]] = {}
        """Parts of which every note is known, and whose notes they still hold."""
        self._entered: set[int] = set()

    def period(self) -> int:
        """The period that begins or has begun now."""
        return self._now_us() // PERIOD_US

    async def write(self, plan: CommitPlan, version: int, timestamp: int) -> None:
        """Writes the notes of a commit; may be repeated."""
        await self._write(notes_of(plan, version), timestamp)

    def remember(self, plan: CommitPlan, version: int) -> None:
        """Says that this process has written the notes of a commit, and publishes what they are about."""
        self._remember(notes_of(plan, version), whole=True)

    async def write_again(self, tenant: TenantId, noted: Sequence[Noted]) -> None:
        """Notes objects that are or may be on the topic, because the topic does not have their present state."""
        now = self._now_us()
        notes = [
            Note(
                Part(now // PERIOD_US + i // _NOTES_PER_PERIOD, tenant, now, i // _NOTES_PER_PART),
                *_named(one),
            )
            for i, one in enumerate(noted)
        ]
        await self._write(notes, now)

    async def read(self, after: Note | None, limit: int) -> list[Note]:
        """Notes that follow `after` in the order of their places; empty when there are no more."""
        found: list[Note] = []
        for period in await self._periods():
            if after is not None and period < after.part.period:
                continue
            started_us = self._now_us()
            some = await self._read_period(period, after, limit - len(found))
            found += some
            if len(found) >= limit:
                break
            resumed = after is not None and period == after.part.period
            if not some and not resumed and (period + 1) * PERIOD_US < started_us - _FORGOTTEN_US:
                await self._forget_period(period, started_us - _SKEW_US)
        return found

    async def of(self, tenant: TenantId, uids: set[Uid]) -> None:
        """Learns of the commits' notes of objects of which this process neither wrote nor read any yet. Others may have
        been made after what is being marked was put."""
        missing = uids - self._known.keys()
        if not missing:
            return
        select = await self._session.prepare(
            "SELECT period, tenant, note, part, uid, kind, id, revision FROM registry_unpublished"
            " WHERE period = ? AND tenant = ?"
        )
        for period in await self._periods():
            rows = await self._session.execute(select, (period, tenant))
            self._remember(
                [_note(row) for row in rows if row.uid in missing and row.revision != AGAIN], whole=False
            )

    async def delete(self, published: Iterable[tuple[Uid, int]]) -> None:
        """Deletes the known notes of these objects up to these revisions."""
        leaving: dict[Part, list[Note]] = {}
        for uid, revision in published:
            notes = self._known.pop(uid, [])
            stay = [note for note in notes if note.revision > revision]
            if stay:
                self._known[uid] = stay
            for note in notes:
                if note.revision <= revision:
                    leaving.setdefault(note.part, []).append(note)
        await self._delete(leaving)

    async def discard(self, notes: Sequence[Note]) -> None:
        """Deletes notes of what is no more."""
        leaving: dict[Part, list[Note]] = {}
        for note in notes:
            known = [other for other in self._known.pop(note.uid, []) if other != note]
            if known:
                self._known[note.uid] = known
            leaving.setdefault(note.part, []).append(note)
        await self._delete(leaving)

    # Inside

    async def _write(self, notes: Sequence[Note], timestamp: int) -> None:
        await write_rows(
            self._session, Rows("registry_unpublished", _COLUMNS, _rows(notes), Mode.INSERT), timestamp
        )
        # After the notes: who finds a period empty and then forgets it does so by a time before it looked.
        for period in {note.part.period for note in notes}:
            now = self._now_us()
            fresh = (period + 1) * PERIOD_US > now - _FORGOTTEN_US // 2
            if fresh and period in self._entered:
                continue
            insert = await self._session.prepare(
                "INSERT INTO registry_unpublished_periods (shard, period) VALUES (0, ?) USING TIMESTAMP ?"
            )
            await self._session.execute(insert, (period, now))
            if len(self._entered) > 1_000:
                self._entered.clear()
            self._entered.add(period)

    async def _periods(self) -> list[int]:
        select = await self._session.prepare(
            "SELECT period FROM registry_unpublished_periods WHERE shard = 0"
        )
        return [row.period for row in await self._session.execute(select)]

    async def _read_period(self, period: int, after: Note | None, limit: int) -> list[Note]:
        columns = "period, tenant, note, part, uid, kind, id, revision"
        if after is not None and after.part.period == period:
            select = await self._session.prepare(
                f"SELECT {columns} FROM registry_unpublished WHERE period = ?"  # noqa: S608
                " AND (tenant, note, part, uid) > (?, ?, ?, ?) LIMIT ?"
            )
            place = (after.part.tenant, after.part.note, after.part.part, after.uid)
            rows = await self._session.execute(select, (period, *place, limit))
        else:
            select = await self._session.prepare(
                f"SELECT {columns} FROM registry_unpublished WHERE period = ? LIMIT ?"  # noqa: S608
            )
            rows = await self._session.execute(select, (period, limit))
        notes = [_note(row) for row in rows]
        # The first part may have begun before, and the last go on.
        first = notes[0].part if notes and after is not None else None
        last = notes[-1].part if len(notes) >= limit else None
        inside = [note for note in notes if note.part not in (first, last)]
        self._remember(inside, whole=True)
        self._remember([note for note in notes if note.part in (first, last)], whole=False)
        return notes

    async def _forget_period(self, period: int, timestamp: int) -> None:
        delete = await self._session.prepare(
            "DELETE FROM registry_unpublished_periods USING TIMESTAMP ? WHERE shard = 0 AND period = ?"
        )
        await self._session.execute(delete, (timestamp, period))

    def _remember(self, notes: Sequence[Note], *, whole: bool) -> None:
        if len(self._known) > _REMEMBERED:
            self._known.clear()
            self._whole.clear()
        for note in notes:
            known = self._known.setdefault(note.uid, [])
            if note not in known:
                known.append(note)
            if whole:
                self._whole.setdefault(note.part, set()).add(note.uid)

    async def _delete(self, leaving: dict[Part, list[Note]]) -> None:
        by_part: list[Part] = []
        by_row: list[Note] = []
        for part, notes in leaving.items():
            held = self._whole.get(part)
            if held is None:
                by_row += notes
                continue
            held.difference_update(note.uid for note in notes)
            if held:
                by_row += notes
            else:
                del self._whole[part]
                by_part.append(part)
        await asyncio.gather(self._delete_parts(by_part), self._delete_rows(by_row))

    async def _delete_parts(self, parts: Sequence[Part]) -> None:
        if parts:
            delete = await self._session.prepare(
                "DELETE FROM registry_unpublished USING TIMESTAMP ?"
                " WHERE period = ? AND tenant = ? AND note = ? AND part = ?"
            )
            await together(
                self._session.batch([(delete, (self._deletion_time(part), *part))]) for part in parts
            )

    async def _delete_rows(self, notes: Sequence[Note]) -> None:
        by_time: dict[int, list[tuple[int, TenantId, int, int, Uid]]] = {}
        for note in notes:
            by_time.setdefault(self._deletion_time(note.part), []).append((*note.part, note.uid))
        columns = ("period", "tenant", "note", "part", "uid")
        for timestamp, rows in by_time.items():
            await write_rows(
                self._session, Rows("registry_unpublished", columns, rows, Mode.DELETE), timestamp
            )

    def _deletion_time(self, part: Part) -> int:
        """Not before the note's own time, which may come from a clock ahead of this one."""
        return part.note + 1


def notes_of(plan: CommitPlan, version: int) -> list[Note]:
    """The notes of a commit."""
    return [
        Note(Part(plan.period, plan.tenant, version, i // _NOTES_PER_PART), *_named(one))
        for i, one in enumerate(plan.noted)
    ]


def _named(noted: Noted) -> tuple[Kind, str, Uid, int]:
    kind, id_, uid, revision = noted
    return kind, id_, uid, revision


def _note(row: tuple[int, bytes, int, int, bytes, str, str, int]) -> Note:
    period, tenant, note, part, uid, kind, id_, revision = row
    return Note(Part(period, TenantId(tenant), note, part), Kind(kind), id_, Uid(uid), revision)


def _rows(notes: Sequence[Note]) -> list[tuple[int, TenantId, int, int, Uid, str, str, int]]:
    return [(*note.part, note.uid, str(note.kind), note.id, note.revision) for note in notes]
