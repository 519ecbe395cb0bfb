"""The catalog as queries see it: SELECTs only, each function in one read transaction of the calling thread.

Where a transaction is open already, in that one.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tidewire_kit.ids import TenantId
from tidewire_storage.domain.blocks import (
    ROLLUP_DAY,
    ROLLUP_MINUTE,
    BlockFacts,
    BlockKey,
    EpochCoverage,
    SealedEpoch,
    StoredBlock,
    TopicPartitionKey,
)
from tidewire_storage.domain.series import SeriesStates, unpack_states
from tidewire_storage.ports import Look, TenantUsage

_BLOCK = (
    "SELECT block_id, tenant, incarnation, partition, slice, epoch, first_offset, end_offset, hour_us, file_id, "
    "position, length, rows, readings, min_time_us, max_time_us, sets, level, head_bytes FROM blocks"
)
ROLLUPS = f"level BETWEEN {ROLLUP_MINUTE} AND {ROLLUP_DAY}"
_VARIABLES = 500
_BEGINNING_US = 0


@dataclass(frozen=True, slots=True)
class Token:
    """Where a block lay when it was found."""

    block_id: int
    file_id: int
    position: int
    length: int


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def metric_sets(connection: sqlite3.Connection) -> dict[int, tuple[str, ...]]:
    """All metric sets by number."""
    rows = connection.execute("SELECT set_id, names FROM metric_sets").fetchall()
    return {set_id: tuple(names.split(" ")) if names else () for set_id, names in rows}


def find_blocks(
    connection: sqlite3.Connection,
    tenant: TenantId,
    place: TopicPartitionKey | None,
    start_us: int,
    end_us: int,
    after: StoredBlock | None = None,
    limit: int | None = None,
    rollup: int | None = None,
) -> list[StoredBlock]:
    """A tenant's blocks that overlap [start_us, end_us), by least time; see BlockReader.find."""
    conditions = ["tenant = ?", "max_time_us >= ?", "min_time_us < ?"]
    values: list[Any] = [tenant, start_us, end_us]
    conditions.append(f"NOT {ROLLUPS}" if rollup is None else "level = ?")
    values += [] if rollup is None else [rollup]
    if place is not None:
        conditions += ["partition = ?", "incarnation = ?"]
        values += [place.partition, place.incarnation]
    if after is not None:
        assert isinstance(after.token, Token)
        conditions.append("(min_time_us, max_time_us, block_id) > (?, ?, ?)")
        values += [after.facts.min_time_us, after.facts.max_time_us, after.token.block_id]
    elif place is not None and start_us > _BEGINNING_US:
        # Where to begin in the index by least time: everything before ends too early.
        (first,) = connection.execute(
            "SELECT min(min_time_us) FROM blocks INDEXED BY blocks_end "  # not through all that is older
            "WHERE tenant = ? AND partition = ? AND max_time_us >= ?",
            (tenant, place.partition, start_us),
        ).fetchone()
        if first is None:
            return []
        conditions.append("min_time_us >= ?")
        values.append(first)
    order = "ORDER BY min_time_us, max_time_us, block_id LIMIT ?"
    return _blocks(
        connection, f"WHERE {' AND '.join(conditions)} {order}", [*values, -1 if limit is None else limit]
    )


def look(
    connection: sqlite3.Connection,
    tenant: TenantId,
    place: TopicPartitionKey,
    start_us: int,
    end_us: int,
    kinds: Sequence[int | None],
    limit: int | None,
) -> Look:
    """See BlockReader.look."""
    connection.execute("BEGIN")
    try:
        return Look(
            last_seal(connection, place),
            tuple(
                find_blocks(connection, tenant, place, start_us, end_us, None, limit, kind) for kind in kinds
            ),
        )
    finally:
        connection.execute("COMMIT")


def blocks_after(connection: sqlite3.Connection, place: TopicPartitionKey, offset: int) -> list[StoredBlock]:
    """Blocks of all tenants in a partition that end after `offset`."""
    row = connection.execute(
        "SELECT min(epoch) FROM epochs WHERE incarnation = ? AND partition = ? AND covered_offset > ?",
        (place.incarnation, place.partition, offset),
    ).fetchone()
    if row[0] is None:
        return []
    where = "WHERE incarnation = ? AND partition = ? AND epoch >= ? AND end_offset > ? AND "
    where += f"NOT {ROLLUPS} ORDER BY first_offset"
    return _blocks(connection, where, [place.incarnation, place.partition, row[0], offset])


def where_now(connection: sqlite3.Connection, blocks: Sequence[StoredBlock]) -> dict[int, Token]:
    """Block id → where it lies now; those that are gone are left out.

    By their keys as well: SQLite gives the ids of removed blocks to those that take their place.
    """
    found = {}
    for first in range(0, len(blocks), _VARIABLES):
        keys = {_token(block).block_id: block.key for block in blocks[first : first + _VARIABLES]}
        for block in _blocks(connection, f"WHERE block_id IN ({_marks(list(keys))})", list(keys)):
            token = _token(block)
            if block.key == keys[token.block_id]:
                found[token.block_id] = token
    return found


def _token(block: StoredBlock) -> Token:
    assert isinstance(block.token, Token)
    return block.token


def blocks_of_file(connection: sqlite3.Connection, file_id: int) -> list[StoredBlock]:
    """The live blocks of a file, by position."""
    return _blocks(connection, "WHERE file_id = ? ORDER BY position", [file_id])


def _blocks(connection: sqlite3.Connection, where: str, values: Sequence[Any]) -> list[StoredBlock]:
    alone = not connection.in_transaction
    if alone:
        connection.execute("BEGIN")
    try:
        rows = connection.execute(f"{_BLOCK} {where}", values).fetchall()
        sets = metric_sets(connection)
    finally:
        if alone:
            connection.execute("COMMIT")
    return [
        StoredBlock(
            BlockKey(TenantId(r[1]), TopicPartitionKey(r[2], r[3]), r[4], r[5], r[6], r[7], r[17]),
            BlockFacts(
                r[8], r[12], r[13], r[14], r[15], tuple(sets[int(number)] for number in r[16].split(" "))
            ),
            Token(r[0], r[9], r[10], r[11]),
            r[18],
        )
        for r in rows
    ]


def read_series(
    connection: sqlite3.Connection, tenant: TenantId, device_uids: Sequence[bytes]
) -> list[SeriesStates]:
    """Stored states of these devices, one item per metric set."""
    by_set: dict[int, tuple[list[bytes], list[bytes]]] = {}
    connection.execute("BEGIN")
    try:
        for first in range(0, len(device_uids), _VARIABLES):
            some = device_uids[first : first + _VARIABLES]
            for device, set_id, state in connection.execute(
                f"SELECT device, set_id, state FROM series WHERE tenant = ? AND device IN ({_marks(some)})",  # noqa: S608
                (tenant, *some),
            ):
                devices, states = by_set.setdefault(set_id, ([], []))
                devices.append(device)
                states.append(state)
        sets = metric_sets(connection)
    finally:
        connection.execute("COMMIT")
    return [unpack_states(tenant, sets[set_id], *lists) for set_id, lists in by_set.items()]


def read_epochs(
    connection: sqlite3.Connection, place: TopicPartitionKey, *, to_seal: bool = False
) -> list[EpochCoverage]:
    """Epochs of a partition with the blocks that are in the catalog; `to_seal`: only cut ones that are not sealed."""
    rows = connection.execute(
        "SELECT epoch, first_offset, end_offset, covered_offset, blocks, (SELECT count(*) FROM blocks b WHERE "
        "b.incarnation = e.incarnation AND b.partition = e.partition AND b.epoch = e.epoch), seal_id FROM epochs e "
        "WHERE incarnation = ? AND partition = ? AND (NOT ? OR end_offset IS NOT NULL AND seal_id IS NULL) "
        "ORDER BY epoch",
        (place.incarnation, place.partition, to_seal),
    ).fetchall()
    return [
        EpochCoverage(epoch, first, end, covered, written, present, seal_id is not None)
        for epoch, first, end, covered, written, present, seal_id in rows
    ]


def read_unsealed(connection: sqlite3.Connection, place: TopicPartitionKey) -> list[EpochCoverage]:
    """The epochs that can be sealed."""
    found = read_epochs(connection, place, to_seal=True)
    return [epoch for epoch in found if epoch.complete]


def read_unmerged(connection: sqlite3.Connection, place: TopicPartitionKey) -> list[SealedEpoch]:
    """The epochs that can be merged."""
    rows = connection.execute(
        "SELECT epoch, hour_us, readings FROM epochs WHERE incarnation = ? AND partition = ? "
        "AND seal_id IS NOT NULL AND merge_id IS NULL ORDER BY epoch",
        (place.incarnation, place.partition),
    ).fetchall()
    return [SealedEpoch(*row) for row in rows]


def last_seal(connection: sqlite3.Connection, place: TopicPartitionKey) -> int:
    """Number of the newest seal or merge of a partition; 0: there was none."""
    row = connection.execute(
        "SELECT max((SELECT coalesce(max(seal_id), 0) FROM epochs WHERE incarnation = :i AND partition = :p), "
        "(SELECT coalesce(max(merge_id), 0) FROM epochs WHERE incarnation = :i AND partition = :p))",
        {"i": place.incarnation, "p": place.partition},
    ).fetchone()
    return int(row[0])


def blocks_of_epoch(
    connection: sqlite3.Connection, place: TopicPartitionKey, epoch: int
) -> list[StoredBlock]:
    """Blocks of all tenants in an epoch."""
    where = "WHERE incarnation = ? AND partition = ? AND epoch = ? ORDER BY first_offset"
    return _blocks(connection, where, [place.incarnation, place.partition, epoch])


def read_usage(connection: sqlite3.Connection, tenant: TenantId | None) -> list[TenantUsage]:
    """Sums over the ledger."""
    rows = connection.execute(
        "SELECT tenant, sum(accepted), sum(stored - purged), sum(bytes) FROM ledger WHERE tenant = ? OR ? IS NULL "
        "GROUP BY tenant",
        (tenant, tenant),
    ).fetchall()
    return [TenantUsage(TenantId(row[0]), *row[1:]) for row in rows]


def read_progress_offsets(connection: sqlite3.Connection, incarnation: bytes) -> dict[int, int]:
    """Partition → stored offset."""
    rows = connection.execute(
        "SELECT partition, next_offset FROM progress WHERE incarnation = ?", (incarnation,)
    ).fetchall()
    return dict(rows)


def last_cut_request(connection: sqlite3.Connection) -> int:
    """Number of the last request to cut; 0: none."""
    return int(connection.execute("SELECT coalesce(max(request_id), 0) FROM cut_requests").fetchone()[0])


def read_cuts_noted(connection: sqlite3.Connection, request: int) -> dict[int, bool]:
    """Partition → whether it got a cut by this request."""
    rows = connection.execute(
        "SELECT partition, cut, request_id FROM cuts_noted WHERE request_id >= ?", (request,)
    ).fetchall()
    return {partition: bool(cut) for partition, cut, _ in rows}
