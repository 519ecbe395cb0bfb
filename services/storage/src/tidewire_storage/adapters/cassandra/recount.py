"""The loss ledger's other half: counting what is really there, by the tables that queries use.

A block is present when storage_epoch_blocks and storage_catalog name it alike and all chunks of its bytes are in
storage_blocks. The bytes themselves Cassandra verifies by checksums of its own when it reads them. `account` looks at
every block it is asked about. `difference`, which every process runs twice a minute, looks at blocks that are new to
it, and takes what it has looked at, or has not come to yet, to be there; of these it looks at some in each round.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tidewire_kit.clock import Clock
from tidewire_kit.ids import TenantId
from tidewire_kit.owner import LedgerKey, hour_of
from tidewire_storage.adapters.cassandra import reading, rows
from tidewire_storage.adapters.cassandra.heads import Heads
from tidewire_storage.adapters.cassandra.tables import (
    BYTES_KEY,
    CATALOG_KEY,
    COUNTS,
    PLACE,
    Tables,
    gather_all,
    select,
)
from tidewire_storage.domain.blocks import StoredBlock, TopicPartitionKey
from tidewire_storage.ports import LedgerAccount, LedgerLine

VERIFY_SECONDS = 3600.0
_ROUND_BLOCKS = 5_000
"""Most blocks looked at in one place and round of `difference`."""
_SNAPSHOTS = 6
_SNAPSHOT_SECONDS = 0.1
_AT_ONCE = 64

_CHUNKS = select("storage_blocks", ("chunk",), BYTES_KEY)
_CATALOGUED = select("storage_catalog", ("attempt",), CATALOG_KEY)
_EPOCHS = select("storage_epochs", ("epoch", "end_offset", "hour_us", "readings", "changed"), PLACE)
_EPOCHS_FROM = select(
    "storage_epochs", ("epoch", "end_offset", "hour_us", "readings", "changed"), PLACE, "AND epoch >= ?"
)
_LEDGER = select(
    "storage_ledger", ("hour_us", *COUNTS), ("tenant", *PLACE), "AND hour_us >= ? AND hour_us < ?"
)

type _Present = Counter[tuple[bytes, int]]
"""(tenant, hour) → readings."""


@dataclass(slots=True)
class _Epoch:
    """What is known of an epoch."""

    readings: int
    """As it was counted when it was written."""
    changed: int
    """Version of the commit that did it last."""
    lost: int = 0
    looked_at: float | None = None
    """None: not yet, at what it is now."""
    there: set[tuple[int, bytes, int, bytes]] = field(default_factory=set)
    """Of the newest epoch: (first offset, tenant, slice, attempt) of blocks found there."""


@dataclass(slots=True)
class _Place:
    """What is known of a place."""

    version: int = -1
    purged: int = -1
    seal: int = -1
    difference: int = 0
    epochs: dict[int, _Epoch] = field(default_factory=dict)


class Recount:
    """Keeps what it found. One per process; on one loop."""

    def __init__(self, tables: Tables, heads: Heads, clock: Clock, verify_seconds: float) -> None:
        """What was looked at `verify_seconds` ago is looked at again."""
        self._tables = tables
        self._heads = heads
        self._clock = clock
        self._verify_seconds = verify_seconds
        self._places: dict[TopicPartitionKey, _Place] = {}

    async def difference(self) -> int:
        """What the whole ledger counts less what is there."""
        found = 0
        for place in await self._heads.places():
            found += await self._difference(place)
        return found

    async def account(self, tenant: TenantId | None, start_us: int, end_us: int) -> LedgerAccount:
        """The ledger for hours in [start_us, end_us), and what is present of them."""
        totals: dict[tuple[bytes, int], list[int]] = {}
        present: _Present = Counter()
        for place in await self._heads.places():
            counts, there = await self._snapshot(place, tenant, start_us, end_us)
            for key, values in counts.items():
                held = totals.setdefault(key, [0] * len(COUNTS))
                totals[key] = [a + b for a, b in zip(held, values, strict=True)]
            present.update(there)
        for key in present:  # blocks that nobody has accounted for
            totals.setdefault(key, [0] * len(COUNTS))
        lines = [
            _line((TenantId(owner), hour), counts, present.get((owner, hour), 0))
            for (owner, hour), counts in totals.items()
        ]
        return LedgerAccount(sorted(lines, key=lambda line: (line.key[1], line.key[0])))

    async def _snapshot(
        self, place: TopicPartitionKey, tenant: TenantId | None, start_us: int, end_us: int
    ) -> tuple[dict[tuple[bytes, int], list[int]], _Present]:
        """Counts and blocks of one place at one version of its head, if it stands still for long enough."""
        number = 0
        while True:
            version = (await self._heads.head(place)).version
            counts = await self._counts(place, tenant, start_us, end_us)
            present = await self._present(place, tenant, start_us, end_us)
            number += 1
            if (await self._heads.head(place)).version == version or number == _SNAPSHOTS:
                return counts, present
            await asyncio.sleep(_SNAPSHOT_SECONDS * number)

    async def _counts(
        self, place: TopicPartitionKey, tenant: TenantId | None, start_us: int, end_us: int
    ) -> dict[tuple[bytes, int], list[int]]:
        key = (place.incarnation, place.partition)
        owners = [row.tenant for row in await reading.usage_of(self._tables, place, tenant)]
        found = await gather_all(
            self._tables.rows(_LEDGER, owner, *key, start_us, end_us) for owner in owners
        )
        return {
            (owner, row.hour_us): list(row[1:])
            for owner, some in zip(owners, found, strict=True)
            for row in some
        }

    async def _present(
        self, place: TopicPartitionKey, tenant: TenantId | None, start_us: int, end_us: int
    ) -> _Present:
        present: _Present = Counter()
        for epoch in await self._tables.rows(_EPOCHS, place.incarnation, place.partition):
            if not start_us <= hour_of(epoch.hour_us) < end_us:
                continue
            blocks = [
                block
                for block in await reading.blocks_of_epoch(self._tables, place, epoch.epoch)
                if tenant in (None, block.key.tenant)
            ]
            for block, there in zip(blocks, await self._are_there(blocks), strict=True):
                if there:
                    present[block.key.tenant, block.facts.hour_us] += block.facts.readings
        return present

    # The whole, and often

    async def _difference(self, place: TopicPartitionKey) -> int:
        known = self._places.setdefault(place, _Place())
        for number in range(_SNAPSHOTS):
            version = (await self._heads.head(place)).version
            counts = await reading.usage_of(self._tables, place, None)
            expected = sum(r.accepted - r.duplicate - r.dead_lettered - r.purged for r in counts)
            await self._look(place, known, version, sum(row.purged for row in counts))
            present = sum(epoch.readings - epoch.lost for epoch in known.epochs.values())
            if (await self._heads.head(place)).version == version:
                known.difference = expected - present
                break
            await asyncio.sleep(_SNAPSHOT_SECONDS * number)
        return known.difference  # of a place that never stands still, what it was last time

    async def _look(self, place: TopicPartitionKey, known: _Place, version: int, purged: int) -> None:
        key = (place.incarnation, place.partition)
        if version != known.version:
            seal = await reading.last_seal(self._tables, place)
            if (purged, seal) != (known.purged, known.seal) or not known.epochs:  # any may have changed
                found = await self._tables.rows(_EPOCHS, *key)
                kept = {row.epoch for row in found}
                known.epochs = {number: epoch for number, epoch in known.epochs.items() if number in kept}
            else:
                found = await self._tables.rows(_EPOCHS_FROM, *key, max(known.epochs))
            for row in found:
                self._note(known, row)
            known.version, known.purged, known.seal = version, purged, seal
        left = _ROUND_BLOCKS
        now = self._clock.monotonic()
        newest = max(known.epochs, default=-1)
        for number in sorted(known.epochs, key=lambda n: (known.epochs[n].looked_at or -1.0, -n)):
            epoch = known.epochs[number]
            due = epoch.looked_at is None or now >= epoch.looked_at + self._verify_seconds
            if left <= 0 or not due:
                break
            left -= await self._look_at(place, number, epoch, newest=number == newest)
            epoch.looked_at = now

    @staticmethod
    def _note(known: _Place, row: Any) -> None:
        epoch = known.epochs.get(row.epoch)
        if epoch is None:
            known.epochs[row.epoch] = _Epoch(row.readings, row.changed)
        elif epoch.changed != row.changed:
            epoch.readings, epoch.changed, epoch.looked_at = row.readings, row.changed, None

    async def _look_at(self, place: TopicPartitionKey, number: int, epoch: _Epoch, *, newest: bool) -> int:
        """Counts an epoch's blocks. Returns how many were looked for."""
        blocks = await reading.blocks_of_epoch(self._tables, place, number)
        if epoch.looked_at is not None or not newest:
            epoch.there = set()
        unseen = [block for block in blocks if _identity(block) not in epoch.there]
        present = sum(block.facts.readings for block in blocks)
        for block, there in zip(unseen, await self._are_there(unseen), strict=True):
            if not there:
                present -= block.facts.readings
            elif newest and self._verify_seconds:
                epoch.there.add(_identity(block))
        epoch.lost = epoch.readings - present
        return len(unseen)

    async def _are_there(self, blocks: Sequence[StoredBlock]) -> list[bool]:
        found: list[bool] = []
        for first in range(0, len(blocks), _AT_ONCE):
            found += await gather_all(self._is_there(block) for block in blocks[first : first + _AT_ONCE])
        return found

    async def _is_there(self, block: StoredBlock) -> bool:
        token = rows.token_of(block)
        chunks, catalogued = await asyncio.gather(
            self._tables.rows(_CHUNKS, *rows.bytes_key(block.key, token.attempt)),
            self._tables.row(_CATALOGUED, *rows.catalog_key(block)),
        )
        return len(chunks) == token.chunks and catalogued is not None and catalogued.attempt == token.attempt


def _identity(block: StoredBlock) -> tuple[int, bytes, int, bytes]:
    return block.key.first_offset, block.key.tenant, block.key.slice, rows.token_of(block).attempt


def _line(key: LedgerKey, counts: Sequence[int], present: int) -> LedgerLine:
    accepted, stored, duplicate, dead_lettered, purged, _ = counts
    return LedgerLine(key, accepted, stored, duplicate, dead_lettered, purged, present)
