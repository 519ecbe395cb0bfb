"""Connections to the registry's SQLite database and the threads that use them. Used by store.EmbeddedStore.

One thread writes. It takes all writes that wait, runs each in a savepoint of its own, and commits them together: a
hundred callers share one fsync and one bad write does not fail its neighbours. Two threads read; WAL lets them see
the last commit while the next is being written.
"""

import asyncio
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidewire_kit.errors import FailedPrecondition, Unavailable
from tidewire_kit.filter.geometry import distance_meters
from tidewire_kit.observability.logs import get_logger
from tidewire_registry.adapters.embedded.schema import ensure_schema

logger = get_logger(__name__)

_READERS = 2
_MAX_WRITES_PER_COMMIT = 256


@dataclass(slots=True)
class _Job:
    work: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class Database:
    """The database in `directory`. `read` and `write` run a function with a connection, off the event loop."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = str(directory / "registry.db")
        self._lock_file: int | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._readers = ThreadPoolExecutor(_READERS, "registry-reader", initializer=self._open_reader)
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Opens or creates the database. FailedPrecondition when it is newer, or another registry has it open."""
        self._loop = asyncio.get_running_loop()
        connection = await asyncio.to_thread(self._open)
        self._writer = threading.Thread(target=self._write_jobs, args=(connection,), name="registry-writer")
        self._writer.start()

    async def close(self) -> None:
        """Finishes the writes that wait and closes everything. Idempotent."""
        if self._writer is not None:
            self._jobs.put(None)
            await asyncio.to_thread(self._writer.join)
            self._writer = None
        await asyncio.to_thread(self._readers.shutdown)
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    async def read[T](self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Returns what `work` returns, given a reading connection. Raises Unavailable when SQLite fails."""
        assert self._loop is not None
        try:
            return await self._loop.run_in_executor(self._readers, lambda: work(self._local.connection))
        except sqlite3.Error as error:
            raise _unavailable(error) from error

    async def write[T](self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Returns what `work` returns once its transaction is durable; raises what it raised, and then wrote nothing.

        If the caller is cancelled the write may still be done.
        """
        if self._writer is None or self._loop is None:
            raise Unavailable("registry store", "is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Job(work, future))
        return await future

    async def empty_log(self) -> bool:
        """Moves SQLite's write-ahead log into the database and empties it. False: others were in the way."""
        statement = "PRAGMA wal_checkpoint(TRUNCATE)"
        busy = await self.read(lambda connection: connection.execute(statement).fetchone()[0])
        return not busy

    # Threads

    def _open(self) -> sqlite3.Connection:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._lock_file = os.open(self._directory / "registry.lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            why = f"another registry process uses {self._directory}; stop it first, or give another TIDEWIRE_DATA_DIR"
            raise FailedPrecondition(why, reason="REGISTRY_RUNNING", subject=str(self._directory)) from None
        except OSError as error:
            why = f"{self._directory} cannot be written: {error.strerror}; give another TIDEWIRE_DATA_DIR"
            raise FailedPrecondition(
                why, reason="DATA_DIR_NOT_WRITABLE", subject=str(self._directory)
            ) from None
        try:
            return self._connect(cache_mib=32, prepare=self._prepare)
        except sqlite3.DatabaseError as error:
            why = f"{self._path} cannot be opened: {error}; restore it from a backup"
            raise FailedPrecondition(why, reason="REGISTRY_DAMAGED", subject=self._path) from error

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 8000")
        connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten, not only unlinked
        ensure_schema(connection, self._path)

    def _open_reader(self) -> None:
        connection = self._connect(cache_mib=8, prepare=_prepare_reader)
        self._local.connection = connection
        self._connections.append(connection)

    def _connect(self, cache_mib: int, prepare: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=5.0, isolation_level=None, check_same_thread=False, cached_statements=512
        )
        try:
            connection.execute(f"PRAGMA cache_size = -{cache_mib * 1024}")
            connection.execute("PRAGMA temp_store = MEMORY")
            prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _write_jobs(self, connection: sqlite3.Connection) -> None:
        closing = False
        while not closing:
            job = self._jobs.get()
            batch: list[_Job] = []
            while job is not None:
                batch.append(job)
                if len(batch) >= _MAX_WRITES_PER_COMMIT or self._jobs.empty():
                    break
                job = self._jobs.get()
            closing = job is None
            if batch:
                _commit_together(connection, batch)
                assert self._loop is not None
                self._loop.call_soon_threadsafe(_settle, batch)
        connection.close()


def _commit_together(connection: sqlite3.Connection, batch: list[_Job]) -> None:
    try:
        connection.execute("BEGIN IMMEDIATE")
        for job in batch:
            connection.execute("SAVEPOINT job")
            try:
                job.result = job.work(connection)
            except Exception as error:
                job.error = _unavailable(error) if isinstance(error, sqlite3.Error) else error
                if not connection.in_transaction:  # a full disk ends the whole transaction
                    raise
                connection.execute("ROLLBACK TO job")
            connection.execute("RELEASE job")
        connection.execute("COMMIT")
    except Exception as error:  # noqa: BLE001 - the thread must live
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        for job in batch:
            job.error = job.error or _unavailable(error)


def _settle(batch: list[_Job]) -> None:
    for job in batch:
        if job.future.done():  # its caller was cancelled
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)


def _unavailable(error: Exception) -> Unavailable:
    logger.error("registry_store_failed", error=str(error))
    full = "full" in str(error)
    return Unavailable(
        "registry store", "the disk is full; free some space" if full else "cannot be used; see the log"
    )


def _prepare_reader(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA query_only = ON")
    connection.execute(f"PRAGMA mmap_size = {1 << 28}")
    connection.create_function("distance_meters", 4, _distance, deterministic=True)


def _distance(
    latitude_1: float | None, longitude_1: float | None, latitude_2: float, longitude_2: float
) -> float | None:
    if latitude_1 is None or longitude_1 is None:
        return None
    return distance_meters(latitude_1, longitude_1, latitude_2, longitude_2)
