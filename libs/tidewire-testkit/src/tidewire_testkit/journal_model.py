"""Processes that commit to one unit by the journal, and what must be true of it afterwards whatever befell them.

Each commit takes the next number from the unit's state, sets some rows to absolute values, deletes others, and writes
a history row with its number, its tag and its changes. So afterwards:
- the history is 1..n without a gap, and n is what the head says: no commit is there in part or twice;
- replaying the history from nothing gives the rows that are there: commits took effect one after the other, wholly;
- a commit that returned is in the history; one that failed with "nothing was done" is not;
- of two commits, one of which returned before the other began, the former has the lower number.
"""

import asyncio
import json
import random
import secrets
import time
from dataclasses import dataclass, field

from tidewire_kit.cassandra import OUTCOME_UNKNOWN, CassandraSession, Prepared
from tidewire_kit.cassandra.journal import Entry, Head, Journal, cleared_before
from tidewire_kit.errors import Unavailable
from tidewire_testkit.faults.injection import Crash, Schedule
from tidewire_testkit.faults.losing_session import LosingReplies

HEADS = """
CREATE TABLE heads (unit blob PRIMARY KEY, version bigint, recent blob, state blob, body blob, chunks int,
                    applied bigint)
"""
CHUNKS = """
CREATE TABLE heads_chunks (unit blob, version bigint, entry blob, chunk int, body blob,
                           PRIMARY KEY (unit, version, entry, chunk))
"""
ROWS_TABLE = "CREATE TABLE rows (part blob, id int, value blob, PRIMARY KEY (part, id))"
TABLES = (HEADS, CHUNKS, ROWS_TABLE)
"""What it needs in a keyspace."""

ROWS = 6
HISTORY = 1_000
"""Ids of history rows begin here; ids of the values that are changed are below."""
_COMMIT_SECONDS = 40.0
"""Generous, so that on a busy machine a commit does not end unknown for want of time."""
LARGE_BYTES = 600_000
"""Padding that makes an entry three chunks long."""


@dataclass(frozen=True)
class Try:
    """One call of commit, as its caller saw it."""

    tag: str
    outcome: str
    """returned, nothing, unknown, dead."""
    began: float
    ended: float


@dataclass
class Rows:
    """The statements over the table of rows, and the journal on top, of one process."""

    session: CassandraSession
    put: Prepared
    delete: Prepared
    clear: Prepared
    get: Prepared
    journal: Journal = field(init=False)

    @classmethod
    async def open(cls, session: CassandraSession) -> "Rows":
        """Prepares the statements."""
        rows = cls(
            session,
            await session.prepare("INSERT INTO rows (part, id, value) VALUES (?, ?, ?) USING TIMESTAMP ?"),
            await session.prepare("DELETE FROM rows USING TIMESTAMP ? WHERE part = ? AND id = ?"),
            await session.prepare("DELETE FROM rows USING TIMESTAMP ? WHERE part = ? AND id < ?"),
            await session.prepare("SELECT id, value FROM rows WHERE part = ?"),
        )
        rows.journal = await Journal.open(session, "heads", rows.apply)
        return rows

    async def apply(self, unit: bytes, version: int, body: bytes) -> None:
        """Writes what an entry says."""
        entry = json.loads(body)
        if entry["clear"]:
            await self.session.execute(self.clear, (cleared_before(version), unit, HISTORY))
        # One by one on purpose: a crash between two leaves half of an entry.
        for row, value in entry["changes"].items():
            if value is None:
                await self.session.execute(self.delete, (version, unit, int(row)))
            else:
                await self.session.execute(self.put, (unit, int(row), value.encode(), version))
        history = json.dumps({key: entry[key] for key in ("tag", "clear", "changes")}).encode()
        await self.session.execute(self.put, (unit, HISTORY + entry["number"], history, version))

    async def read(self, unit: bytes) -> dict[int, bytes]:
        """All rows of a unit by id."""
        return {row.id: row.value for row in await self.session.execute(self.get, (unit,))}

    async def commit(self, unit: bytes, rng: random.Random, seconds: float) -> Try:
        """Makes one commit, of some random changes."""
        tag = secrets.token_hex(8)
        large = rng.random() < 0.1

        async def build(head: Head) -> Entry:
            number = int(head.state or b"0") + 1
            found = await self.read(unit)
            # Not only blind writes: what is written depends on what is read.
            present = sum(1 for row in found if row < HISTORY)
            changes: dict[str, str | None] = {}
            for row in rng.sample(range(ROWS), k=rng.randint(1, 3)):
                changes[str(row)] = None if rng.random() < 0.3 else f"{tag} {number} {present}"
            entry = {
                "number": number,
                "tag": tag,
                "clear": rng.random() < 0.15,
                "changes": changes,
                "padding": "x" * (LARGE_BYTES if large else 0),
            }
            return Entry(json.dumps(entry).encode(), str(number).encode())

        began = time.monotonic()
        try:
            await self.journal.commit(unit, build, timeout_seconds=seconds)
            outcome = "returned"
        except Crash:
            outcome = "dead"
        except Unavailable as error:
            outcome = "unknown" if error.reason == OUTCOME_UNKNOWN else "nothing"
        return Try(tag, outcome, began, time.monotonic())


async def process(
    real: CassandraSession,
    unit: bytes,
    schedule: Schedule,
    rng: random.Random,
    commits: int,
    tries: list[Try],
) -> None:
    """Makes `commits` tries; begins anew after a crash, as a restarted process does."""
    session = LosingReplies(real, schedule)
    rows = await Rows.open(session)
    sessions = [session]
    for _ in range(commits):
        tries.append(await rows.commit(unit, rng, seconds=_COMMIT_SECONDS))
        if session.dead:
            session = LosingReplies(real, schedule)
            sessions.append(session)
            rows = await Rows.open(session)
        await asyncio.sleep(rng.uniform(0, 0.01))
    await rows.journal.close()
    for session in sessions:
        await session.drain()


async def verify(real: CassandraSession, unit: bytes, tries: list[Try]) -> list[str]:
    """Asserts what the module says; returns the tags of the history in order."""
    rows = await Rows.open(real)
    head = await rows.journal.settle(unit)
    found = await rows.read(unit)
    history = {row - HISTORY: json.loads(value) for row, value in found.items() if row >= HISTORY}
    count = int(head.state or b"0")
    assert sorted(history) == list(range(1, count + 1))

    replayed: dict[int, bytes] = {}
    for number in range(1, count + 1):
        if history[number]["clear"]:
            replayed.clear()
        for row, value in history[number]["changes"].items():
            if value is None:
                replayed.pop(int(row), None)
            else:
                seen = int(value.split()[2])
                assert seen <= ROWS
                replayed[int(row)] = value.encode()
    assert {row: value for row, value in found.items() if row < HISTORY} == replayed

    tags = [history[number]["tag"] for number in range(1, count + 1)]
    assert len(set(tags)) == len(tags)
    place = {tag: at for at, tag in enumerate(tags)}
    for one in tries:
        if one.outcome == "returned":
            assert one.tag in place, f"{one} returned and is not there"
        if one.outcome == "nothing":
            assert one.tag not in place, f"{one} said that nothing was done"
    returned = [one for one in tries if one.outcome == "returned"]
    for one in returned:
        for other in returned:
            if one.ended < other.began:
                assert place[one.tag] < place[other.tag]
    return tags
