"""Rollups: what readings come to by device and bucket, kept as rows of sealed blocks.

A row stands for all readings of its device in its bucket, as far as they were merged when it was written; a row that
arrives later stands in its place. So rollups are read like readings: the latest arrival wins. Made by merging, read by
`application.buckets`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewire_storage.domain.aggregates import Partials, merge_partials
from tidewire_storage.domain.blocks import ROLLUP_DAY, ROLLUP_HOUR, ROLLUP_MINUTE
from tidewire_storage.domain.collapse import Collapsed
from tidewire_storage.domain.rows import SortedTable

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US


@dataclass(frozen=True, slots=True)
class Tier:
    """Rollups of one width."""

    level: int
    """Of its blocks."""
    width_us: int
    """Of its buckets, which are aligned to 1970-01-01T00:00:00Z."""


TIERS = (Tier(ROLLUP_DAY, DAY_US), Tier(ROLLUP_HOUR, HOUR_US), Tier(ROLLUP_MINUTE, MINUTE_US))
"""From the cheapest to the finest."""

STATISTICS = (
    "count",
    "total",
    "least",
    "greatest",
    "first_us",
    "first",
    "last_us",
    "last",
    "squares",
)
"""What a row tells of a metric: names of fields of `Partials`."""
_SECOND_US = 1_000_000
_SIX_DIGITS = ~np.int64(0xFFFFFFFF)
"""Leaves 20 bits of a float's fraction."""
_TIMES = ("first_us", "last_us")
"""Kept as µs from the start of the bucket, which a float holds exactly."""


def column_names(metric: str) -> tuple[str, ...]:
    """Names of a metric's columns in a table of rollups."""
    return tuple(f"{metric}:{statistic}" for statistic in STATISTICS)


def metric_of(column: str) -> str:
    """The metric that a column of rollups belongs to."""
    return column.rpartition(":")[0]


def table_of(device_uids: NDArray[np.uint8], rows: Mapping[str, Partials], tier: Tier) -> SortedTable:
    """A table of rollups; `device_uids` (n, 16) are the devices that the partial results number, rising.

    At least one row in all. Squares keep six digits; first and last times of buckets below a day keep the second that
    holds them: all digits would take half of the bytes.
    """
    metrics = sorted(rows)
    device = np.concatenate([rows[metric].device for metric in metrics]).astype(np.int64)
    bucket = np.concatenate([rows[metric].bucket for metric in metrics])
    order = np.lexsort((bucket, device))
    fresh = np.append(
        True,
        (device[order][1:] != device[order][:-1]) | (bucket[order][1:] != bucket[order][:-1]),
    )
    row_of = np.empty(len(order), np.int64)
    row_of[order] = np.cumsum(fresh) - 1
    device, bucket = device[order][fresh], bucket[order][fresh]
    names: list[str] = []
    values: list[NDArray[np.float64]] = []
    at = 0
    for metric in metrics:
        part = rows[metric]
        mine = row_of[at : at + len(part)]
        at += len(part)
        for statistic, name in zip(STATISTICS, column_names(metric), strict=True):
            column = np.full(len(device), np.nan)
            found = getattr(part, statistic)
            if statistic in _TIMES:
                found = found - part.bucket
                if tier.width_us < DAY_US:
                    up = _SECOND_US - 1 if statistic == "last_us" else 0
                    found = (found + up) // _SECOND_US * _SECOND_US
            elif statistic == "squares":
                found = (found.view(np.int64) & _SIX_DIGITS).view(np.float64)
            column[mine] = found
            names.append(name)
            values.append(column)
    counts = np.bincount(device, minlength=len(device_uids)).astype(np.uint32)
    there = counts > 0
    order_of_names = np.argsort(names)
    return SortedTable(
        tuple(names[place] for place in order_of_names),
        device_uids[there],
        counts[there],
        bucket,
        [values[place] for place in order_of_names],
    )


def partials_in(rows: Collapsed, metric: str) -> Partials:
    """The partial results of a metric in rows of rollups that have its columns."""
    columns = {
        statistic: rows.values[rows.metrics.index(name)]
        for statistic, name in zip(STATISTICS, column_names(metric), strict=True)
    }
    there = ~np.isnan(columns["count"])
    bucket = rows.time[there]
    found = {name: column[there] for name, column in columns.items()}
    return Partials(
        rows.device[there],
        bucket,
        found["count"].astype(np.int64),
        found["total"],
        found["least"],
        found["greatest"],
        bucket + found["first_us"].astype(np.int64),
        found["first"],
        bucket + found["last_us"].astype(np.int64),
        found["last"],
        found["squares"],
    )


def update(
    old: Partials, new: Partials, wholly_known: NDArray[np.bool_]
) -> tuple[Partials, NDArray[np.bool_]]:
    """Adds what is new to what was there of the same buckets; both have each (device, bucket) once.

    Returns (the rows of `new`, those that are in both merged; for each whether it has to be counted again from the
    readings). That is so where the times of old and new readings overlap, as some may be the same reading, unless
    `wholly_known` (rows of new,) is false: then the old readings are gone, and merging is the best there is.
    """
    if not len(old) or not len(new):
        return new, np.zeros(len(new), np.bool_)
    keys, old_keys = _keys(new, old)
    order = np.argsort(old_keys, kind="stable")
    place = np.minimum(np.searchsorted(old_keys[order], keys), len(old) - 1)
    both = old_keys[order][place] == keys
    partner = order[place]
    apart = (new.first_us > old.last_us[partner]) | (new.last_us < old.first_us[partner])
    again = both & ~apart & wholly_known
    added = both & ~again
    if not added.any():
        return new, again
    merged = merge_partials([old.where(partner[added]), new.where(np.flatnonzero(added))])
    rest = new.where(np.flatnonzero(~added))
    joined = concatenated([merged, rest])
    order = np.lexsort((joined.bucket, joined.device))
    before = np.lexsort((new.bucket, new.device))
    flags = np.empty(len(new), np.bool_)
    flags[:] = again[before]
    return joined.where(order), flags


def among(rows: Partials, others: Partials) -> NDArray[np.bool_]:
    """bool (rows,): whether `others` has a row of the same device and bucket."""
    if not len(rows) or not len(others):
        return np.zeros(len(rows), np.bool_)
    keys, other_keys = _keys(rows, others)
    return np.isin(keys, other_keys)


def concatenated(parts: Sequence[Partials]) -> Partials:
    """Rows one after the other."""
    return Partials(*(np.concatenate([getattr(part, name) for part in parts]) for name in Partials.__slots__))


def _keys(one: Partials, other: Partials) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers that are equal where device and bucket are."""
    buckets = np.concatenate([one.bucket, other.bucket])
    _, number = np.unique(buckets, return_inverse=True)
    devices = np.concatenate([one.device, other.device]).astype(np.int64)
    keys = devices * (int(number.max()) + 1) + number
    return keys[: len(one)], keys[len(one) :]
