"""Sealing and merging in the catalog: rows of blocks go and those that replace them come, in one transaction.

The bytes of replaced blocks stay in their files until a sweep finds nothing else there.
"""

import sqlite3
from collections.abc import Sequence

from tidewire_storage.adapters.embedded import reading
from tidewire_storage.adapters.embedded.writing import add_bytes, add_to_ledger, transaction, write_blocks
from tidewire_storage.ports import Exchange, Seal


def outdated(connection: sqlite3.Connection, seal: Seal) -> bool:
    """Whether an epoch of it is sealed (or merged) already, or has other blocks than the seal says."""
    place = seal.place
    found: set[object] = set()
    for epoch in seal.epochs:
        row = connection.execute(
            "SELECT seal_id, merge_id FROM epochs WHERE incarnation = ? AND partition = ? AND epoch = ?",
            (place.incarnation, place.partition, epoch),
        ).fetchone()
        if row is None or (row[0] is not None) != seal.merge or row[1] is not None:
            return True
        found |= {block.token for block in reading.blocks_of_epoch(connection, place, epoch)}
    return found != {block.token for block in (*seal.replaced, *seal.kept)}


def write_seal(connection: sqlite3.Connection, seal: Seal, places: Sequence[tuple[int, int]]) -> bool:
    """The seal's rows; `places` has (file id, position) of each of its blocks. False: it is outdated."""
    place = seal.place
    with transaction(connection):
        if outdated(connection, seal):
            return False
        removed = []
        for block in seal.replaced:
            assert isinstance(block.token, reading.Token)
            removed += connection.execute(
                "DELETE FROM blocks WHERE block_id = ? RETURNING length, tenant, hour_us",
                (block.token.block_id,),
            ).fetchall()
        connection.executemany(
            "UPDATE ledger SET bytes = bytes - ? WHERE tenant = ? AND hour_us = ?", removed
        )
        write_blocks(connection, seal.blocks, places)
        add_bytes(connection, seal.blocks)
        add_to_ledger(connection, seal.ledger)
        number = reading.last_seal(connection, place) + 1
        connection.executemany(
            "UPDATE epochs SET blocks = ?, readings = ?, seal_id = coalesce(seal_id, ?), merge_id = ? "
            "WHERE incarnation = ? AND partition = ? AND epoch = ?",
            [
                (
                    seal.blocks_of(epoch),
                    seal.readings_of(epoch),
                    number,
                    number if seal.merge else None,
                    place.incarnation,
                    place.partition,
                    epoch,
                )
                for epoch in seal.epochs
            ],
        )
    return True


def write_exchange(
    connection: sqlite3.Connection, exchange: Exchange, places: Sequence[tuple[int, int]]
) -> bool:
    """The exchange's rows; `places` has (file id, position) of each of its blocks. False: a block is gone or moved."""
    place = exchange.place
    with transaction(connection):
        tokens = [block.token for block in exchange.replaced]
        ids = [token.block_id for token in tokens if isinstance(token, reading.Token)]
        now = reading.where_now(connection, exchange.replaced)
        if any(now.get(number) != token for number, token in zip(ids, tokens, strict=True)):
            return False
        removed = []
        for number in ids:
            removed += connection.execute(
                "DELETE FROM blocks WHERE block_id = ? RETURNING length, tenant, hour_us", (number,)
            ).fetchall()
        connection.executemany(
            "UPDATE ledger SET bytes = bytes - ? WHERE tenant = ? AND hour_us = ?", removed
        )
        write_blocks(connection, exchange.blocks, places)
        add_to_ledger(connection, exchange.ledger)
        add_bytes(connection, exchange.blocks)
        changes = [(-1, -block.facts.readings, block.key.epoch) for block in exchange.replaced]
        changes += [(1, block.facts.readings, block.key.epoch) for block in exchange.blocks]
        connection.executemany(
            "UPDATE epochs SET blocks = blocks + ?, readings = readings + ? "
            "WHERE incarnation = ? AND partition = ? AND epoch = ?",
            [
                (blocks, readings, place.incarnation, place.partition, epoch)
                for blocks, readings, epoch in changes
            ],
        )
        connection.execute(
            "UPDATE epochs SET merge_id = ? WHERE incarnation = ? AND partition = ? AND epoch = ?",
            (
                reading.last_seal(connection, place) + 1,
                place.incarnation,
                place.partition,
                exchange.replaced[0].key.epoch,
            ),
        )
    return True
