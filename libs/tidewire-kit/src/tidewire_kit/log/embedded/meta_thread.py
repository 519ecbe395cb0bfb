"""Runs SQLite work in one thread of its own: no blocking call on the event loop, and group commit for free.

Jobs that wait while one transaction is being committed share the next one. When one of them fails, the transaction is
rolled back and its jobs run one by one, so that a bad one hurts only its caller.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from tidewire_kit.errors import TidewireError, Unavailable
from tidewire_kit.lasting import ended
from tidewire_kit.log.errors import LogFull

T = TypeVar("T")

Job = Callable[[sqlite3.Connection], T]

_MOST_SHARED = 64
_BUSY_TIMEOUT_MS = 10_000


def connect(path: Path) -> sqlite3.Connection:
    """Opens the database as every user of it must: WAL, synced at every commit, waiting for other processes."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def translated(error: sqlite3.Error) -> TidewireError:
    """The platform's error for a database error."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
        return LogFull("no disk space for the log's metadata; free some space")
    return Unavailable("message log", f"its metadata database failed: {error}")


class _Pending:
    __slots__ = ("future", "job", "writes")

    def __init__(self, job: Job[Any], writes: bool, future: "asyncio.Future[Any]") -> None:
        self.job = job
        self.writes = writes
        self.future = future


class MetaThread:
    """Serial executor over one connection; create and use it on one event loop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Pending | None] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="log-meta", daemon=True)
        self._thread.start()

    async def read(self, job: Job[T]) -> T:
        """Runs a job that only reads. Raises Unavailable, or what the job raised."""
        return await self._submit(job, writes=False)

    async def write(self, job: Job[T]) -> T:
        """Runs a job in a transaction (perhaps together with others); durable on return. May be run twice."""
        return await self._submit(job, writes=True)

    def ended(self) -> str | None:
        """As of `MessageLog.ended`."""
        return ended(self._thread)

    async def close(self) -> None:
        """Runs what is queued, then closes the database. Idempotent."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)

    async def _submit(self, job: Job[T], *, writes: bool) -> T:
        if self._closed:
            raise Unavailable("message log", "it is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Pending(job, writes, future))
        return await future

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        stop = False
        while not stop:
            batch, stop = self._next_batch()
            if not batch:
                continue
            try:
                connection = connection or connect(self._path)
                outcomes = self._run_batch(connection, batch)
            except sqlite3.Error as error:
                outcomes = [(pending, None, translated(error)) for pending in batch]
            try:
                self._loop.call_soon_threadsafe(_deliver, outcomes)
            except RuntimeError:
                stop = True  # the loop is closed: nobody waits any more
        if connection is not None:
            connection.close()

    def _next_batch(self) -> tuple[list[_Pending], bool]:
        first = self._queue.get()
        if first is None:
            return [], True
        batch = [first]
        while len(batch) < _MOST_SHARED:
            try:
                following = self._queue.get_nowait()
            except Empty:
                break
            if following is None:
                return batch, True
            batch.append(following)
        return batch, False

    def _run_batch(
        self, connection: sqlite3.Connection, batch: list[_Pending]
    ) -> "list[tuple[_Pending, Any, Exception | None]]":
        try:
            return self._run_together(connection, batch)
        except Exception as error:  # noqa: BLE001 - given to the caller
            if len(batch) == 1:
                failure = translated(error) if isinstance(error, sqlite3.Error) else error
                return [(batch[0], None, failure)]
        return [outcome for pending in batch for outcome in self._run_batch(connection, [pending])]

    def _run_together(
        self, connection: sqlite3.Connection, batch: list[_Pending]
    ) -> "list[tuple[_Pending, Any, Exception | None]]":
        if not any(pending.writes for pending in batch):
            return [(pending, pending.job(connection), None) for pending in batch]
        connection.execute("BEGIN IMMEDIATE")
        try:
            outcomes: list[tuple[_Pending, Any, Exception | None]] = [
                (pending, pending.job(connection), None) for pending in batch
            ]
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return outcomes


def _deliver(outcomes: "list[tuple[_Pending, Any, Exception | None]]") -> None:
    for pending, result, failure in outcomes:
        if pending.future.done():
            continue
        if failure is None:
            pending.future.set_result(result)
        else:
            pending.future.set_exception(failure)
