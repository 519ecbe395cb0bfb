"""The Cassandra store: opens what the modules beside it need, and does what the ports say by them."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from tidewire_kit.cassandra import CassandraSession
from tidewire_kit.clock import Clock
from tidewire_kit.ids import TenantId
from tidewire_storage.adapters.cassandra import fetching, reading
from tidewire_storage.adapters.cassandra.attempts import ORPHAN_SECONDS, Attempts
from tidewire_storage.adapters.cassandra.cuts import Cuts
from tidewire_storage.adapters.cassandra.heads import Heads
from tidewire_storage.adapters.cassandra.recount import VERIFY_SECONDS, Recount
from tidewire_storage.adapters.cassandra.series import PlaceOf, SeriesRows
from tidewire_storage.adapters.cassandra.tables import Tables, gather_all
from tidewire_storage.adapters.cassandra.upkeep import CassandraUpkeep
from tidewire_storage.adapters.cassandra.writing import Retention, Writing
from tidewire_storage.domain.blocks import (
    Block,
    EpochCoverage,
    SealedEpoch,
    StoredBlock,
    TopicPartitionKey,
)
from tidewire_storage.domain.series import SeriesStates
from tidewire_storage.ports import (
    Exchange,
    Flush,
    LedgerAccount,
    Look,
    ProgressMoved,
    RangesOf,
    Seal,
    StoredProgress,
    TenantUsage,
)

OpenSession = Callable[[], Awaitable[CassandraSession]]


class CassandraStore:
    """All roles of `Store` over a keyspace. `await open()` first, `await close()` last; on one loop."""

    def __init__(
        self,
        open_session: OpenSession,
        clock: Clock,
        topic: str,
        place_of: PlaceOf,
        *,
        retention: Retention = lambda tenant, rollups: None,
        verify_seconds: float = VERIFY_SECONDS,
        orphan_seconds: float = ORPHAN_SECONDS,
    ) -> None:
        """`open_session` connects and has checked the schema; the store closes the session.

        `place_of` tells a device's place; `retention` how long a tenant keeps readings, or rollups, in
        seconds (None: for good).
        """
        self._open_session = open_session
        self._clock = clock
        self._topic = topic
        self._place_of = place_of
        self._retention = retention
        self._verify_seconds = verify_seconds
        self._orphan_seconds = orphan_seconds
        self._session: CassandraSession | None = None
        self._unsealed_from: dict[TopicPartitionKey, int] = {}
        """Epochs before this one are sealed."""
        self._unmerged_from: dict[TopicPartitionKey, int] = {}

    async def open(self) -> None:
        """Connects and prepares. Raises FailedPrecondition (the cluster or its schema does not fit), Unavailable."""
        session = self._session = await self._open_session()
        tables = self._tables = Tables(session)
        heads = self._heads = Heads(tables, self._topic)
        attempts = self._attempts = Attempts(tables)
        buried: dict[TenantId, set[bytes]] = {}
        self._series = SeriesRows(tables, self._place_of, buried)
        self._writing = Writing(tables, heads, attempts, self._retention)
        self._recount = Recount(tables, heads, self._clock, self._verify_seconds)
        self._cuts = Cuts(tables, self._topic)
        self._upkeep = CassandraUpkeep(
            tables,
            heads,
            self._writing,
            attempts,
            self._series,
            self._place_of,
            buried,
            orphan_seconds=self._orphan_seconds,
        )
        await asyncio.gather(tables.open(), heads.open())

    async def close(self) -> None:
        """Ends the connections. Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await self._heads.close()
            await session.close()

    # BlockWriter

    async def progress(
        self, places: Collection[TopicPartitionKey]
    ) -> Mapping[TopicPartitionKey, StoredProgress]:
        """See BlockWriter. Completes a commit that was broken off."""

        async def load(place: TopicPartitionKey) -> StoredProgress:
            self._series.forget(place)
            head = await self._heads.head(place)
            progress, window = await reading.read_progress(self._tables, place, head)
            self._writing.window_loaded(place, window)
            return progress

        found = await gather_all(load(place) for place in places)
        return dict(zip(places, found, strict=True))

    async def commit(self, flush: Flush) -> None:
        """See BlockWriter. Partitions are committed side by side, series states after all of them."""
        blocks: dict[TopicPartitionKey, list[Block]] = {part.place: [] for part in flush.partitions}
        for block in flush.blocks:
            blocks[block.key.place].append(block)
        outcomes = await asyncio.gather(
            *(self._writing.flush(part, blocks[part.place]) for part in flush.partitions),
            return_exceptions=True,
        )
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        for failure in sorted(failures, key=lambda error: not isinstance(error, ProgressMoved)):
            raise failure
        await gather_all(
            self._series.write(place, offset, flush.series.get(place, ()))
            for place, offset in flush.series_offsets.items()
        )

    async def blocks_after(self, place: TopicPartitionKey, offset: int) -> list[StoredBlock]:
        """See BlockWriter."""
        return await reading.blocks_after(self._tables, place, offset)

    async def cut_requested(self) -> int:
        """See BlockWriter."""
        return await self._cuts.requested()

    async def note_cut(self, request: int, places: Mapping[TopicPartitionKey, bool]) -> None:
        """See BlockWriter."""
        await self._cuts.note(request, places)

    # Sealing

    async def unsealed(self, place: TopicPartitionKey) -> list[EpochCoverage]:
        """See Sealing."""
        await self._heads.head(place)
        begin = self._unsealed_from.get(place, 0)
        found = await reading.read_epochs(self._tables, place, begin, to_seal=True)
        if found:
            self._unsealed_from[place] = found[0].epoch
        return [epoch for epoch in found if epoch.complete]

    async def unmerged(self, place: TopicPartitionKey) -> list[SealedEpoch]:
        """See Sealing."""
        begin = self._unmerged_from.get(place, 0)
        found, self._unmerged_from[place] = await reading.read_unmerged(self._tables, place, begin)
        return found

    async def blocks_of_epoch(self, place: TopicPartitionKey, epoch: int) -> list[StoredBlock]:
        """See Sealing."""
        return await reading.blocks_of_epoch(self._tables, place, epoch)

    async def seal(self, seal: Seal) -> bool:
        """See Sealing."""
        return await self._writing.seal(seal)

    async def exchange(self, exchange: Exchange) -> bool:
        """See Sealing."""
        return await self._writing.exchange(exchange)

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
        return await reading.find_blocks(self._tables, tenant, place, start_us, end_us, after, limit, rollup)

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
        return await reading.look(self._tables, tenant, place, start_us, end_us, kinds, limit)

    async def read(self, blocks: Sequence[StoredBlock]) -> list[bytes | None]:
        """See BlockReader."""
        return await fetching.read_blocks(self._tables, self._attempts, blocks)

    async def read_ranges(self, asked: Sequence[RangesOf]) -> list[list[bytes] | None]:
        """See BlockReader."""
        return await fetching.read_ranges(self._tables, self._attempts, asked)

    async def seals(self, place: TopicPartitionKey) -> int:
        """See BlockReader."""
        return await reading.last_seal(self._tables, place)

    async def series(self, tenant: TenantId, device_uids: Sequence[bytes]) -> list[SeriesStates]:
        """See BlockReader."""
        return await self._series.read(tenant, device_uids)

    async def epochs(self, place: TopicPartitionKey) -> list[EpochCoverage]:
        """See BlockReader."""
        await self._heads.head(place)
        return await reading.read_epochs(self._tables, place)

    async def ledger(self, tenant: TenantId | None, start_us: int, end_us: int) -> LedgerAccount:
        """See BlockReader."""
        return await self._recount.account(tenant, start_us, end_us)

    async def difference(self) -> int:
        """See BlockReader."""
        return await self._recount.difference()

    async def usage(self, tenant: TenantId | None) -> list[TenantUsage]:
        """See BlockReader."""
        return await reading.read_usage(self._tables, await self._heads.places(), tenant)

    async def progress_offsets(self, incarnation: bytes) -> dict[int, int]:
        """See BlockReader."""
        places = [place for place in await self._heads.places() if place.incarnation == incarnation]
        heads = await gather_all(self._heads.head(place) for place in places)
        return {
            place.partition: head.next_offset
            for place, head in zip(places, heads, strict=True)
            if head.next_offset is not None
        }

    async def request_cut(self) -> int:
        """See BlockReader."""
        return await self._cuts.request()

    async def cuts_noted(self, request: int) -> dict[int, bool]:
        """See BlockReader."""
        return await self._cuts.noted(request)

    # Upkeep

    async def expire(self, tenant: TenantId, before_us: int, *, rollups: bool = False) -> int:
        """See Upkeep."""
        return await self._upkeep.expire(tenant, before_us, rollups=rollups)

    async def bury(self, tenants: Collection[TenantId], devices: Collection[tuple[TenantId, bytes]]) -> int:
        """See Upkeep."""
        return await self._upkeep.bury(tenants, devices)

    async def sweep(self) -> int:
        """See Upkeep."""
        return await self._upkeep.sweep()
