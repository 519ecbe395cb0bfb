"""The asyncio face of the Cassandra driver: what stores use, and all they need to know of it.

    session = await connect(CassandraSettings(...), metrics=registry)      # `connecting`
    put = await session.prepare("INSERT INTO storage_blocks (...) VALUES (?, ?, ?) USING TIMESTAMP ?")
    await session.execute(put, (a, b, c, timestamp_us))
    await session.batch([(put, row) for row in rows_of_one_partition])
    applied = await session.apply(claim, (name, uid))                       # INSERT ... IF NOT EXISTS

Guarantees
- Threads: create and use a session on one event loop. Nothing blocks it: connecting and preparing happen on threads,
  answers come in bunches from the driver's thread.
- Consistency: LOCAL_QUORUM for reads and writes, LOCAL_SERIAL for conditional writes; a read that must see every
  conditional write that took effect is made with `consistency=Consistency.LOCAL_SERIAL`.
- Repeating: a request that is idempotent (the default of everything but `apply`) is sent to another node when one does
  not answer within `try_timeout_seconds`, and tried again until `request_timeout_seconds` are over, always with the
  same write timestamp. Say `idempotent=False` for what must not be carried out twice (counters, lists).
- Bound: at most `in_flight_requests` are under way; others wait in order of arrival.
- Errors: `Unavailable` (reason STORE_UNAVAILABLE: may be repeated; OUTCOME_UNKNOWN: a conditional or not idempotent
  write may have taken effect, or may yet), `FailedPrecondition` (an administrator must act), `TidewireError` for a
  statement that the server does not accept.
- Rows are named tuples; blobs are `bytes`, `timestamp`s naive UTC datetimes (prefer bigint microseconds), null is None.
"""

import asyncio
import enum
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cassandra import ConsistencyLevel

from tidewire_kit.cassandra.driver import Driver
from tidewire_kit.cassandra.metrics import CassandraMetrics, OperationMetrics
from tidewire_kit.cassandra.settings import CassandraSettings

type Row = Any
"""A named tuple with a field for each selected column."""

type Params = Sequence[Any]
"""Values in the order of the statement's question marks."""

PAGE_ROWS = 1_000
"""Rows of a page unless told; choose fewer where rows are large: a page must be well below 100 MB."""


class Consistency(enum.IntEnum):
    """How many copies must answer."""

    LOCAL_ONE = ConsistencyLevel.LOCAL_ONE
    LOCAL_QUORUM = ConsistencyLevel.LOCAL_QUORUM
    LOCAL_SERIAL = ConsistencyLevel.LOCAL_SERIAL
    """For reads: completes conditional writes that are under way and sees all that took effect."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement that the server knows. Made by `CassandraSession.prepare`; valid for the session's life."""

    cql: str
    statement: Any
    """The driver's, or None under a fake session."""

    @property
    def mutates(self) -> bool:
        """Whether executing it changes data."""
        return self.cql.lstrip()[:6].upper() != "SELECT"


@dataclass(frozen=True, slots=True)
class Applied:
    """Outcome of a conditional write.

    That it did not take effect is not quite certain: under contention a node may propose a write twice, find its own
    first proposal done, and call that a failed condition. So who needs to know compares `row` with what it wanted.
    """

    applied: bool
    row: Row | None
    """Not applied: the row as it is (None where there is none). Fields are those of the condition, or, of INSERT IF NOT
    EXISTS, all columns."""


class CassandraSession:
    """A connection to a cluster, and to a keyspace. Made by `connect`."""

    def __init__(self, driver: Driver, settings: CassandraSettings, metrics: CassandraMetrics) -> None:
        self._driver = driver
        self._settings = settings
        self._metrics = metrics
        self._prepared: dict[str, asyncio.Future[Prepared]] = {}
        self._users = 1

    def shared(self) -> "CassandraSession":
        """Itself for one more user: the connections end when each has closed it."""
        self._users += 1
        return self

    @property
    def open(self) -> bool:
        """Whether some user has not closed it."""
        return self._users > 0

    @property
    def keyspace(self) -> str | None:
        """The keyspace in which unqualified tables are looked up."""
        return self._driver.keyspace

    @property
    def settings(self) -> CassandraSettings:
        """The settings it was made with."""
        return self._settings

    @property
    def datacenter(self) -> str:
        """The datacenter in use."""
        return self._driver.datacenter

    @property
    def nodes(self) -> int:
        """How many nodes the datacenter has, up or down."""
        return self._driver.nodes

    @property
    def server_version(self) -> str:
        """The lowest version of the nodes, for example `5.0.3`."""
        return self._driver.server_version

    async def prepare(self, cql: str) -> Prepared:
        """Returns `cql` (with `?` for values) as a prepared statement; the same one for the same text.

        Raises Unavailable, and TidewireError when the server does not accept the text.
        """
        known = self._prepared.get(cql)
        if known is None or (known.done() and (known.cancelled() or known.exception() is not None)):
            known = self._prepared[cql] = asyncio.ensure_future(self._prepare(cql))
        return await asyncio.shield(known)

    async def execute(
        self,
        prepared: Prepared,
        params: Params = (),
        *,
        consistency: Consistency | None = None,
        timeout_seconds: float | None = None,
        idempotent: bool = True,
        page_rows: int = PAGE_ROWS,
    ) -> list[Row]:
        """Executes and returns all rows (none for a write), page after page of `page_rows`.

        `timeout_seconds`: for each page with all its tries, instead of the setting. Not for conditional writes: their
        outcome is `apply`'s.
        """
        operation = self._operation(prepared)
        rows, state = await self._driver.request(
            operation,
            self._bound(prepared, params, consistency, page_rows, idempotent),
            timeout_seconds=timeout_seconds,
        )
        if state is None:
            return rows
        collected = list(rows)
        while state is not None:
            rows, state = await self._driver.request(
                operation,
                self._bound(prepared, params, consistency, page_rows, idempotent),
                timeout_seconds=timeout_seconds,
                paging_state=state,
            )
            collected.extend(rows)
        return collected

    async def execute_paged(
        self,
        prepared: Prepared,
        params: Params = (),
        *,
        page_rows: int = PAGE_ROWS,
        consistency: Consistency | None = None,
        timeout_seconds: float | None = None,
    ) -> AsyncIterator[list[Row]]:
        """Yields the rows of a SELECT page by page; empty pages are left out. The next page is asked for when the
        caller comes back, so no more than one is held."""
        state: bytes | None = None
        while True:
            rows, state = await self._driver.request(
                self._metrics.read,
                self._bound(prepared, params, consistency, page_rows, True),
                timeout_seconds=timeout_seconds,
                paging_state=state,
            )
            if rows:
                yield rows
            if state is None:
                return

    async def execute_all(
        self,
        prepared: Prepared,
        many_params: Iterable[Params],
        *,
        concurrency: int = 32,
        consistency: Consistency | None = None,
        timeout_seconds: float | None = None,
    ) -> None:
        """Executes an idempotent statement for each item, at most `concurrency` at once; returns when all are done.

        Raises the first error, after what was under way has ended; items after it are not begun. The items are taken
        from the iterable one by one, so it may be a generator.
        """
        items = iter(many_params)
        failed: list[Exception] = []

        async def worker() -> None:
            for params in items:
                try:
                    await self.execute(
                        prepared, params, consistency=consistency, timeout_seconds=timeout_seconds
                    )
                except Exception as error:  # noqa: BLE001  # raised below, when the others have ended
                    failed.append(error)
                if failed:
                    return

        await asyncio.gather(*(worker() for _ in range(concurrency)))
        if failed:
            raise failed[0]

    async def batch(
        self,
        statements: Sequence[tuple[Prepared, Params]],
        *,
        consistency: Consistency | None = None,
        timeout_seconds: float | None = None,
        idempotent: bool = True,
    ) -> None:
        """Writes rows of ONE partition (of one table or several with the same key) at once: UNLOGGED, all or nothing.

        An empty list does nothing. The server's limit is half a segment of its commit log, 16 MiB by default; its much
        lower thresholds for batches hold only for those over several partitions, which are not for this method.
        """
        if not statements:
            return
        await self._driver.request(
            self._metrics.batch,
            self._driver.batch(
                [(prepared.statement, params) for prepared, params in statements],
                consistency=consistency,
                idempotent=idempotent,
            ),
            timeout_seconds=timeout_seconds,
        )

    async def apply(
        self, prepared: Prepared, params: Params = (), *, timeout_seconds: float | None = None
    ) -> Applied:
        """Executes one conditional write (`IF ...`) once and says whether it took effect.

        Raises Unavailable: with reason OUTCOME_UNKNOWN when it may have taken effect, or may yet; else nothing was
        done. Never repeated by the session; waits for twice `try_timeout_seconds` unless told.
        """
        rows, _ = await self._driver.request(
            self._metrics.conditional,
            self._bound(prepared, params, None, PAGE_ROWS, False),
            timeout_seconds=timeout_seconds or self._conditional_seconds(),
        )
        first = rows[0]
        if first[0]:
            return Applied(True, None)
        return Applied(False, first if len(first) > 1 else None)

    async def apply_batch(
        self, statements: Sequence[tuple[Prepared, Params]], *, timeout_seconds: float | None = None
    ) -> Applied:
        """As `apply`, for several writes of ONE partition of which at least one is conditional: all or nothing."""
        rows, _ = await self._driver.request(
            self._metrics.conditional,
            self._driver.batch(
                [(prepared.statement, params) for prepared, params in statements],
                consistency=None,
                idempotent=False,
            ),
            timeout_seconds=timeout_seconds or self._conditional_seconds(),
        )
        return Applied(True, None) if rows[0][0] else Applied(False, rows[0])

    async def execute_cql(
        self, cql: str, *, keyspace: str | None = None, timeout_seconds: float | None = None
    ) -> list[Row]:
        """Executes text once, for changes of the schema and for what is asked seldom. `keyspace`: for bare names,
        instead of the session's. After a change returns when the nodes agree on it, else raises Unavailable."""
        rows, _ = await self._driver.request(
            self._metrics.schema, self._driver.simple(cql, keyspace), timeout_seconds=timeout_seconds or 60.0
        )
        return rows

    async def close(self) -> None:
        """Ends the connections. Requests under way fail with Unavailable. Idempotent, unless it is shared: then the
        last of as many calls as it has users ends them."""
        self._users = max(0, self._users - 1)
        if not self._users:
            await self._driver.close()

    async def _prepare(self, cql: str) -> Prepared:
        return Prepared(cql, await self._driver.prepare(cql))

    def _conditional_seconds(self) -> float:
        """A node itself gives up after 4 s or less; who waits longer only waits for one that is dead."""
        settings = self._settings
        return min(settings.request_timeout_seconds, 2 * settings.try_timeout_seconds)

    def _operation(self, prepared: Prepared) -> OperationMetrics:
        return self._metrics.write if prepared.mutates else self._metrics.read

    def _bound(
        self,
        prepared: Prepared,
        params: Params,
        consistency: Consistency | None,
        page_rows: int,
        idempotent: bool,
    ) -> Any:
        return self._driver.bound(
            prepared.statement,
            params,
            consistency=consistency,
            page_rows=page_rows,
            idempotent=idempotent,
        )
