"""Sealing in the catalog: an epoch's rows of flushed blocks go and those of sealed ones come, in one transaction.

The bytes of flushed blocks stay in their files until a sweep finds nothing else there.
"""

import sqlite3
from collections.abc import Sequence

from tidewire_storage.adapters.embedded import reading
from tidewire_storage.adapters.embedded.writing import add_bytes, add_to_ledger, transaction, write_blocks
from tidewire_storage.ports import Seal


def outdated(connection: sqlite3.Connection, seal: Seal) -> bool:
    """Whether the epoch is sealed, or has other blocks than the seal replaces."""
    place = seal.place
    row = connection.execute(
        "SELECT seal_id FROM epochs WHERE incarnation = ? AND partition = ? AND epoch = ?",
        (place.incarnation, place.partition, seal.epoch),
    ).fetchone()
    if row is None or row[0] is not None:
        return True
    tokens = {block.token for block in reading.blocks_of_epoch(connection, place, seal.epoch)}
    return tokens != {block.token for block in seal.replaced}


def write_seal(connection: sqlite3.Connection, seal: Seal, places: Sequence[tuple[int, int]]) -> bool:
    """The seal's rows; `places` has (file id, position) of each of its blocks. False: it is outdated."""
    place = seal.place
    key = (place.incarnation, place.partition, seal.epoch)
    with transaction(connection):
        if outdated(connection, seal):
            return False
        removed = connection.execute(
            "DELETE FROM blocks WHERE incarnation = ? AND partition = ? AND epoch = ? "
            "RETURNING tenant, hour_us, length",
            key,
        ).fetchall()
        connection.executemany(
            "UPDATE ledger SET bytes = bytes - ? WHERE tenant = ? AND hour_us = ?",
            [(length, tenant, hour_us) for tenant, hour_us, length in removed],
        )
        write_blocks(connection, seal.blocks, places)
        add_bytes(connection, seal.blocks)
        add_to_ledger(connection, seal.ledger)
        connection.execute(
            "UPDATE epochs SET blocks = ?, readings = ?, seal_id = ? "
            "WHERE incarnation = ? AND partition = ? AND epoch = ?",
            (
                len(seal.blocks),
                sum(block.facts.readings for block in seal.blocks),
                reading.last_seal(connection, place) + 1,
                *key,
            ),
        )
    return True
