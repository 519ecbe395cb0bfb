"""Writers and readers of rows that note what Cassandra acknowledged.

Each writer inserts rows 1, 2, 3, ... of its own partition, and reads now and then what it has written. A row whose
write was refused is written again until it is acknowledged, as the stores' callers do.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from tidewire_kit.cassandra import CassandraSession, Prepared
from tidewire_kit.errors import Unavailable

KEYSPACE = "faults"
_READ_EVERY = 20
_PAUSE_SECONDS = 0.005
_PAUSE_AFTER_REFUSAL_SECONDS = 0.1


async def create_table(session: CassandraSession, replication_factor: int) -> None:
    """Makes the keyspace and the tables of the load unless they are there; `session` needs no keyspace."""
    replication = f"{{'class': 'NetworkTopologyStrategy', 'replication_factor': {replication_factor}}}"
    await session.execute_cql(f"CREATE KEYSPACE IF NOT EXISTS {KEYSPACE} WITH replication = {replication}")
    await session.execute_cql(
        f"CREATE TABLE IF NOT EXISTS {KEYSPACE}.rows (writer int, row int, PRIMARY KEY (writer, row))"
    )
    await session.execute_cql(
        f"CREATE TABLE IF NOT EXISTS {KEYSPACE}.counters (name text PRIMARY KEY, value int)"
    )


class RowLoad:
    """The load: use `running`, disturb, then `check`."""

    def __init__(self, session: CassandraSession, *, writers: int = 4) -> None:
        self._session = session
        self.acknowledged: list[set[int]] = [set() for _ in range(writers)]
        """Per writer, the rows acknowledged."""
        self.refused_writes = 0
        self.refused_reads = 0
        self.reads = 0
        self.violations: list[str] = []
        """What must never be: an acknowledged row that a later read did not see."""
        self.last_begun = 0.0
        """Monotonic time at which the newest acknowledged write was begun."""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Writes and reads until the block ends, and then until what was begun is done."""
        insert = await self._session.prepare(f"INSERT INTO {KEYSPACE}.rows (writer, row) VALUES (?, ?)")
        select = await self._session.prepare(f"SELECT row FROM {KEYSPACE}.rows WHERE writer = ?")
        stop = asyncio.Event()

        async def write(writer: int) -> None:
            row = 0
            while not stop.is_set():
                row += 1
                await self._write(insert, writer, row, stop)
                if row % _READ_EVERY == 0:
                    await self._read(select, writer)
                await asyncio.sleep(_PAUSE_SECONDS)

        async with asyncio.TaskGroup() as tasks:
            for writer in range(len(self.acknowledged)):
                tasks.create_task(write(writer))
            try:
                yield
            finally:
                stop.set()

    async def check(self) -> int:
        """Asserts that all that was acknowledged can be read, and returns how many rows that are."""
        select = await self._session.prepare(f"SELECT row FROM {KEYSPACE}.rows WHERE writer = ?")
        for writer, rows in enumerate(self.acknowledged):
            found = {row.row for row in await self._session.execute(select, (writer,))}
            lost = rows - found
            assert not lost, f"writer {writer}: {len(lost)} acknowledged rows are gone, the first {min(lost)}"
        assert self.violations == []
        return sum(map(len, self.acknowledged))

    async def _write(self, insert: Prepared, writer: int, row: int, stop: asyncio.Event) -> None:
        while True:
            begun = time.monotonic()
            try:
                await self._session.execute(insert, (writer, row))
            except Unavailable:
                self.refused_writes += 1
                if stop.is_set():
                    return
                await asyncio.sleep(_PAUSE_AFTER_REFUSAL_SECONDS)
                continue
            self.acknowledged[writer].add(row)
            self.last_begun = max(self.last_begun, begun)
            return

    async def _read(self, select: Prepared, writer: int) -> None:
        expected = set(self.acknowledged[writer])
        self.reads += 1
        try:
            rows = await self._session.execute(select, (writer,))
        except Unavailable:
            self.refused_reads += 1
            return
        missing = expected - {row.row for row in rows}
        if missing:
            self.violations.append(f"writer {writer}: a read misses {len(missing)} acknowledged rows")
