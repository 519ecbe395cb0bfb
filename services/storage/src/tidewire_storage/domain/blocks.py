"""Blocks and epochs: what storage writes, by which keys, and what is known of them without reading them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tidewire_kit.ids import TenantId
from tidewire_storage.domain.rows import ROW_BITS, SortedTable

FLUSHED_BLOCK, EPOCH_BLOCK, DAY_BLOCK = 0, 1, 2
"""Levels of blocks of readings: written by a flush; a sealed epoch, which takes the place of its flushed blocks; sealed
epochs of a day of log time, which take the places of theirs."""
ROLLUP_MINUTE, ROLLUP_HOUR, ROLLUP_DAY = 3, 4, 5
"""Levels of blocks of rollups (`rollups`): what they count is not in the ledger."""
COLD_BLOCK = 6
"""Level of blocks of readings whose rows lie in an object of the cold tier (`cold_format`)."""


def holds_rollups(level: int) -> bool:
    """Whether a block of this level holds rollups, and no readings."""
    return ROLLUP_MINUTE <= level <= ROLLUP_DAY


@dataclass(frozen=True, slots=True)
class TopicPartitionKey:
    """A partition of one incarnation of the telemetry topic; offsets compare only within it."""

    incarnation: bytes
    """16 bytes."""
    partition: int


@dataclass(frozen=True, slots=True)
class BlockKey:
    """Names a block: different contents never share a key, and a late owner's block has the key of the first."""

    tenant: TenantId
    place: TopicPartitionKey
    slice: int
    """Number of the block among those that one merge made for the tenant; 0 for flushed blocks and sealed epochs."""
    epoch: int
    first_offset: int
    end_offset: int
    """Offsets [first_offset, end_offset) of the partition are covered by this block, as far as the tenant goes."""
    level: int = FLUSHED_BLOCK
    """What kind of block it is, see above."""

    @property
    def arrival(self) -> int:
        """Arrival order of rows that have none of their own: after all before the block, before all that follow it.

        A sealed block comes after the flushed blocks of its epochs, for whoever sees both while it replaces them.
        """
        return (self.end_offset << ROW_BITS) - 1 if self.level else self.first_offset << ROW_BITS


@dataclass(frozen=True, slots=True)
class BlockFacts:
    """What the catalog says of a block's contents."""

    hour_us: int
    """Hour of log time, its account in the loss ledger. Epochs end with the hour, so a block has one."""
    rows: int
    readings: int
    min_time_us: int
    max_time_us: int
    """Event times of the first and the last row, both inclusive."""
    metric_sets: tuple[tuple[str, ...], ...]


def facts_of(hour_us: int, tables: Sequence[SortedTable]) -> BlockFacts:
    """The facts of a block with these tables, at least one row in all."""
    return BlockFacts(
        hour_us,
        sum(table.rows for table in tables),
        sum(table.readings() for table in tables),
        min(int(table.time_unix_us.min()) for table in tables),
        max(int(table.time_unix_us.max()) for table in tables),
        tuple(table.metrics for table in tables),
    )


def rollup_facts_of(hour_us: int, tables: Sequence[SortedTable]) -> BlockFacts:
    """The same of a block of rollups, which holds no readings of its own."""
    return replace(facts_of(hour_us, tables), readings=0)


@dataclass(frozen=True, slots=True)
class Block:
    """A block to be stored."""

    key: BlockKey
    facts: BlockFacts
    data: bytes
    head_bytes: int = 0
    """Of a sealed block: length of its header and directory, which say where what is. 0: it is read as a whole."""


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A block that is stored, as found by a query; `token` is the store's own way to its bytes."""

    key: BlockKey
    facts: BlockFacts
    token: object
    """Hashable; another one once the bytes have changed or moved. Blocks of other keys may have the same."""
    head_bytes: int = 0
    """As in Block."""

    @property
    def identity(self) -> object:
        """Hashable: this block with these bytes."""
        return self.key, self.token


@dataclass(frozen=True, slots=True)
class EpochSpan:
    """What a flush adds to an epoch."""

    epoch: int
    epoch_first_offset: int
    hour_us: int
    first_offset: int
    end_offset: int
    blocks: int
    readings: int
    gathered_bytes: int
    cut: bool
    """The epoch ends at `end_offset`, for good."""


@dataclass(frozen=True, slots=True)
class OpenEpoch:
    """The epoch that the next record of a partition belongs to, unless it has to be cut first."""

    epoch: int
    first_offset: int
    hour_us: int
    gathered_bytes: int


@dataclass(frozen=True, slots=True)
class EpochCoverage:
    """Whether an epoch is there in full, as sealing has to know."""

    epoch: int
    first_offset: int
    end_offset: int | None
    """None: not cut yet."""
    covered_offset: int
    """Everything before it, from `first_offset` on, was flushed without a gap."""
    blocks_written: int
    blocks_present: int
    sealed: bool = False
    """Its flushed blocks were replaced by sealed ones."""

    @property
    def complete(self) -> bool:
        """Cut, covered to the cut, and no block of it missing."""
        return self.covered_offset == self.end_offset and self.blocks_present == self.blocks_written


@dataclass(frozen=True, slots=True)
class SealedEpoch:
    """An epoch that is sealed and not merged with others of its day."""

    epoch: int
    hour_us: int
    """Log time in which it began."""
    readings: int
