"""What the owner of a partition needs from the service that works on the records: a `Processor`.

`PartitionOwner` reads, decodes, drops duplicates and counts; the processor makes the effect durable and says up to
which offset it is. Storage has one; alerting and routing will.

Order of the calls, all on the process's loop:

    load(partitions) → take(record)* → settle() → take(record)* → settle() … → flush(partitions) → forget(partitions)

A processor keeps offset, effect, ledger counts and window entries of a record together: all durable, or none. After
`load` the owner starts at the offset that it returned, so that each record has its effect once, even when the process
was killed in between.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.log.port import TopicPartition
from tidewire_kit.owner.dedup import Entries
from tidewire_kit.owner.ledger import LedgerCounts, LedgerKey
from tidewire_kit.telemetry.record import Table

NO_ENTRIES: Entries = np.empty((0, 4), np.uint64)


@dataclass(frozen=True, slots=True)
class PieceOfTable:
    """A table of a record without the rows of duplicate segments."""

    table: Table
    first_row: int
    """Number of rows of the record before this table, duplicates included: with the offset, the arrival order."""
    rows: NDArray[np.intp] | None = None
    """Rows of `table` that count, ascending; None: all."""


@dataclass(frozen=True, slots=True)
class AdmittedRecord:
    """What is left of a record without the segments seen before; no pieces when nothing is."""

    partition: TopicPartition
    offset: int
    appended_at_us: int
    """Log time, unix µs."""
    pieces: list[PieceOfTable]
    ledger: list[tuple[LedgerKey, LedgerCounts]]
    """What the owner knows of its readings (accepted, duplicate, dead-lettered); `stored` is for the processor."""
    entries: Entries
    """What it added to the deduplication window, to be given back by `load`."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where an owner continues."""

    next_offset: int | None
    """None: where the group's committed offset says."""
    entries: Entries
    """The stored part of the deduplication window, oldest first."""


class Processor(Protocol):
    """Turns records into durable effects."""

    async def load(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Progress]:
        """Begins to own partitions: forgets what is not durable, and returns what is."""

    def take(self, record: AdmittedRecord) -> None:
        """Takes a record, whole or not at all. An exception means that this record cannot be processed: it is tried
        three times and then dead-lettered. Must not block; what may fail for other reasons belongs into `settle`."""

    async def settle(self) -> Mapping[TopicPartition, int]:
        """Called after the records of each poll, and at least every quarter of a second.

        Begins or ends flushes as they fall due, waits while there is too much in memory, and returns the offsets up to
        which effects have become durable since the last call. An exception is not the records' fault: the owner starts
        again from `load`, later.
        """

    async def flush(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Makes everything taken of these partitions durable and returns their offsets."""

    async def forget(self, partitions: Collection[TopicPartition]) -> None:
        """Stops owning partitions; what is not durable is dropped (another owner reads it again). Never raises."""

    def obstacle(self) -> str | None:
        """Why nothing can be taken now (a full disk), for the health check; None: all is well. The owner then stops
        reading, keeps calling `settle`, and goes on when this is None again."""
