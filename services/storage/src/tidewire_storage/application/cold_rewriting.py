"""What a rewriting of the cold tier works out: which devices at once, their rows, and what the ledger is told.

Used by `application.cold`; its heavier methods are called in threads.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.owner import Ledger, LedgerCounts
from tidewire_storage.application.sweep import MAX_US, MIN_US, Wanted
from tidewire_storage.domain.blocks import Block, BlockKey, StoredBlock
from tidewire_storage.domain.collapse import Collapsed, Part, collapse
from tidewire_storage.domain.rollups import DAY_US
from tidewire_storage.domain.rows import not_among, uid_list, unique_uids
from tidewire_storage.domain.sealed_format import Directory, SealedTable
from tidewire_storage.ports import RangesOf

SLICE_CELLS = 2_000_000
"""Cells of an object, and as many as are in memory at once, some four times over."""


@dataclass(slots=True)
class Rewriting:
    """What becomes of some blocks of a tenant."""

    key: BlockKey
    """Of the first new block."""
    sources: Sequence[StoredBlock]
    directories: Sequence[Directory]
    dropped: Collection[bytes]
    blocks: list[Block] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    object_bytes: int = 0
    before: int = 0
    """Readings of devices that stay, before they were collapsed."""

    @property
    def after(self) -> int:
        """Readings of the new blocks."""
        return sum(block.facts.readings for block in self.blocks)

    def slices(self) -> list[NDArray[np.uint8]]:
        """Devices (n, 16), their uids rising, slice by slice."""
        tables = [table for directory in self.directories for table in directory.tables]
        uids, number = unique_uids(np.concatenate([table.device_uids for table in tables]))
        cells = np.concatenate([table.row_counts * float(len(table.metrics)) for table in tables])
        of_device = np.bincount(number, cells, len(uids))
        words = np.ascontiguousarray(uids).view(">u8")
        order = np.lexsort((words[:, 1], words[:, 0]))
        order = order[not_among(uids[order], self.dropped)]
        slice_of = ((np.cumsum(of_device[order]) - 1) // SLICE_CELLS).astype(np.int64)
        return [uids[order[slice_of == number]] for number in np.unique(slice_of)]

    def asked(self, chosen: NDArray[np.uint8]) -> "list[Asked]":
        """Pages that hold rows of the chosen devices."""
        wanted = Wanted(uid_list(chosen))
        found = []
        for block, directory in zip(self.sources, self.directories, strict=True):
            pages = [
                (table, page)
                for table in directory.tables
                for page in table.wanted_pages(wanted.numbers(table.device_uids) >= 0, MIN_US, MAX_US)
            ]
            found.append((RangesOf(block, [table.span(page) for table, page in pages]), pages))
        return found

    def rows(
        self, chosen: NDArray[np.uint8], asked: "Sequence[Asked]", data: Sequence[list[bytes] | None]
    ) -> Collapsed:
        """The chosen devices' rows, each (device, time) once."""
        wanted = Wanted(uid_list(chosen))
        parts: list[Part] = []
        for (one, pages), raw in zip(asked, data, strict=True):
            assert raw is not None
            for (table, page), piece in zip(pages, raw, strict=True):
                whole = table.page(page, piece).table()
                device = np.repeat(wanted.numbers(whole.device_uids), whole.row_counts)
                columns = dict(zip(whole.metrics, whole.values, strict=True))
                arrival = np.full(whole.rows, one.block.key.arrival)
                part = Part(device, whole.time_unix_us, arrival, columns)
                part = part if (device >= 0).all() else part.where(device >= 0)
                self.before += sum(int((~np.isnan(column)).sum()) for column in part.columns.values())
                parts.append(part)
        return collapse(parts, tuple(sorted({name for part in parts for name in part.columns})))

    def next_key(self) -> BlockKey:
        """Key of the next block."""
        key = self.key
        return BlockKey(
            key.tenant,
            key.place,
            key.slice + len(self.blocks),
            key.epoch,
            key.first_offset,
            key.end_offset,
            key.level,
        )

    def add(self, block: Block, size: int) -> None:
        """A block whose object is there."""
        self.blocks.append(block)
        self.object_bytes += size

    def ledger(self) -> Ledger:
        """What changes: a later reading has taken others' place, deleted devices' are gone.

        All new blocks count for the first source's hour; readings of other days are accounted for there from now on.
        """
        tenant, hour_us = self.key.tenant, self.sources[0].facts.hour_us
        collapsed = self.before - self.after
        purged = sum(block.facts.readings for block in self.sources) - self.before
        counts = LedgerCounts(stored=-collapsed, duplicate=collapsed, purged=purged)
        ledger: Ledger = {(tenant, hour_us): counts}
        for block in self.sources:
            readings = block.facts.readings
            if block.facts.hour_us // DAY_US != hour_us // DAY_US:
                other = ledger.setdefault((tenant, block.facts.hour_us), LedgerCounts())
                other.add(LedgerCounts(accepted=-readings, stored=-readings))
                counts.add(LedgerCounts(accepted=readings, stored=readings))
        return ledger


Asked = tuple[RangesOf, list[tuple[SealedTable, int]]]
"""Ranges of a block, and the pages that lie there."""


def rows_of_day(rows: Collapsed, day: int) -> Collapsed:
    """The rows of one day, since 1970."""
    chosen = rows.time // DAY_US == day
    if chosen.all():
        return rows
    return Collapsed(
        rows.metrics, rows.device[chosen], rows.time[chosen], [column[chosen] for column in rows.values]
    )
