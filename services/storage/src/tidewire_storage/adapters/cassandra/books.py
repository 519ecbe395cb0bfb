"""The absolute counts of a place, as its next commit needs them: ledger, usage, epochs, and the days of its tenants.

Counts are stored absolute, so that a commit may be carried out twice. To add to them their present values have to be
known: they are read when they are not remembered, and what is remembered counts only for the version it belongs to.
"""

from collections.abc import Iterable
from typing import Any

from tidewire_kit.ids import TenantId
from tidewire_kit.owner import LedgerCounts
from tidewire_storage.adapters.cassandra.tables import COUNTS, PLACE, Mutation, Tables, gather_all, select
from tidewire_storage.domain.blocks import EpochSpan, TopicPartitionKey
from tidewire_storage.ports import Seal

type Key = tuple[Any, ...]
"""(kind, primary key ...); kinds are the names of the statements that write them."""

_MOST = 20_000
_EPOCH = (
    "first_offset",
    "covered_offset",
    "end_offset",
    "hour_us",
    "gathered_bytes",
    "blocks",
    "readings",
    "sealed",
    "merged",
)
_COVERED, _END, _GATHERED, _BLOCKS, _READINGS, _SEALED, _MERGED = 1, 2, 4, 5, 6, 7, 8
"""Places among _EPOCH."""
_DAY = ("min_time_us", "max_time_us", "expires_us", "blocks")
_NEVER = 1 << 62

_READ = {
    "ledger": select("storage_ledger", COUNTS, ("tenant", *PLACE, "hour_us")),
    "usage": select("storage_usage", COUNTS, (*PLACE, "tenant")),
    "epoch": select("storage_epochs", _EPOCH, (*PLACE, "epoch")),
    "day": select("storage_days", _DAY, ("tenant", *PLACE, "day", "level")),
}


class Books:
    """What is remembered of one place."""

    def __init__(self) -> None:
        self.version = -1
        self.rows: dict[Key, list[Any] | None] = {}

    def at(self, version: int) -> "Books":
        """Itself, emptied when the head has moved without us."""
        if version != self.version or len(self.rows) > _MOST:
            self.rows = {}
            self.version = version
        return self


class Draft:
    """The counts that a commit leaves behind."""

    def __init__(self, tables: Tables, books: Books, place: TopicPartitionKey) -> None:
        """`books` have to be at the head that the commit follows."""
        self._tables = tables
        self._books = books
        self._place = (place.incarnation, place.partition)
        self._rows: dict[Key, list[Any] | None] = {}

    def ledger_key(self, tenant: TenantId, hour_us: int) -> Key:
        """Key of a tenant's hour."""
        return ("ledger", tenant, *self._place, hour_us)

    def usage_key(self, tenant: TenantId) -> Key:
        """Key of a tenant."""
        return ("usage", *self._place, tenant)

    def epoch_key(self, epoch: int) -> Key:
        """Key of an epoch."""
        return ("epoch", *self._place, epoch)

    def day_key(self, tenant: TenantId, day: int, level: int) -> Key:
        """Key of a tenant's day."""
        return ("day", tenant, *self._place, day, level)

    async def load(self, keys: Iterable[Key]) -> None:
        """Has these at hand; nothing else may be changed."""
        wanted = dict.fromkeys(keys)
        missing = [key for key in wanted if key not in self._books.rows]
        rows = await gather_all(self._tables.row(_READ[key[0]], *key[1:]) for key in missing)
        for key, row in zip(missing, rows, strict=True):
            self._books.rows[key] = None if row is None else list(row)
        for key in wanted:
            held = self._books.rows[key]
            self._rows[key] = None if held is None else list(held)

    def count(self, tenant: TenantId, hour_us: int, counts: LedgerCounts, length: int = 0) -> None:
        """Adds readings, and bytes of blocks."""
        added = (
            counts.accepted,
            counts.stored,
            counts.duplicate,
            counts.dead_lettered,
            counts.purged,
            length,
        )
        for key in (self.ledger_key(tenant, hour_us), self.usage_key(tenant)):
            held = self._rows[key] or [0] * len(COUNTS)
            self._rows[key] = [a + b for a, b in zip(held, added, strict=True)]

    def extend_epoch(self, span: EpochSpan) -> None:
        """What a flush adds to an epoch."""
        key = self.epoch_key(span.epoch)
        held = self._rows[key]
        if held is None:
            held = [span.epoch_first_offset, 0, None, span.hour_us, 0, 0, 0, None, None]
        held[_COVERED] = span.end_offset
        held[_END] = span.end_offset if span.cut else None
        held[_GATHERED] += span.gathered_bytes
        held[_BLOCKS] += span.blocks
        held[_READINGS] += span.readings
        self._rows[key] = held

    def shrink_epoch(self, epoch: int, blocks: int, readings: int) -> None:
        """What a removal takes from one."""
        held = self._rows[self.epoch_key(epoch)]
        if held is not None:
            held[_BLOCKS] -= blocks
            held[_READINGS] -= readings

    def seal_epochs(self, seal: Seal, version: int) -> bool:
        """What a seal makes of them; `version` is that of the head before. False: one is not as it has to be."""
        for epoch in seal.epochs:
            held = self._rows[self.epoch_key(epoch)]
            if held is None or (held[_SEALED] is not None) != seal.merge or held[_MERGED] is not None:
                return False
            held[_BLOCKS], held[_READINGS] = seal.blocks_of(epoch), seal.readings_of(epoch)
            held[_MERGED if seal.merge else _SEALED] = version
        return True

    def block_on_day(self, key: Key, min_us: int, max_us: int, expires_us: int | None) -> None:
        """A block more on a tenant's day."""
        held = self._rows[key]
        if held is None:
            self._rows[key] = [min_us, max_us, expires_us, 1]
            return
        held[0], held[1] = min(held[0], min_us), max(held[1], max_us)
        if expires_us is not None:
            held[2] = min(held[2] or _NEVER, expires_us)
        held[3] += 1

    def block_off_day(self, key: Key) -> None:
        """A block less; the day goes with its last."""
        held = self._rows[key]
        if held is not None:
            held[3] -= 1
            if held[3] <= 0:
                self._rows[key] = None

    def mutations(self, version: int) -> list[Mutation]:
        """The rows that have changed. `version`, that of the head before, marks epochs as changed."""
        made: list[Mutation] = []
        for key, row in self._rows.items():
            if row == self._books.rows[key]:
                continue
            kind, *primary = key
            if row is None:
                made.append((f"drop_{kind}", tuple(primary)))
            elif kind == "epoch":
                made.append((kind, (*primary, *row, version)))
            else:
                made.append((kind, (*primary, *row)))
        return made

    def committed(self, version: int) -> None:
        """The commit went through, and this is the head's version now."""
        self._books.rows.update(self._rows)
        self._books.version = version
