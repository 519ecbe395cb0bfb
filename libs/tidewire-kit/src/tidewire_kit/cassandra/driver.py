"""One connected cassandra-driver session on an event loop: slots, tries, timestamps, answers. Used by `session` only.

What it adds to the driver: answers reach asyncio futures in bunches (`bridge`), no more than so many requests are under
way, a request that may be repeated is tried until its deadline with one and the same write timestamp, and errors are
the platform's.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from cassandra.policies import RetryPolicy
from cassandra.query import BatchStatement, BatchType, SimpleStatement

from tidewire_kit.cassandra.bridge import LoopBridge
from tidewire_kit.cassandra.errors import DEPENDENCY, not_begun, too_few_copies, transient, translated
from tidewire_kit.cassandra.metrics import CassandraMetrics, OperationMetrics
from tidewire_kit.cassandra.settings import CassandraSettings
from tidewire_kit.errors import TidewireError, Unavailable

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0


class Timestamps:
    """Write timestamps of this process in µs, rising. `pinned` is used instead of a new one: one per request, not try.

    Only the loop's thread makes requests, so pinning one around the driver's call is safe.
    """

    __slots__ = ("_last", "pinned")

    def __init__(self) -> None:
        self._last = 0
        self.pinned: int | None = None

    def next(self) -> int:
        """Returns the next one."""
        self._last = max(self._last + 1, time.time_ns() // 1000)
        return self._last

    def __call__(self) -> int:
        """What the driver asks for each request."""
        return self.next() if self.pinned is None else self.pinned


class NextNode(RetryPolicy):  # type: ignore[misc]  # the driver has no types
    """What the driver does by itself after a node's error: asks the next node, if the request may be repeated."""

    def on_read_timeout(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """As the class says."""
        return self._decide(query)

    def on_write_timeout(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """As the class says."""
        return self._decide(query)

    def on_unavailable(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """As the class says."""
        return self._decide(query)

    def on_request_error(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """As the class says."""
        return self._decide(query)

    def _decide(self, query: Any) -> Any:
        if query is not None and query.is_idempotent:
            return self.RETRY_NEXT_HOST, None
        return self.RETHROW, None


class _Call:
    """A try under way."""

    __slots__ = ("answer", "response")

    def __init__(self, answer: asyncio.Future[tuple[list[Any], bytes | None]]) -> None:
        self.answer = answer
        self.response: Any = None


class Driver:
    """Sends statements and awaits their answers. Made by `connecting.connect`, on the loop that uses it."""

    def __init__(
        self,
        cluster: Any,
        session: Any,
        timestamps: Timestamps,
        settings: CassandraSettings,
        metrics: CassandraMetrics,
        *,
        datacenter: str,
        server_version: str,
    ) -> None:
        self._cluster = cluster
        self._session = session
        self._timestamps = timestamps
        self._settings = settings
        self._metrics = metrics
        self.datacenter = datacenter
        self.server_version = server_version
        self.keyspace: str | None = session.keyspace
        self._loop = asyncio.get_running_loop()
        self.bridge = LoopBridge(self._loop, self._answered)
        self._slots = asyncio.Semaphore(settings.in_flight_requests)
        self._closed = False

    async def request(
        self,
        operation: OperationMetrics,
        statement: Any,
        *,
        timeout_seconds: float | None = None,
        paging_state: bytes | None = None,
    ) -> tuple[list[Any], bytes | None]:
        """Executes and returns (rows, state of the next page or None). Raises as `session` says."""
        started = self._loop.time()
        try:
            answer = await self._until_deadline(
                operation,
                statement,
                started + (timeout_seconds or self._settings.request_timeout_seconds),
                paging_state,
            )
        except TidewireError as error:
            operation.failed(error.reason)
            raise
        finally:
            operation.seconds.observe(self._loop.time() - started)
        operation.succeeded.inc()
        return answer

    async def prepare(self, cql: str) -> Any:
        """Returns the driver's prepared statement; on a thread, as the driver waits for the nodes there."""
        deadline = self._loop.time() + self._settings.request_timeout_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            self._check_open()
            try:
                return await asyncio.to_thread(self._session.prepare, cql)
            except Exception as error:  # whatever the driver raises is translated
                if not transient(error) or self._loop.time() + pause > deadline:
                    raise translated(error) from error
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def bound(
        self,
        prepared: Any,
        params: Sequence[Any],
        *,
        consistency: int | None,
        page_rows: int,
        idempotent: bool,
    ) -> Any:
        """Returns a statement with its values."""
        statement = prepared.bind(params)
        statement.fetch_size = page_rows
        statement.is_idempotent = idempotent
        if consistency is not None:
            statement.consistency_level = consistency
        return statement

    def batch(
        self, statements: Sequence[tuple[Any, Sequence[Any]]], *, consistency: int | None, idempotent: bool
    ) -> Any:
        """Returns an unlogged batch."""
        batch = BatchStatement(batch_type=BatchType.UNLOGGED, consistency_level=consistency)
        for prepared, params in statements:
            batch.add(prepared, params)
        batch.is_idempotent = idempotent
        return batch

    def simple(self, cql: str, keyspace: str | None) -> Any:
        """Returns a statement of text alone."""
        return SimpleStatement(cql, is_idempotent=False, keyspace=keyspace)

    @property
    def nodes(self) -> int:
        """Nodes of the datacenter, up or down."""
        return sum(1 for host in self._cluster.metadata.all_hosts() if host.datacenter == self.datacenter)

    async def close(self) -> None:
        """Ends the connections; a second call does nothing."""
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._cluster.shutdown)

    async def _until_deadline(
        self, operation: OperationMetrics, statement: Any, deadline: float, paging_state: bytes | None
    ) -> tuple[list[Any], bytes | None]:
        started = self._loop.time()
        timestamp = self._timestamps.next()
        pause = _FIRST_PAUSE_SECONDS
        while True:
            await self._take_slot(deadline)
            call = _Call(self._loop.create_future())
            self._metrics.in_flight.inc()
            try:
                call.response = self._send(
                    call, statement, self._try_seconds(statement, deadline), timestamp, paging_state
                )
            except BaseException:
                self._give_back()
                raise
            try:
                return await call.answer
            except Exception as error:  # whatever the driver raises is translated
                again = statement.is_idempotent and transient(error) and not self._closed
                if too_few_copies(error):
                    # The nodes know that others are down: refuse soon, so that callers can tell theirs.
                    deadline = min(deadline, started + self._settings.try_timeout_seconds)
                if not again or self._loop.time() + pause >= deadline:
                    attempted = bool(call.response.attempted_hosts)
                    raise translated(
                        error, outcome_unknown=not (statement.is_idempotent or not_begun(error, attempted))
                    ) from error
            finally:
                sent = len(call.response.attempted_hosts)
                if sent > 1:
                    operation.retries.inc(sent - 1)
            operation.retries.inc()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _try_seconds(self, statement: Any, deadline: float) -> float:
        """Longest time of a pass over the nodes: each is asked in turn, and the last gets as long as the others."""
        left = max(0.001, deadline - self._loop.time())
        if not statement.is_idempotent:
            return left
        return min(left, self._settings.try_timeout_seconds * (len(self._session.hosts) + 1))

    def _send(
        self, call: _Call, statement: Any, timeout: float, timestamp: int, paging_state: bytes | None
    ) -> Any:
        self._timestamps.pinned = timestamp
        try:
            response = self._session.execute_async(statement, timeout=timeout, paging_state=paging_state)
        finally:
            self._timestamps.pinned = None
        response.add_callbacks(
            self.bridge.succeeded,
            self.bridge.failed,
            callback_args=(call, response),
            errback_args=(call,),
        )
        return response

    def _answered(self, call: _Call, result: Any, error: BaseException | None) -> None:
        """On the loop. The slot is given back here, not by the waiter: one that was cancelled leaves its request."""
        self._give_back()
        if call.answer.done():
            return
        if error is not None:
            call.answer.set_exception(error)
        else:
            rows, response = result
            if not response.is_schema_agreed:
                call.answer.set_exception(
                    Unavailable(
                        DEPENDENCY,
                        "the change was made, but the nodes do not agree on the schema yet; wait until all answer",
                        reason="STORE_UNAVAILABLE",
                        retry_delay_seconds=5.0,
                    )
                )
                return
            call.answer.set_result((rows if rows is not None else [], response._paging_state))

    async def _take_slot(self, deadline: float) -> None:
        self._check_open()
        if self._slots.locked():
            try:
                async with asyncio.timeout_at(deadline):
                    await self._slots.acquire()
            except TimeoutError:
                raise Unavailable(
                    DEPENDENCY,
                    "too many requests wait for their answers; nothing was done",
                    reason="STORE_UNAVAILABLE",
                    retry_delay_seconds=1.0,
                ) from None
            self._check_open_with_slot()
        else:
            await self._slots.acquire()

    def _check_open_with_slot(self) -> None:
        if self._closed:
            self._slots.release()
            self._check_open()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable(DEPENDENCY, "the session is closed", reason="STORE_UNAVAILABLE")

    def _give_back(self) -> None:
        self._metrics.in_flight.dec()
        self._slots.release()
