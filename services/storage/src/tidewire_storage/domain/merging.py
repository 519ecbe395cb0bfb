"""Merging the tables of several blocks into those of a sealed block.

Used by sealing and by merging. The result has each (device, metric, time) once: of several readings the latest arrival
has won, as it would have in every query.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewire_storage.domain.collapse import Part, collapse, last_of_group
from tidewire_storage.domain.rows import ROW_BITS, SortedTable, not_among, order_of, uid_list, unique_uids


@dataclass(frozen=True, slots=True)
class Merged:
    """What the blocks of one tenant and epoch come to."""

    tables: list[SortedTable]
    """Without arrival; each (device, metric, time) once. None are empty."""
    readings_before: int
    purged: int
    """Readings of dropped devices."""

    @property
    def collapsed(self) -> int:
        """Readings that a later one of the same device, metric and time has replaced."""
        return self.readings_before - self.purged - sum(table.readings() for table in self.tables)


@dataclass(slots=True)
class _Flushed:
    first_offset: int
    table: SortedTable


def merge(blocks: Iterable[tuple[int, Iterable[SortedTable]]], dropped: Collection[bytes]) -> Merged:
    """Merges (first offset, tables) of blocks, in order of offset, without the devices in `dropped`."""
    by_set: dict[tuple[str, ...], list[_Flushed]] = {}
    before = purged = 0
    for first_offset, found in blocks:
        for table in found:
            readings = table.readings()
            before += readings
            kept = table
            if dropped and not (keep := not_among(table.device_uids, dropped)).all():
                kept = table.keep_devices(keep)
                purged += readings - kept.readings()
            if kept.rows:
                by_set.setdefault(kept.metrics, []).append(_Flushed(first_offset, kept))
    tables = []
    for family in _families(list(by_set)):
        parts = {metrics: by_set[metrics] for metrics in family}
        if len(family) > 1:
            tables += _collapse_shared(parts)
        tables += [_merge_alike(metrics, some) for metrics, some in parts.items() if some]
    return Merged(tables, before, purged)


def _families(sets: Sequence[tuple[str, ...]]) -> list[list[tuple[str, ...]]]:
    """Metric sets that have metrics in common, directly or by others between them."""
    families: list[tuple[set[str], list[tuple[str, ...]]]] = []
    for metrics in sets:
        names, members = set(metrics), [metrics]
        apart = []
        for other_names, others in families:
            if names & other_names:
                names |= other_names
                members = others + members
            else:
                apart.append((other_names, others))
        families = [*apart, (names, members)]
    return [members for _, members in families]


def _merge_alike(metrics: tuple[str, ...], flushed: Sequence[_Flushed]) -> SortedTable:
    """Tables of one metric set, in order of arrival, with at least one row in all."""
    tables = [item.table for item in flushed]
    device_uids, slot_of = unique_uids(np.concatenate([table.device_uids for table in tables]))
    slot_of = slot_of.astype(np.uint16 if len(device_uids) <= 0xFFFF else np.uint32)  # 16 bits sort by radix
    slots = np.repeat(slot_of, np.concatenate([table.row_counts for table in tables]))
    times = np.concatenate([table.time_unix_us for table in tables])
    order, times = order_of(slots, times)  # stable: equal times stay in order of arrival
    slots = slots[order]
    columns = [
        np.concatenate([table.values[number] for table in tables])[order] for number in range(len(metrics))
    ]
    fresh = np.append(True, (slots[1:] != slots[:-1]) | (times[1:] != times[:-1]))
    if not fresh.all():
        group = np.cumsum(fresh) - 1
        columns = [last_of_group(column, group, int(group[-1]) + 1) for column in columns]
        slots, times = slots[fresh], times[fresh]
    counts = np.bincount(slots, minlength=len(device_uids)).astype(np.uint32)
    return SortedTable(metrics, device_uids, counts, times, columns)


def _collapse_shared(parts: dict[tuple[str, ...], list[_Flushed]]) -> list[SortedTable]:
    """Takes the devices that have rows in more than one of the metric sets out of `parts`, and merges them together.

    Returns no or one table, whose metrics are those of all sets.
    """
    owners: dict[bytes, int] = {}
    for number, some in enumerate(parts.values()):
        for uid in {uid for item in some for uid in uid_list(item.table.device_uids)}:
            owners[uid] = number if uid not in owners else -1
    shared = [uid for uid, number in owners.items() if number < 0]
    if not shared:
        return []
    number_of = {uid: number for number, uid in enumerate(shared)}
    taken: list[Part] = []
    for metrics, some in parts.items():
        rest = []
        for item in some:
            apart = not_among(item.table.device_uids, number_of)
            if not apart.all():
                taken.append(_part(item.first_offset, item.table.keep_devices(~apart), number_of))
            if apart.any():
                rest.append(_Flushed(item.first_offset, item.table.keep_devices(apart)))
        parts[metrics] = rest
    names = tuple(sorted({name for metrics in parts for name in metrics}))
    rows = collapse(taken, names)
    uids = np.frombuffer(b"".join(shared), np.uint8).reshape(-1, 16)
    counts = np.bincount(rows.device, minlength=len(shared)).astype(np.uint32)
    there = counts > 0
    return [SortedTable(names, uids[there], counts[there], rows.time, rows.values)] if there.any() else []


def _part(first_offset: int, table: SortedTable, number_of: dict[bytes, int]) -> Part:
    numbers = np.array([number_of[uid] for uid in uid_list(table.device_uids)], np.int32)
    arrival: NDArray[np.int64] = (
        np.full(table.rows, first_offset << ROW_BITS) if table.arrival is None else table.arrival
    )
    columns = dict(zip(table.metrics, table.values, strict=True))
    return Part(np.repeat(numbers, table.row_counts), table.time_unix_us, arrival, columns)
