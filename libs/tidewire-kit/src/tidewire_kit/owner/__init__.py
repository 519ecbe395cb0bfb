"""The owner of partitions: what storage, alerting and routing share in reading the telemetry topic.

`PartitionOwner` runs the loop, `Processor` is what a service brings, `DedupWindow` makes retries count once, and the
ledger counts what became of every reading.
"""

from tidewire_kit.owner.dedup import ENTRY_BYTES, WINDOW_SECONDS, WINDOW_SEGMENTS, DedupWindow, SegmentHasher
from tidewire_kit.owner.ledger import (
    HOUR_US,
    UNKNOWN_TENANT,
    Ledger,
    LedgerCounts,
    LedgerKey,
    add_to,
    hour_of,
)
from tidewire_kit.owner.owner import OwnerSettings, OwnerStats, PartitionOwner
from tidewire_kit.owner.poison import PoisonGuard
from tidewire_kit.owner.port import NO_ENTRIES, AdmittedRecord, PieceOfTable, Processor, Progress

__all__ = [
    "ENTRY_BYTES",
    "HOUR_US",
    "NO_ENTRIES",
    "UNKNOWN_TENANT",
    "WINDOW_SECONDS",
    "WINDOW_SEGMENTS",
    "AdmittedRecord",
    "DedupWindow",
    "Ledger",
    "LedgerCounts",
    "LedgerKey",
    "OwnerSettings",
    "OwnerStats",
    "PartitionOwner",
    "PieceOfTable",
    "PoisonGuard",
    "Processor",
    "Progress",
    "SegmentHasher",
    "add_to",
    "hour_of",
]
