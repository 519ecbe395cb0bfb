"""The embedded store: runs what the modules beside it do on threads of its own, and passes on their errors."""

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tidewire_kit.errors import FailedPrecondition, Unavailable
from tidewire_kit.ids import TenantId
from tidewire_storage.adapters.embedded import fetching, reading, schema, sealing, upkeep, writing
from tidewire_storage.adapters.embedded.files import BlockFile, free_bytes
from tidewire_storage.adapters.embedded.recount import Recount
from tidewire_storage.domain.blocks import EpochCoverage, SealedEpoch, StoredBlock, TopicPartitionKey
from tidewire_storage.domain.series import SeriesStates
from tidewire_storage.ports import (
    Exchange,
    Flush,
    LedgerAccount,
    Look,
    RangesOf,
    Seal,
    StoredProgress,
    StoreFull,
    TenantUsage,
)

FILE_BYTES = 256 << 20
_PRUNE_EVERY = 64
"""Flushes between two prunings of the stored deduplication window."""


class EmbeddedStore:
    """BlockWriter, BlockReader, Sealing and Upkeep over one directory. `await open()` first, `await close()` last."""

    def __init__(
        self,
        directory: Path,
        *,
        file_bytes: int = FILE_BYTES,
        min_free_bytes: int = 0,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        """Below `min_free_bytes` on the disk commits raise StoreFull. `free` tells the free bytes of a directory."""
        self._directory = directory
        self._blocks = directory / "blocks"
        self._catalog = directory / "catalog.db"
        self._file_bytes = file_bytes
        self._min_free_bytes = min_free_bytes
        self._free = free
        self._writer = ThreadPoolExecutor(1, "storage-write")
        self._readers = ThreadPoolExecutor(max(2, min(4, os.cpu_count() or 2)), "storage-read")
        self._keeper = ThreadPoolExecutor(1, "storage-keep")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._file: BlockFile | None = None
        """Takes flushed blocks, on the writing thread: a whole file of them is dead once their epochs are sealed."""
        self._sealed_file: BlockFile | None = None
        """Takes sealed blocks, on the keeper's thread."""
        self._cold_file: BlockFile | None = None
        """Takes what is kept of objects of the cold tier, on the same thread: such a file cannot be swept by itself."""
        self._recount = Recount(self._blocks)
        self._flushes = 0
        self._buried = upkeep.Buried()

    async def open(self) -> None:
        """Makes what is missing. FailedPrecondition when the catalog is damaged or newer than this software, or the
        directory cannot be written."""
        await asyncio.get_running_loop().run_in_executor(self._writer, self._create)

    async def close(self) -> None:
        """Closes files and connections. Idempotent."""
        await asyncio.to_thread(self._close)

    def _create(self) -> None:
        try:
            schema.create(self._connection(), self._catalog)
        except OSError as error:
            why = f"{self._directory} cannot be written: {error.strerror}; give another TIDEWIRE_DATA_DIR"
            raise FailedPrecondition(
                why, reason="DATA_DIR_NOT_WRITABLE", subject=str(self._directory)
            ) from error
        except sqlite3.OperationalError as error:
            raise Unavailable("storage", f"catalog {self._catalog}: {error}") from error
        except sqlite3.DatabaseError as error:
            why = f"{self._catalog} cannot be opened: {error}; restore {self._directory} from a backup"
            raise FailedPrecondition(why, reason="CATALOG_DAMAGED", subject=str(self._catalog)) from error

    def _close(self) -> None:
        for executor in (self._writer, self._readers, self._keeper):
            executor.shutdown()
        self._roll()
        self._roll_sealed()
        self._roll_cold()
        while self._connections:
            self._connections.pop().close()

    # BlockWriter

    async def progress(
        self, places: Collection[TopicPartitionKey]
    ) -> Mapping[TopicPartitionKey, StoredProgress]:
        """See BlockWriter."""
        return await self._on(
            self._writer, lambda c: {place: writing.read_progress(c, place) for place in places}
        )

    async def commit(self, flush: Flush) -> None:
        """See BlockWriter."""
        await self._on(self._writer, lambda c: self._commit(c, flush))

    def _commit(self, connection: sqlite3.Connection, flush: Flush) -> None:
        self._check_room()
        places: list[tuple[int, int]] = []
        if flush.blocks:
            if self._file is None:
                self._file = self._new_file(connection, self._buried.known_to)
            positions = self._file.append([block.data for block in flush.blocks])
            places = [(self._file.file_id, position) for position in positions]
        try:
            writing.write_flush(connection, flush, places)
        except BaseException:
            if self._file is not None and places:
                self._file.cut(places[0][1])  # on a full disk every try would take more of what is left
            raise
        if self._file is not None and self._file.end >= self._file_bytes:
            self._roll()
        self._flushes += 1
        if self._flushes % _PRUNE_EVERY == 0:
            with contextlib.suppress(sqlite3.Error):  # the flush is stored; there will be another pruning
                writing.prune_entries(connection)

    def _check_room(self) -> None:
        if self._free(self._directory) < self._min_free_bytes:
            raise StoreFull(
                f"less than {self._min_free_bytes >> 20} MiB free in {self._directory}; make room on the disk"
            )

    def _new_file(self, connection: sqlite3.Connection, clean_seq: int) -> BlockFile:
        file: BlockFile | None = None
        try:
            with writing.transaction(connection):  # so that a sweep never sees the row without the file
                while file is None:
                    cursor = connection.execute("INSERT INTO files (clean_seq) VALUES (?)", (clean_seq,))
                    assert cursor.lastrowid is not None
                    # A process that was killed before its row was committed has left a file of this number.
                    with contextlib.suppress(FileExistsError):
                        file = BlockFile(self._blocks, cursor.lastrowid)
        except BaseException:
            if file is not None:
                file.close()  # locked, it could never be swept away
            raise
        return file

    def _roll(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _roll_sealed(self) -> None:
        if self._sealed_file is not None:
            self._sealed_file.close()
            self._sealed_file = None

    def _roll_cold(self) -> None:
        if self._cold_file is not None:
            self._cold_file.close()
            self._cold_file = None

    async def blocks_after(self, place: TopicPartitionKey, offset: int) -> list[StoredBlock]:
        """See BlockWriter."""
        return await self._on(self._readers, lambda c: reading.blocks_after(c, place, offset))

    async def cut_requested(self) -> int:
        """See BlockWriter."""
        return await self._on(self._readers, reading.last_cut_request)

    async def note_cut(self, request: int, places: Mapping[TopicPartitionKey, bool]) -> None:
        """See BlockWriter."""

        def note(connection: sqlite3.Connection) -> None:
            with writing.transaction(connection):
                connection.executemany(
                    "INSERT OR REPLACE INTO cuts_noted VALUES (?, ?, ?, ?)",
                    [(place.incarnation, place.partition, request, cut) for place, cut in places.items()],
                )

        await self._on(self._writer, note)

    # Sealing

    async def unsealed(self, place: TopicPartitionKey) -> list[EpochCoverage]:
        """See Sealing."""
        return await self._on(self._readers, lambda c: reading.read_unsealed(c, place))

    async def unmerged(self, place: TopicPartitionKey) -> list[SealedEpoch]:
        """See Sealing."""
        return await self._on(self._readers, lambda c: reading.read_unmerged(c, place))

    async def blocks_of_epoch(self, place: TopicPartitionKey, epoch: int) -> list[StoredBlock]:
        """See Sealing."""
        return await self._on(self._readers, lambda c: reading.blocks_of_epoch(c, place, epoch))

    async def seal(self, seal: Seal) -> bool:
        """See Sealing."""
        return await self._on(self._keeper, lambda c: self._seal(c, seal))

    def _seal(self, connection: sqlite3.Connection, seal: Seal) -> bool:
        self._check_room()
        if sealing.outdated(connection, seal):
            return False
        file, places = None, []
        if seal.blocks:
            file = self._sealed_file
            if file is None:
                file = self._sealed_file = self._new_file(connection, self._buried.known_to)
            places = [(file.file_id, at) for at in file.append([block.data for block in seal.blocks])]
        try:
            written = sealing.write_seal(connection, seal, places)
        except BaseException:
            if file is not None:
                file.cut(places[0][1])
            raise
        if file is not None and not written:
            file.cut(places[0][1])
        elif file is not None and file.end >= self._file_bytes:
            self._roll_sealed()
        return written

    async def exchange(self, exchange: Exchange) -> bool:
        """See Sealing."""
        return await self._on(self._keeper, lambda c: self._exchange(c, exchange))

    def _exchange(self, connection: sqlite3.Connection, exchange: Exchange) -> bool:
        # Without looking for room: this is what makes some.
        places = []
        if exchange.blocks:
            if self._cold_file is None:
                self._cold_file = self._new_file(connection, self._buried.known_to)
            file = self._cold_file
            places = [(file.file_id, at) for at in file.append([block.data for block in exchange.blocks])]
        written = False
        try:
            written = sealing.write_exchange(connection, exchange, places)
        finally:
            if places and self._cold_file is not None and not written:
                self._cold_file.cut(places[0][1])
        if self._cold_file is not None and self._cold_file.end >= self._file_bytes:
            self._roll_cold()
        return written

    # BlockReader

    async def find(
        self,
        tenant: TenantId,
        place: TopicPartitionKey | None,
        start_us: int,
        end_us: int,
        *,
        after: StoredBlock | None = None,
        limit: int | None = None,
        rollup: int | None = None,
    ) -> list[StoredBlock]:
        """See BlockReader."""
        return await self._on(
            self._readers,
            lambda c: reading.find_blocks(c, tenant, place, start_us, end_us, after, limit, rollup),
        )

    async def look(
        self,
        tenant: TenantId,
        place: TopicPartitionKey,
        start_us: int,
        end_us: int,
        kinds: Sequence[int | None],
        limit: int | None = None,
    ) -> Look:
        """See BlockReader."""
        return await self._on(
            self._readers, lambda c: reading.look(c, tenant, place, start_us, end_us, kinds, limit)
        )

    async def read(self, blocks: Sequence[StoredBlock]) -> list[bytes | None]:
        """See BlockReader."""
        return await self._on(self._readers, lambda c: fetching.read_blocks(c, self._blocks, blocks))

    async def read_ranges(self, asked: Sequence[RangesOf]) -> list[list[bytes] | None]:
        """See BlockReader."""
        return await self._on(self._readers, lambda _: fetching.read_ranges(self._blocks, asked))

    async def seals(self, place: TopicPartitionKey) -> int:
        """See BlockReader."""
        return await self._on(self._readers, lambda c: reading.last_seal(c, place))

    async def series(self, tenant: TenantId, device_uids: Sequence[bytes]) -> list[SeriesStates]:
        """See BlockReader."""
        return await self._on(self._readers, lambda c: reading.read_series(c, tenant, device_uids))

    async def epochs(self, place: TopicPartitionKey) -> list[EpochCoverage]:
        """See BlockReader."""
        return await self._on(self._readers, lambda c: reading.read_epochs(c, place))

    async def ledger(self, tenant: TenantId | None, start_us: int, end_us: int) -> LedgerAccount:
        """See BlockReader."""
        return await self._on(self._keeper, lambda c: self._recount.account(c, tenant, start_us, end_us))

    async def difference(self) -> int:
        """See BlockReader."""
        return await self._on(self._keeper, self._recount.difference)

    async def usage(self, tenant: TenantId | None) -> list[TenantUsage]:
        """See BlockReader."""
        return await self._on(self._readers, lambda c: reading.read_usage(c, tenant))

    async def progress_offsets(self, incarnation: bytes) -> dict[int, int]:
        """See BlockReader."""
        return await self._on(self._readers, lambda c: reading.read_progress_offsets(c, incarnation))

    async def request_cut(self) -> int:
        """See BlockReader."""

        def request(connection: sqlite3.Connection) -> int:
            with writing.transaction(connection):
                number = connection.execute("INSERT INTO cut_requests DEFAULT VALUES").lastrowid
            assert number is not None
            return number

        return await self._on(self._keeper, request)

    async def cuts_noted(self, request: int) -> dict[int, bool]:
        """See BlockReader."""
        return await self._on(self._readers, lambda c: reading.read_cuts_noted(c, request))

    # Upkeep

    async def expire(self, tenant: TenantId, before_us: int, *, rollups: bool = False) -> int:
        """See Upkeep."""
        return await self._on(self._keeper, lambda c: upkeep.expire(c, tenant, before_us, rollups=rollups))

    async def bury(self, tenants: Collection[TenantId], devices: Collection[tuple[TenantId, bytes]]) -> int:
        """See Upkeep."""
        return await self._on(self._keeper, lambda c: self._buried.bury(c, tenants, devices))

    async def sweep(self) -> int:
        """See Upkeep. The files that this process appends to are closed first when they may hold something deleted."""
        await self._on(self._writer, self._roll_if_unclean)
        await self._on(self._keeper, self._roll_sealed_if_unclean)
        return await self._on(
            self._keeper,
            lambda c: upkeep.sweep(c, self._blocks, lambda clean_seq: self._new_file(c, clean_seq)),
        )

    def _roll_if_unclean(self, connection: sqlite3.Connection) -> None:
        if self._file is not None and upkeep.unclean(connection, self._file.file_id):
            self._roll()

    def _roll_sealed_if_unclean(self, connection: sqlite3.Connection) -> None:
        if self._sealed_file is not None and upkeep.unclean(connection, self._sealed_file.file_id):
            self._roll_sealed()
        if self._cold_file is not None and upkeep.unclean(connection, self._cold_file.file_id):
            self._roll_cold()

    # Threads

    async def _on[T](self, executor: ThreadPoolExecutor, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs `work` on a thread with that thread's connection; SQLite's and the disk's errors become ours."""

        def run() -> T:
            try:
                return work(self._connection())
            except sqlite3.OperationalError as error:
                if "full" in str(error):
                    raise StoreFull(f"{self._catalog}: {error}; make room on the disk") from error
                raise Unavailable("storage", f"catalog: {error}") from error
            except OSError as error:
                raise Unavailable("storage", f"{error.strerror}: {error.filename}") from error

        return await asyncio.get_running_loop().run_in_executor(executor, run)

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            self._blocks.mkdir(parents=True, exist_ok=True)
            connection = schema.connect(self._catalog)
            self._local.connection = connection
            self._connections.append(connection)
        return connection
