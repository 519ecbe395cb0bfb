"""One transaction per flush: the statements behind `BlockWriter.commit` and `progress`.

All functions take a connection of the calling thread; the store runs them on its writing thread.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from tidewire_kit.owner import NO_ENTRIES, WINDOW_SECONDS, WINDOW_SEGMENTS, Ledger
from tidewire_storage.domain.blocks import Block, EpochSpan, OpenEpoch, TopicPartitionKey
from tidewire_storage.domain.series import SeriesStates, merge_states, unpack_states
from tidewire_storage.ports import Flush, PartitionFlush, ProgressMoved, StoredProgress

_VARIABLES = 500
"""Device uids in one SELECT."""


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commits what happens inside, or rolls it back."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite ends it by itself after some errors
            connection.execute("ROLLBACK")
        raise


def read_progress(connection: sqlite3.Connection, place: TopicPartitionKey) -> StoredProgress:
    """How far a partition is stored."""
    key = (place.incarnation, place.partition)
    where = "WHERE incarnation = ? AND partition = ?"
    row = connection.execute(f"SELECT next_offset, series_offset FROM progress {where}", key).fetchone()  # noqa: S608
    epoch = connection.execute(
        "SELECT epoch, first_offset, covered_offset, end_offset, hour_us, gathered_bytes FROM epochs "  # noqa: S608
        f"{where} ORDER BY epoch DESC LIMIT 1",
        key,
    ).fetchone()
    blobs = connection.execute(f"SELECT entries FROM dedup {where} ORDER BY end_offset", key).fetchall()  # noqa: S608
    entries = (
        np.frombuffer(b"".join(blob for (blob,) in blobs), "<u8").reshape(-1, 4) if blobs else NO_ENTRIES
    )
    opened = None
    if epoch is not None:
        number, first, _, end, hour_us, gathered = epoch
        opened = (
            OpenEpoch(number, first, hour_us, gathered) if end is None else OpenEpoch(number + 1, end, -1, 0)
        )
    if row is None:
        return StoredProgress(None, 0, opened, entries)
    return StoredProgress(row[0], row[1], opened, entries)


def write_flush(connection: sqlite3.Connection, flush: Flush, places: Sequence[tuple[int, int]]) -> None:
    """The flush's rows; `places` has (file id, position) of each of its blocks. Raises ProgressMoved."""
    with transaction(connection):
        for part in flush.partitions:
            _move_progress(connection, part)
            for span in part.spans:
                _extend_epoch(connection, part.place, span)
            _write_entries(connection, part)
            add_to_ledger(connection, part.ledger)
        write_blocks(connection, flush.blocks, places)
        add_bytes(connection, flush.blocks)
        for group in _by_set(flush.series.values()):
            _write_series(connection, merge_states(group))
        connection.executemany(
            "UPDATE progress SET series_offset = ? WHERE incarnation = ? AND partition = ?",
            [(offset, place.incarnation, place.partition) for place, offset in flush.series_offsets.items()],
        )


def _move_progress(connection: sqlite3.Connection, part: PartitionFlush) -> None:
    key = (part.place.incarnation, part.place.partition)
    row = connection.execute(
        "SELECT next_offset FROM progress WHERE incarnation = ? AND partition = ?", key
    ).fetchone()
    found = row[0] if row else None
    if found != part.expected_offset:
        raise ProgressMoved(part.place, part.expected_offset, found)
    first = part.spans[0].first_offset if part.spans else part.next_offset
    connection.execute(
        "INSERT INTO progress VALUES (?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset",
        (*key, part.next_offset, first),
    )


def _extend_epoch(connection: sqlite3.Connection, place: TopicPartitionKey, span: EpochSpan) -> None:
    connection.execute(
        "INSERT INTO epochs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL) ON CONFLICT DO UPDATE SET "
        "covered_offset = excluded.covered_offset, end_offset = excluded.end_offset, "
        "gathered_bytes = gathered_bytes + excluded.gathered_bytes, blocks = blocks + excluded.blocks, "
        "readings = readings + excluded.readings",
        (
            place.incarnation,
            place.partition,
            span.epoch,
            span.epoch_first_offset,
            span.end_offset,
            span.end_offset if span.cut else None,
            span.hour_us,
            span.gathered_bytes,
            span.blocks,
            span.readings,
        ),
    )


def _write_entries(connection: sqlite3.Connection, part: PartitionFlush) -> None:
    key = (part.place.incarnation, part.place.partition)
    if len(part.entries):
        connection.execute(
            "INSERT INTO dedup VALUES (?, ?, ?, ?, ?, ?)",
            (
                *key,
                part.next_offset,
                part.log_time_us,
                len(part.entries),
                part.entries.astype("<u8").tobytes(),
            ),
        )
    oldest = part.log_time_us - int(WINDOW_SECONDS * 1e6)
    connection.execute(
        "DELETE FROM dedup WHERE incarnation = ? AND partition = ? AND newest_us < ?", (*key, oldest)
    )


def prune_entries(connection: sqlite3.Connection) -> None:
    """Removes stored window entries that 64 Ki newer ones have pushed out."""
    with transaction(connection):
        connection.execute(
            "DELETE FROM dedup WHERE rowid IN (SELECT rowid FROM (SELECT rowid, segments, sum(segments) OVER "
            "(PARTITION BY incarnation, partition ORDER BY end_offset DESC) AS newer FROM dedup) "
            "WHERE newer - segments >= ?)",
            (WINDOW_SEGMENTS,),
        )


def write_blocks(
    connection: sqlite3.Connection, blocks: Sequence[Block], places: Sequence[tuple[int, int]]
) -> None:
    """Rows of blocks that lie at (file id, position)."""
    connection.executemany(
        "INSERT INTO blocks VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                block.key.tenant,
                block.key.place.incarnation,
                block.key.place.partition,
                block.key.slice,
                block.key.epoch,
                block.key.first_offset,
                block.key.end_offset,
                block.facts.hour_us,
                file_id,
                position,
                len(block.data),
                block.facts.rows,
                block.facts.readings,
                block.facts.min_time_us,
                block.facts.max_time_us,
                " ".join(str(set_id_of(connection, metrics)) for metrics in block.facts.metric_sets),
                block.key.level,
                block.head_bytes,
            )
            for block, (file_id, position) in zip(blocks, places, strict=True)
        ],
    )


def set_id_of(connection: sqlite3.Connection, metrics: tuple[str, ...]) -> int:
    """The number of a metric set; made within the transaction when it is new."""
    names = " ".join(metrics)
    row = connection.execute("SELECT set_id FROM metric_sets WHERE names = ?", (names,)).fetchone()
    if row is None:
        row = connection.execute(
            "INSERT INTO metric_sets (names) VALUES (?) RETURNING set_id", (names,)
        ).fetchone()
    return int(row[0])


def add_to_ledger(connection: sqlite3.Connection, ledger: Ledger) -> None:
    """Adds counts to the ledger's rows."""
    connection.executemany(
        "INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT DO UPDATE SET "
        "accepted = accepted + excluded.accepted, stored = stored + excluded.stored, "
        "duplicate = duplicate + excluded.duplicate, dead_lettered = dead_lettered + excluded.dead_lettered, "
        "purged = purged + excluded.purged",
        [
            (tenant, hour_us, c.accepted, c.stored, c.duplicate, c.dead_lettered, c.purged)
            for (tenant, hour_us), c in ledger.items()
        ],
    )


def add_bytes(connection: sqlite3.Connection, blocks: Sequence[Block]) -> None:
    """Adds the lengths of blocks to the ledger."""
    connection.executemany(
        "UPDATE ledger SET bytes = bytes + ? WHERE tenant = ? AND hour_us = ?",
        [(len(block.data), block.key.tenant, block.facts.hour_us) for block in blocks],
    )


def _by_set(partitions: Iterable[Sequence[SeriesStates]]) -> Iterable[list[SeriesStates]]:
    """States of all partitions by (tenant, metric set): fewer and larger statements."""
    groups: dict[tuple[bytes, tuple[str, ...]], list[SeriesStates]] = {}
    for partition in partitions:
        for states in partition:
            groups.setdefault((states.tenant, states.metrics), []).append(states)
    return groups.values()


def _write_series(connection: sqlite3.Connection, states: SeriesStates) -> None:
    """Merges with what is stored. A deleted device's states do not come back: its tombstone is looked up here."""
    set_id = set_id_of(connection, states.metrics)
    buried: set[bytes] = set()
    uids = [uid.tobytes() for uid in states.device_uids]
    held = []
    for first in range(0, len(uids), _VARIABLES):
        some = uids[first : first + _VARIABLES]
        marks = ",".join("?" * len(some))
        # An empty device in a tombstone stands for all of the tenant's.
        found = connection.execute(
            f"SELECT device FROM tombstones WHERE tenant = ? AND device IN (x'', {marks})",  # noqa: S608
            (states.tenant, *some),
        ).fetchall()
        buried.update(device for (device,) in found)
        if b"" in buried:
            return
        held += connection.execute(
            f"SELECT device, state FROM series WHERE tenant = ? AND set_id = ? AND device IN ({marks})",  # noqa: S608
            (states.tenant, set_id, *some),
        ).fetchall()
    if held:
        stored = unpack_states(
            states.tenant, states.metrics, [uid for uid, _ in held], [state for _, state in held]
        )
        states = merge_states([stored, states])
        uids = [uid.tobytes() for uid in states.device_uids]
    connection.executemany(
        "INSERT INTO series VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET state = excluded.state",
        [
            (states.tenant, uid, set_id, state)
            for uid, state in zip(uids, states.pack(), strict=True)
            if uid not in buried
        ],
    )
