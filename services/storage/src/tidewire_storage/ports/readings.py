"""What storage needs from the world: a place for blocks and for what is known of them.

Four roles of one store, because their callers differ: the ingest path writes, queries read, sealing replaces, upkeep
removes. The tenant is the first argument of whatever concerns one tenant. Methods are called on the process's loop and
do not block it. `tests/contract` says in tests what this module says in words; the embedded and the Cassandra adapter
pass it.

Guarantees
- A `commit` has, for each partition of the log, all of its effect or none, also when the process is killed at any
  moment of it. What belongs to one partition (blocks, progress, epochs, window entries, ledger counts) comes together;
  of several partitions some may have been stored and others not (docs/adr/0011-a-flush-is-atomic-per-partition.md).
- What a `commit` that returned has written is seen by every `find`, `series` and `ledger` that begins later, in any
  process of the platform.
- Blocks do not change; upkeep may replace one by a smaller one of the same key (deleted devices), sealing those of an
  epoch by others. Either happens at once for every `find`; bytes of what was replaced may be gone a moment later.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tidewire_kit.errors import FailedPrecondition, Unavailable
from tidewire_kit.ids import TenantId
from tidewire_kit.owner import Ledger, LedgerKey
from tidewire_kit.owner.dedup import Entries
from tidewire_storage.domain.blocks import (
    Block,
    BlockFacts,
    BlockKey,
    EpochCoverage,
    EpochSpan,
    OpenEpoch,
    SealedEpoch,
    StoredBlock,
    TopicPartitionKey,
)
from tidewire_storage.domain.series import SeriesStates


class StoreFull(Unavailable):
    """There is no room. Nothing was written; the same flush may be tried again."""

    def __init__(self, why: str) -> None:
        super().__init__("storage", why, reason="STORAGE_FULL", retry_delay_seconds=5.0)


class SweepPutOff(FailedPrecondition):
    """A backup reads the files; the sweep comes after it."""

    def __init__(self) -> None:
        super().__init__("a backup copies the block files; sweep when it has ended", reason="BACKUP_RUNNING")


class ProgressMoved(FailedPrecondition):
    """Another owner has committed to a partition since `progress` was asked. Nothing was written; begin from there."""

    def __init__(self, place: TopicPartitionKey, expected: int | None, found: int | None) -> None:
        super().__init__(
            f"partition {place.partition} stands at {found}, not {expected}: it has another owner",
            reason="PROGRESS_MOVED",
        )


@dataclass(frozen=True, slots=True)
class StoredProgress:
    """How far a partition is stored."""

    next_offset: int | None
    """None: nothing of it is."""
    series_offset: int
    """Series states cover everything before it; blocks from it on have to be folded in again."""
    epoch: OpenEpoch | None
    entries: Entries
    """The stored deduplication window, oldest first."""


@dataclass(frozen=True, slots=True)
class PartitionFlush:
    """What a flush does to one partition."""

    place: TopicPartitionKey
    expected_offset: int | None
    """Progress that must be stored now (None: none), else ProgressMoved."""
    next_offset: int
    spans: tuple[EpochSpan, ...]
    """By epoch, rising; together they cover [expected_offset, next_offset)."""
    entries: Entries
    log_time_us: int
    """Log time of its last record; entries older than the deduplication window before it may go."""
    ledger: Ledger = field(default_factory=dict)
    """What became of the partition's readings; added to what is counted already."""


@dataclass(frozen=True, slots=True)
class Flush:
    """What becomes durable, partition by partition."""

    blocks: Sequence[Block] = ()
    """Each belongs to the flush of its partition, which must be among `partitions`."""
    partitions: Sequence[PartitionFlush] = ()
    """Each partition at most once."""
    series: Mapping[TopicPartitionKey, Sequence[SeriesStates]] = field(default_factory=dict)
    """Merged with what is stored, after the partitions are; those of partitions without a series offset may be left."""
    series_offsets: Mapping[TopicPartitionKey, int] = field(default_factory=dict)
    """Where the series states now stand; empty when `series` are left for a later flush."""


class BlockWriter(Protocol):
    """The store as the ingest path sees it."""

    async def progress(
        self, places: Collection[TopicPartitionKey]
    ) -> Mapping[TopicPartitionKey, StoredProgress]:
        """How far each place is stored; every place is in the answer. Raises Unavailable."""

    async def commit(self, flush: Flush) -> None:
        """Makes a flush durable: of each partition the whole or nothing.

        Raises StoreFull (nothing was written; the same flush may be tried again); ProgressMoved (a partition had
        another owner, and nothing of it was written; the others may be stored); Unavailable (unknown). After the latter
        two ask `progress`.
        """

    async def blocks_after(self, place: TopicPartitionKey, offset: int) -> list[StoredBlock]:
        """Blocks of all tenants in a partition that end after `offset`, for rebuilding series states."""

    async def read(self, blocks: Sequence[StoredBlock]) -> list[bytes | None]:
        """The bytes of blocks, in order; None: expired, purged or replaced since found.

        Raises BlockDamaged, Unavailable.
        """

    async def cut_requested(self) -> int:
        """Number of the last request to cut all epochs; 0: there was none."""

    async def cuts_noted(self, request: int) -> dict[int, bool]:
        """Partition → whether it got a cut, of the partitions that have followed this request or a later one."""

    async def note_cut(self, request: int, places: Mapping[TopicPartitionKey, bool]) -> None:
        """Says that a request was followed in these places; the value says whether there was anything to cut."""


@dataclass(frozen=True, slots=True)
class RangesOf:
    """Parts of a block that are wanted."""

    block: StoredBlock
    ranges: Sequence[tuple[int, int]]
    """(position in the block, bytes)."""


class BlockReader(Protocol):
    """The store as queries see it."""

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
        """Blocks of a tenant with event times in [start_us, end_us), by `min_time_us`. No place: everywhere.

        Blocks of readings, or with `rollup` blocks of rollups of this level. At most `limit`; `after` is the last block
        of the answer before, to go on from.
        """

    async def look(
        self,
        tenant: TenantId,
        place: TopicPartitionKey,
        start_us: int,
        end_us: int,
        kinds: Sequence[int | None],
        limit: int | None = None,
    ) -> "Look":
        """What `find` gives for each of `kinds` (values of its `rollup`), between the same two seals."""

    async def read(self, blocks: Sequence[StoredBlock]) -> list[bytes | None]:
        """As in BlockWriter."""

    async def read_ranges(self, asked: Sequence["RangesOf"]) -> list[list[bytes] | None]:
        """Parts of blocks, in order; None: as in `read`. Raises BlockDamaged, Unavailable."""

    async def seals(self, place: TopicPartitionKey) -> int:
        """Another number after every seal and merge of the partition: pages of one `find` belong together if it is the
        same."""

    async def series(self, tenant: TenantId, device_uids: Sequence[bytes]) -> list[SeriesStates]:
        """States of these devices (those that have any), one item per metric set."""

    async def unsealed(self, place: TopicPartitionKey) -> list[EpochCoverage]:
        """As in Sealing."""

    async def epochs(self, place: TopicPartitionKey) -> list[EpochCoverage]:
        """All epochs of a partition, rising."""

    async def ledger(self, tenant: TenantId | None, start_us: int, end_us: int) -> "LedgerAccount":
        """The ledger of a tenant (None: all) for hours in [start_us, end_us), its blocks counted again."""

    async def difference(self) -> int:
        """The difference of the whole ledger, counted as in `ledger`, without making its lines."""

    async def usage(self, tenant: TenantId | None) -> list["TenantUsage"]:
        """What a tenant (None: each) keeps."""

    async def progress_offsets(self, incarnation: bytes) -> dict[int, int]:
        """Partition → stored offset, of one incarnation of the topic."""

    async def request_cut(self) -> int:
        """Asks every owner to cut its epochs; returns the number of the request."""

    async def cuts_noted(self, request: int) -> dict[int, bool]:
        """As in BlockWriter."""


@dataclass(frozen=True, slots=True)
class Look:
    """Blocks of a partition that belong together."""

    seals: int
    """As `BlockReader.seals` said when they were found."""
    found: tuple[list[StoredBlock], ...]
    """Per kind asked for."""


@dataclass(frozen=True, slots=True)
class Seal:
    """What sealing does to an epoch that was flushed, or merging to epochs that were sealed."""

    place: TopicPartitionKey
    epochs: tuple[int, ...]
    """Rising. Of a seal: one. What takes the blocks' place belongs to the first, and the others are empty then."""
    replaced: tuple[StoredBlock, ...]
    """All blocks of the epochs, as they were found, but those that stay."""
    blocks: tuple[Block, ...]
    """What takes their place. Of a seal: at most one a tenant."""
    ledger: Ledger
    """Changes of what is counted: collapsed readings are duplicates instead of stored, dropped ones are purged."""
    kept: tuple[StoredBlock, ...] = ()
    """The blocks of the epochs that stay as they are."""
    merge: bool = False
    """Whether it merges."""

    def readings_of(self, epoch: int) -> int:
        """The readings that the epoch holds afterwards."""
        return sum(facts.readings for key, facts in self._there() if key.epoch == epoch)

    def blocks_of(self, epoch: int) -> int:
        """The number of blocks that the epoch has afterwards."""
        return sum(key.epoch == epoch for key, _ in self._there())

    def _there(self) -> list[tuple[BlockKey, BlockFacts]]:
        made = [(block.key, block.facts) for block in self.blocks]
        return [*((block.key, block.facts) for block in self.kept), *made]


@dataclass(frozen=True, slots=True)
class Exchange:
    """Blocks of one tenant's readings that others take the place of: moved to another tier, folded, or made smaller."""

    place: TopicPartitionKey
    replaced: tuple[StoredBlock, ...]
    """As they were found, at least one; of epochs that are merged."""
    blocks: tuple[Block, ...]
    """Of keys that no block has; of epochs of the replaced ones."""
    ledger: Ledger
    """Changes of what is counted."""


class Sealing(Protocol):
    """The store as sealing sees it."""

    async def unsealed(self, place: TopicPartitionKey) -> list[EpochCoverage]:
        """Epochs of a partition that are complete and not sealed, rising; perhaps not all of them at once."""

    async def unmerged(self, place: TopicPartitionKey) -> list[SealedEpoch]:
        """Epochs of a partition that are sealed and not merged, rising."""

    async def blocks_of_epoch(self, place: TopicPartitionKey, epoch: int) -> list[StoredBlock]:
        """Blocks of all tenants in an epoch."""

    async def read(self, blocks: Sequence[StoredBlock]) -> list[bytes | None]:
        """As in BlockWriter."""

    async def read_ranges(self, asked: Sequence["RangesOf"]) -> list[list[bytes] | None]:
        """As in BlockReader."""

    async def seal(self, seal: Seal) -> bool:
        """Replaces the epochs' blocks at once, and marks them sealed or merged; what was replaced is found no more.

        False, and nothing has changed, when the epochs' blocks are not (any more) those of the seal, or one of them is
        not in the state before. Raises StoreFull (nothing was written), Unavailable (unknown; ask `unsealed`,
        `unmerged`).
        """

    async def exchange(self, exchange: Exchange) -> bool:
        """Replaces blocks at once; what was replaced is found no more, and `seals` gives another number.

        False, and nothing has changed, when one of them is not there any more as it was found. Raises StoreFull
        (nothing was written), Unavailable (unknown; ask `find`).
        """


class Upkeep(Protocol):
    """The store as retention and deletion see it. All idempotent."""

    async def expire(self, tenant: TenantId, before_us: int, *, rollups: bool = False) -> int:
        """Removes a tenant's blocks whose last event time is before `before_us`: those of readings, or of rollups.

        Returns the readings removed.
        """

    async def bury(self, tenants: Collection[TenantId], devices: Collection[tuple[TenantId, bytes]]) -> int:
        """Notes deleted tenants and (tenant, device uid)s, and removes their series states and whole blocks at once.

        Returns how many were new. Bytes go with the next `sweep`. The caller stores nothing of these any more, nor of
        those it named before.
        """

    async def sweep(self) -> int:
        """Rewrites or removes files until none that this process may touch holds anything buried so far.

        Returns the readings removed. Call it again later: files that another process writes are left to it.
        SweepPutOff: nothing was done, because a backup is copying files.
        """


class Store(BlockWriter, BlockReader, Sealing, Upkeep, Protocol):
    """All four roles, as `main` gives them out."""

    async def open(self) -> None:
        """Before anything else. Raises FailedPrecondition, saying what to do, and Unavailable."""

    async def close(self) -> None:
        """Lets go of everything. Idempotent."""


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One tenant and hour."""

    key: LedgerKey
    accepted: int
    stored: int
    duplicate: int
    dead_lettered: int
    purged: int
    present: int
    """Readings of the blocks that are there now, by catalog and by file."""

    @property
    def difference(self) -> int:
        """Readings lost (positive) or there twice (negative)."""
        return (self.accepted - self.duplicate - self.dead_lettered - self.stored) + (
            self.stored - self.purged - self.present
        )


@dataclass(frozen=True, slots=True)
class LedgerAccount:
    """Lines by hour and tenant."""

    lines: list[LedgerLine]

    @property
    def difference(self) -> int:
        """Sum of the lines' magnitudes of difference with their sign; 0 at rest."""
        return sum(line.difference for line in self.lines)


@dataclass(frozen=True, slots=True)
class TenantUsage:
    """What a tenant keeps."""

    tenant: TenantId
    accepted_readings: int
    stored_readings: int
    stored_bytes: int
