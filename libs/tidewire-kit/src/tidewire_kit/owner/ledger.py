"""The loss ledger's unit of account: readings per (tenant, hour of log time), counted by the owner of a partition.

What an owner read (`accepted`) must be found again as stored, duplicate, dead-lettered or purged. Deltas travel with
the effect of their records, and are committed with it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tidewire_kit.ids import TenantId

HOUR_US = 3_600_000_000

UNKNOWN_TENANT = TenantId(bytes(16))
"""Account of dead letters, whose tenant cannot be read."""

LedgerKey = tuple[TenantId, int]
"""(tenant, start of the hour of log time in unix µs)."""


def hour_of(log_time_us: int) -> int:
    """Start of the hour that holds a log time, unix µs."""
    return log_time_us - log_time_us % HOUR_US


@dataclass(slots=True)
class LedgerCounts:
    """Readings, by what became of them. `accepted` is what the record said; the others add up to it."""

    accepted: int = 0
    stored: int = 0
    duplicate: int = 0
    dead_lettered: int = 0
    purged: int = 0
    """Removed by retention or deletion; they count as stored too."""

    def add(self, other: "LedgerCounts") -> None:
        """Adds another's counts to this one."""
        self.accepted += other.accepted
        self.stored += other.stored
        self.duplicate += other.duplicate
        self.dead_lettered += other.dead_lettered
        self.purged += other.purged


Ledger = dict[LedgerKey, LedgerCounts]


def add_to(ledger: Ledger, entries: Iterable[tuple[LedgerKey, LedgerCounts]]) -> None:
    """Adds entries to a ledger."""
    for key, counts in entries:
        held = ledger.get(key)
        if held is None:
            held = ledger[key] = LedgerCounts()
        held.add(counts)
