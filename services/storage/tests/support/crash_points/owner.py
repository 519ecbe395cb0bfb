"""Storage's part of a process that owns the partition, made of the real use cases over the real embedded store."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from crash_points.history import PARTITION, History, Readings
from tidewire_kit.directory import Retention
from tidewire_kit.ids import TenantId
from tidewire_kit.owner import DedupWindow, SegmentHasher
from tidewire_kit.owner.admission import admit, decode_checked
from tidewire_kit.telemetry.record import decode_record
from tidewire_storage.adapters.embedded import EmbeddedStore
from tidewire_storage.application.buckets import Buckets
from tidewire_storage.application.directories import Directories
from tidewire_storage.application.gather import EpochLimits
from tidewire_storage.application.housekeeping import Housekeeping
from tidewire_storage.application.ingest import IngestLimits, IngestReadings
from tidewire_storage.application.latest import SeriesDirectory
from tidewire_storage.application.merge import MergeEpochs, MergeLimits
from tidewire_storage.application.names import Names
from tidewire_storage.application.read_series import ReadSeries
from tidewire_storage.application.rollup import Rollup
from tidewire_storage.application.seal import SealEpochs
from tidewire_storage.domain.rollups import DAY_US
from tidewire_testkit.clock import START_US, ManualClock

FILE_BYTES = 4_000
"""So small that files are full, swept and rewritten."""


class Owner:
    """The owner of the partition over a directory; `port` may stand between it and the store."""

    def __init__(
        self, history: History, directory: Path, port: Callable[[EmbeddedStore], Any] = lambda store: store
    ) -> None:
        self.history = history
        self.clock = ManualClock(START_US + 2 * DAY_US)
        self.store = EmbeddedStore(directory, file_bytes=FILE_BYTES)
        self.port = port(self.store)
        self.world = history.world()
        self.ingest = IngestReadings(
            self.port,
            self.clock,
            history.incarnation,
            IngestLimits(series_seconds=1e9, epochs=EpochLimits(gathered_bytes=1 << 20)),
        )
        self._hasher = SegmentHasher(history.incarnation)
        self._window = DedupWindow()
        self._next = 0
        directories = Directories(self.port)
        rollup = Rollup(self.port, directories, self.clock, self._retention)
        self.sealing = SealEpochs(self.port, lambda: [history.place], lambda: self.ingest.buried)
        self.merging = MergeEpochs(
            self.port,
            rollup,
            lambda: [history.place],
            lambda: self.ingest.buried,
            self.sealing.lock,
            self.clock,
            MergeLimits(),
        )
        self.housekeeping = Housekeeping(
            self.port,
            self.ingest,
            self.sealing,
            self.merging,
            self.world.directory,
            self.clock,
            SimpleNamespace(difference=self.store.difference),  # type: ignore[arg-type] # all that is asked of it
            seal_seconds=1,
            purge_seconds=1,
            expire_seconds=1,
            recount_seconds=1,
        )
        self.buckets = Buckets(self.store, directories, rollup, worth_device_days=0)
        names = Names(self.world.directory)
        self.read_series = ReadSeries(self.store, directories, names, history.incarnation)
        self.series = SeriesDirectory(self.store, names)

    def _retention(self, tenant: TenantId) -> Retention:
        view = self.world.directory.tenant(tenant)
        return Retention() if view is None else view.retention

    async def load(self) -> None:
        """Begins, or begins again, with what is stored."""
        await self.ingest.forget([PARTITION])
        progress = (await self.ingest.load([PARTITION]))[PARTITION]
        self._next = progress.next_offset or 0
        self._window = DedupWindow()
        self._window.load(progress.entries)

    async def flush(self) -> None:
        """Takes what is in the log, and stores it when the time has come; series states are left for later."""
        records = self.history.records[self._next :]
        if records:
            decoded = [decode_checked(decode_record, record) for record in records]
            for admitted in admit(PARTITION, decoded, self._hasher, self._window):
                self.ingest.take(admitted)
            self._next = len(self.history.records)
        for _ in range(2):  # begins and ends
            self.clock.advance(10)
            await self.ingest.settle()
            if self.ingest._flushing is not None:
                await asyncio.wait([self.ingest._flushing])

    async def drain(self) -> None:
        """Makes everything durable, as when the partition is given up."""
        await self.flush()
        await self.ingest.flush([PARTITION])

    async def cut(self) -> None:
        """Follows a request to end the epoch."""
        await self.port.request_cut()
        self.clock.advance(1)
        await self.flush()

    async def step(self, name: str) -> None:
        """One of flush, drain, cut, seal, merge, purge, expire; each may be done again."""
        if name == "purge":
            self.history.tell_deleted(self.world)
        todo = {
            "flush": self.flush,
            "drain": self.drain,
            "cut": self.cut,
            "seal": self.sealing.round,
            "merge": self.merging.round,
            "purge": self.housekeeping.purge,
            "expire": self.housekeeping.expire,
        }
        await todo[name]()

    async def read(self, name: str) -> Readings:
        """What is visible of a device."""
        found: Readings = {}
        device = self.history.devices[name]
        async for part in self.read_series.read(device.tenant.uid, device.id, (), None, None, 0, ""):
            for metric, column in zip(part.metrics, part.values, strict=True):
                for time, value in zip(part.time_unix_us.tolist(), column.tolist(), strict=True):
                    if value == value:
                        assert (time, metric) not in found, "the same reading twice"
                        found[time, metric] = value
        return found

    async def totals(self) -> dict[str, tuple[int, ...]]:
        """Per tenant: accepted, stored, duplicate, purged, present; the ledger has to add up in every line."""
        names = {tenant.uid: name for name, tenant in self.history.tenants.items()}
        account = await self.store.ledger(None, 0, 1 << 62)
        sums: dict[str, tuple[int, ...]] = {}
        for line in account.lines:
            assert line.difference == 0, line
            now = (line.accepted, line.stored, line.duplicate, line.purged, line.present)
            before = sums.get(names[line.key[0]], (0,) * len(now))
            sums[names[line.key[0]]] = tuple(a + b for a, b in zip(before, now, strict=True))
        return sums


@asynccontextmanager
async def owning(
    history: History, directory: Path, port: Callable[[EmbeddedStore], Any] = lambda store: store
) -> AsyncIterator[Owner]:
    """An owner that has loaded what is stored."""
    owner = Owner(history, directory, port)
    try:
        await owner.store.open()
        await owner.load()
        yield owner
    finally:
        await owner.store.close()
