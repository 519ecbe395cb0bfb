"""A Cassandra session that loses requests and replies and dies, as its schedule says. For tests of stores.

    session = LosingReplies(real, Every(Fault.LOST_REPLY))
    store = CassandraStore(session, ...)

Every mutating call counts: `execute` of a statement that is no SELECT, each item of `execute_all`, `batch`, `apply`,
`apply_batch`. What the caller is told is what a real session tells after its own tries: STORE_UNAVAILABLE of what may
be repeated, OUTCOME_UNKNOWN of conditional writes and of what is not idempotent.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

from tidewire_kit.cassandra import (
    OUTCOME_UNKNOWN,
    Applied,
    CassandraSession,
    Consistency,
    Params,
    Prepared,
    Row,
)
from tidewire_kit.cassandra.session import PAGE_ROWS
from tidewire_kit.cassandra.settings import CassandraSettings
from tidewire_kit.errors import Unavailable
from tidewire_testkit.faults.injection import Schedule, Suffering


class LosingReplies(CassandraSession):
    """Stands for one process: after a crash nothing works any more; make a new one. The real session stays the
    caller's, who closes it after `drain`."""

    def __init__(self, session: CassandraSession, schedule: Schedule) -> None:
        self._inner = session
        self._process = Suffering(schedule)

    @property
    def dead(self) -> bool:
        """Whether a crash has struck."""
        return self._process.dead

    @property
    def keyspace(self) -> str | None:
        """As of the real session."""
        return self._inner.keyspace

    @property
    def settings(self) -> CassandraSettings:
        """As of the real session."""
        return self._inner.settings

    @property
    def datacenter(self) -> str:
        """As of the real session."""
        return self._inner.datacenter

    @property
    def nodes(self) -> int:
        """As of the real session."""
        return self._inner.nodes

    @property
    def server_version(self) -> str:
        """As of the real session."""
        return self._inner.server_version

    async def drain(self) -> None:
        """Waits for requests that are carried out late."""
        await self._process.drain()

    async def prepare(self, cql: str) -> Prepared:
        """As of the real session."""
        self._process.alive()
        return await self._inner.prepare(cql)

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
        """Reads suffer only from the process's death."""

        async def real() -> list[Row]:
            return await self._inner.execute(
                prepared,
                params,
                consistency=consistency,
                timeout_seconds=timeout_seconds,
                idempotent=idempotent,
                page_rows=page_rows,
            )

        if prepared.mutates:
            return await self._suffering(prepared.cql, real, idempotent)
        self._process.alive()
        rows = await real()
        self._process.alive()
        return rows

    async def execute_paged(
        self,
        prepared: Prepared,
        params: Params = (),
        *,
        page_rows: int = PAGE_ROWS,
        consistency: Consistency | None = None,
        timeout_seconds: float | None = None,
    ) -> AsyncIterator[list[Row]]:
        """As of the real session."""
        pages = self._inner.execute_paged(
            prepared, params, page_rows=page_rows, consistency=consistency, timeout_seconds=timeout_seconds
        )
        async for page in pages:
            self._process.alive()
            yield page

    async def execute_all(
        self,
        prepared: Prepared,
        many_params: Iterable[Params],
        *,
        concurrency: int = 32,
        consistency: Consistency | None = None,
        timeout_seconds: float | None = None,
    ) -> None:
        """One after the other, so that the calls have numbers."""
        for params in many_params:
            await self.execute(prepared, params, consistency=consistency, timeout_seconds=timeout_seconds)

    async def batch(
        self,
        statements: Sequence[tuple[Prepared, Params]],
        *,
        consistency: Consistency | None = None,
        timeout_seconds: float | None = None,
        idempotent: bool = True,
    ) -> None:
        """One call, whatever the number of statements."""
        if not statements:
            return

        async def real() -> None:
            await self._inner.batch(
                statements, consistency=consistency, timeout_seconds=timeout_seconds, idempotent=idempotent
            )

        await self._suffering(f"batch {statements[0][0].cql}", real, idempotent)

    async def apply(
        self, prepared: Prepared, params: Params = (), *, timeout_seconds: float | None = None
    ) -> Applied:
        """A lost reply raises OUTCOME_UNKNOWN."""

        async def real() -> Applied:
            return await self._inner.apply(prepared, params, timeout_seconds=timeout_seconds)

        return await self._suffering(prepared.cql, real, idempotent=False)

    async def apply_batch(
        self, statements: Sequence[tuple[Prepared, Params]], *, timeout_seconds: float | None = None
    ) -> Applied:
        """As `apply`."""

        async def real() -> Applied:
            return await self._inner.apply_batch(statements, timeout_seconds=timeout_seconds)

        return await self._suffering(f"batch {statements[0][0].cql}", real, idempotent=False)

    async def execute_cql(
        self, cql: str, *, keyspace: str | None = None, timeout_seconds: float | None = None
    ) -> list[Row]:
        """Does not suffer: it is for tests and for changes of the schema."""
        self._process.alive()
        return await self._inner.execute_cql(cql, keyspace=keyspace, timeout_seconds=timeout_seconds)

    async def close(self) -> None:
        """Leaves the real session open."""
        await self.drain()

    async def _suffering[T](self, what: str, real: Callable[[], Awaitable[T]], idempotent: bool) -> T:
        reason = "STORE_UNAVAILABLE" if idempotent else OUTCOME_UNKNOWN
        unknown = Unavailable("cassandra", "the reply was lost, says the test", reason=reason)
        return await self._process.call(what, real, unknown)
