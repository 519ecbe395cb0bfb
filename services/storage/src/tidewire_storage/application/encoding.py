"""From gathered rows to a flush: sorting, dropping what was deleted, compressing.

Runs on a thread beside the loop and touches nothing shared; NumPy and pcodec let go of the interpreter meanwhile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.ids import TenantId
from tidewire_kit.owner import Ledger, LedgerCounts, add_to, hour_of
from tidewire_storage.application.gather import Run, SealedPartition
from tidewire_storage.domain.block_format import encode_block
from tidewire_storage.domain.blocks import Block, BlockKey, EpochSpan, TopicPartitionKey
from tidewire_storage.domain.rows import Piece, SortedTable, not_among, sort_pieces
from tidewire_storage.domain.series import SeriesStates, states_of
from tidewire_storage.ports import PartitionFlush


@dataclass(frozen=True, slots=True)
class Buried:
    """What was deleted and is not to be stored any more."""

    tenants: frozenset[TenantId] = frozenset()
    devices: Mapping[TenantId, frozenset[bytes]] = field(default_factory=dict)


@dataclass(slots=True)
class Encoded:
    """What a flush will store, and what metrics want to know of it."""

    blocks: list[Block] = field(default_factory=list)
    partitions: list[PartitionFlush] = field(default_factory=list)
    ledger: Ledger = field(default_factory=dict)
    """The sum over the partitions."""
    states: list[tuple[TopicPartitionKey, SeriesStates]] = field(default_factory=list)
    received_us: list[NDArray[np.int64]] = field(default_factory=list)
    """Per table: when its segments were received."""
    received_readings: list[NDArray[np.uint32]] = field(default_factory=list)


def encode_flush(sealed: Sequence[SealedPartition], buried: Buried) -> Encoded:
    """Turns gathered rows into blocks, one per tenant and run."""
    out = Encoded()
    for partition in sealed:
        spans = []
        ledger: Ledger = {}
        for run in partition.runs:
            before = len(out.blocks)
            _encode_run(partition.place, run, buried, ledger, out)
            written = out.blocks[before:]
            spans.append(
                EpochSpan(
                    run.epoch,
                    run.epoch_first_offset,
                    run.slot_us,
                    run.first_offset,
                    run.end_offset,
                    len(written),
                    sum(block.facts.readings for block in written),
                    run.gathered_bytes,
                    run.cut,
                )
            )
        add_to(out.ledger, ledger.items())
        out.partitions.append(
            PartitionFlush(
                partition.place,
                partition.expected_offset,
                partition.next_offset,
                tuple(spans),
                partition.entries,
                partition.log_time_us,
                ledger,
            )
        )
    return out


def _encode_run(place: TopicPartitionKey, run: Run, buried: Buried, ledger: Ledger, out: Encoded) -> None:
    add_to(ledger, run.ledger.items())
    by_tenant: dict[TenantId, list[tuple[tuple[str, ...], list[Piece]]]] = {}
    for (tenant, metrics), pieces in run.tables.items():
        by_tenant.setdefault(tenant, []).append((metrics, pieces))
        for item in pieces:
            out.received_us.append(item.piece.table.segment_received_us)
            out.received_readings.append(item.piece.table.segment_readings)
    hour_us = hour_of(run.slot_us)
    for tenant, groups in by_tenant.items():
        counts = LedgerCounts()
        tables = _sorted_tables(tenant, groups, buried, counts)
        add_to(ledger, [((tenant, hour_us), counts)])
        if tables:
            key = BlockKey(tenant, place, 0, run.epoch, run.first_offset, run.end_offset)
            out.blocks.append(encode_block(key, hour_us, tables))
            out.states += [(place, states_of(tenant, table, key.arrival)) for table in tables]


def _sorted_tables(
    tenant: TenantId,
    groups: Sequence[tuple[tuple[str, ...], list[Piece]]],
    buried: Buried,
    counts: LedgerCounts,
) -> list[SortedTable]:
    names = [name for metrics, _ in groups for name in metrics]
    shared = len(set(names)) < len(names)
    dropped = buried.devices.get(tenant)
    tables = []
    for metrics, pieces in groups:
        table = sort_pieces(metrics, pieces, with_arrival=shared)
        readings = table.readings()
        counts.stored += readings
        if tenant in buried.tenants:
            counts.purged += readings
            continue
        if dropped:
            keep = not_among(table.device_uids, dropped)
            if not keep.all():
                table = table.keep_devices(keep)
                counts.purged += readings - table.readings()
        if table.rows:
            tables.append(table)
    return tables
