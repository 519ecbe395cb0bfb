"""Removing: what has expired, what was deleted, and the bytes of both.

A file is clean up to a tombstone when nothing buried up to it lies in it. Files that are not are rewritten without it,
by whichever process can lock them; a file that is being appended to is left to its writer, who begins a new one.
"""

import os
import sqlite3
from collections.abc import Callable, Collection
from pathlib import Path

from tidewire_kit.ids import TenantId
from tidewire_storage.adapters.embedded import reading, schema
from tidewire_storage.adapters.embedded.copying import may_sweep
from tidewire_storage.adapters.embedded.files import (
    BlockFile,
    at_rest,
    file_ids,
    path_of,
    read_pieces,
    sync_directory,
)
from tidewire_storage.adapters.embedded.scrubbing import leave_log, rewrite
from tidewire_storage.adapters.embedded.writing import transaction
from tidewire_storage.domain.block_format import without_devices
from tidewire_storage.domain.block_header import BlockDamaged
from tidewire_storage.domain.blocks import COLD_BLOCK, Block, StoredBlock
from tidewire_storage.domain.cold_format import ColdDirectory
from tidewire_storage.ports import SweepPutOff

_WORTH_REWRITING = 0.5
"""Share of a file that has to be dead before expiry alone makes us copy the rest."""

NewFile = Callable[[int], BlockFile]
"""Opens a new file that is clean up to a tombstone."""


def expire(connection: sqlite3.Connection, tenant: TenantId, before_us: int, *, rollups: bool) -> int:
    """Removes the rows of blocks, of readings or of rollups, that end before a time. Returns the readings."""
    with transaction(connection):
        return _drop_blocks(
            connection,
            f"tenant = ? AND max_time_us < ? AND ({reading.ROLLUPS}) = ?",
            (tenant, before_us, rollups),
        )


class Buried:
    """What this process has buried, and up to which tombstone of the catalog it knows them all."""

    def __init__(self) -> None:
        self._known: set[tuple[bytes, bytes]] = set()
        self.known_to = 0
        """Of tombstones up to this number nothing comes in through this process any more."""

    def bury(
        self,
        connection: sqlite3.Connection,
        tenants: Collection[TenantId],
        devices: Collection[tuple[TenantId, bytes]],
    ) -> int:
        """Notes tombstones; of the new ones, removes what SQL alone can. Returns how many were new."""
        new = removed = 0
        asked = {*((tenant, b"") for tenant in tenants), *devices}
        with transaction(connection):
            for tenant, device in asked:
                cursor = connection.execute(
                    "INSERT OR IGNORE INTO tombstones (tenant, device) VALUES (?, ?)", (tenant, device)
                )
                new += cursor.rowcount
                if device:
                    cursor = connection.execute(
                        "DELETE FROM series WHERE tenant = ? AND device = ?", (tenant, device)
                    )
                else:  # also when it is noted already: a process that did not know may have stored more since
                    cursor = connection.execute("DELETE FROM series WHERE tenant = ?", (tenant,))
                    _drop_blocks(connection, "tenant = ?", (tenant,))
                removed += cursor.rowcount
            if tenants:
                _drop_unused_sets(connection)
        _scrub(connection, something=removed > 0)
        self._known |= asked
        for seq, tenant, device in connection.execute(
            "SELECT seq, tenant, device FROM tombstones WHERE seq > ? ORDER BY seq", (self.known_to,)
        ).fetchall():
            if (tenant, device) not in self._known:
                break
            self.known_to = seq
        return new


def _drop_unused_sets(connection: sqlite3.Connection) -> None:
    """Forgets the names of metrics that no block and no series has any more."""
    used = {
        number
        for (sets,) in connection.execute("SELECT DISTINCT sets FROM blocks")
        for number in sets.split(" ")
    }
    used |= {str(number) for (number,) in connection.execute("SELECT DISTINCT set_id FROM series")}
    numbers = [number for (number,) in connection.execute("SELECT set_id FROM metric_sets")]
    unused = [(number,) for number in numbers if str(number) not in used]
    connection.executemany("DELETE FROM metric_sets WHERE set_id = ?", unused)


def _scrub(connection: sqlite3.Connection, *, something: bool) -> None:
    """Unless nothing was removed now, nor by a process that was killed before it had done this."""
    newest = last_tombstone(connection)
    (done,) = connection.execute("SELECT coalesce(max(seq), 0) FROM scrubbed").fetchone()
    if something or done < newest:
        rewrite(connection, schema.TABLES, ("series", "metric_sets"))
        with transaction(connection):
            connection.execute("DELETE FROM scrubbed")
            connection.execute("INSERT INTO scrubbed VALUES (?)", (newest,))
    leave_log(connection)


def last_tombstone(connection: sqlite3.Connection) -> int:
    """Number of the newest tombstone; 0: none."""
    return int(connection.execute("SELECT coalesce(max(seq), 0) FROM tombstones").fetchone()[0])


def unclean(connection: sqlite3.Connection, file_id: int) -> bool:
    """Whether a file may hold something buried."""
    row = connection.execute("SELECT clean_seq FROM files WHERE file_id = ?", (file_id,)).fetchone()
    return row is not None and row[0] < last_tombstone(connection)


def sweep(connection: sqlite3.Connection, directory: Path, new_file: NewFile) -> int:
    """Goes through the files at rest. Returns the readings removed. SweepPutOff while a backup copies them."""
    with may_sweep(directory.parent) as may:
        if not may:
            raise SweepPutOff
        return _sweep_files(connection, directory, new_file)


def _sweep_files(connection: sqlite3.Connection, directory: Path, new_file: NewFile) -> int:
    removed = 0
    for file_id in file_ids(directory):
        with at_rest(directory, file_id) as fd:
            if fd is not None:
                removed += _sweep_file(connection, directory, file_id, fd, new_file)
    with transaction(connection):
        on_disk = set(file_ids(directory))
        for (file_id,) in connection.execute("SELECT file_id FROM files").fetchall():
            if file_id not in on_disk and not _has_blocks(connection, file_id):
                connection.execute("DELETE FROM files WHERE file_id = ?", (file_id,))
    return removed


def _sweep_file(
    connection: sqlite3.Connection, directory: Path, file_id: int, fd: int, new_file: NewFile
) -> int:
    row = connection.execute("SELECT clean_seq FROM files WHERE file_id = ?", (file_id,)).fetchone() or (0,)
    end, live = connection.execute(
        "SELECT max(position + length), sum(length) FROM blocks WHERE file_id = ?", (file_id,)
    ).fetchone()
    if end is None:
        path_of(directory, file_id).unlink(missing_ok=True)
        sync_directory(directory)
        return 0
    if os.fstat(fd).st_size > end:
        os.ftruncate(fd, end)  # a torn flush, which no row names
    clean_to = last_tombstone(connection)
    if row[0] >= clean_to and live >= end * _WORTH_REWRITING:
        return 0
    blocks = reading.blocks_of_file(connection, file_id)
    changed: dict[int, Block | None] = {}
    if row[0] < clean_to:
        found = _without_buried(connection, directory, file_id, blocks, row[0])
        if found is None:
            return 0  # the objects go first
        changed = found
        if not changed and live == end:  # between live blocks there may be dead ones of whom was buried
            with transaction(connection):
                connection.execute("UPDATE files SET clean_seq = ? WHERE file_id = ?", (clean_to, file_id))
            return 0
    return _rewrite(connection, directory, file_id, blocks, changed, new_file(clean_to))


def _without_buried(
    connection: sqlite3.Connection, directory: Path, file_id: int, blocks: list[StoredBlock], since: int
) -> dict[int, Block | None] | None:
    """Block id → the block without the devices buried since a tombstone (None: nothing is left).

    None: an object of the cold tier still holds one of them; such blocks lie in files of their own.
    """
    buried: dict[bytes, set[bytes]] = {}
    for tenant, device in connection.execute("SELECT tenant, device FROM tombstones WHERE seq > ?", (since,)):
        buried.setdefault(tenant, set()).add(device)
    changed: dict[int, Block | None] = {}
    for block in blocks:
        devices = buried.get(block.key.tenant)
        if devices is None:
            continue
        token = _token(block)
        (data,) = read_pieces(directory, file_id, [(token.position, token.length)])
        try:
            if block.key.level == COLD_BLOCK:
                if ColdDirectory(data).holds(devices):
                    return None
                continue
            held, without = without_devices(data, devices)
        except BlockDamaged:
            continue  # the ledger says so; what cannot be read cannot be answered either
        if held:
            changed[token.block_id] = without
    return changed


def _rewrite(
    connection: sqlite3.Connection,
    directory: Path,
    file_id: int,
    blocks: list[StoredBlock],
    changed: dict[int, Block | None],
    target: BlockFile,
) -> int:
    """Copies what stays into a new file, moves the rows there, and removes the old file."""
    try:
        pieces: list[bytes] = []
        kept: list[StoredBlock] = []
        for block in blocks:
            token = _token(block)
            replacement = changed.get(token.block_id)
            if replacement is not None:
                pieces.append(replacement.data)
            elif token.block_id not in changed:
                pieces += read_pieces(directory, file_id, [(token.position, token.length)])
            else:
                continue
            kept.append(block)
        positions = target.append(pieces)
        removed = 0
        with transaction(connection):
            for block, position, data in zip(kept, positions, pieces, strict=True):
                removed += _move(
                    connection, block, changed.get(_token(block).block_id), target.file_id, position, data
                )
            for block_id, replacement in changed.items():
                if replacement is None:
                    removed += _drop_blocks(connection, "block_id = ? AND file_id = ?", (block_id, file_id))
    finally:
        target.close()
    path_of(directory, file_id).unlink(missing_ok=True)
    sync_directory(directory)
    with transaction(connection):
        if not _has_blocks(connection, file_id):
            connection.execute("DELETE FROM files WHERE file_id = ?", (file_id,))
    return removed


def _move(
    connection: sqlite3.Connection,
    block: StoredBlock,
    replacement: Block | None,
    file_id: int,
    position: int,
    data: bytes,
) -> int:
    token = _token(block)
    facts = replacement.facts if replacement is not None else block.facts
    cursor = connection.execute(
        "UPDATE blocks SET file_id = ?, position = ?, length = ?, rows = ?, readings = ?, min_time_us = ?, "
        "max_time_us = ?, head_bytes = ? WHERE block_id = ? AND file_id = ?",
        (
            file_id,
            position,
            len(data),
            facts.rows,
            facts.readings,
            facts.min_time_us,
            facts.max_time_us,
            replacement.head_bytes if replacement is not None else block.head_bytes,
            token.block_id,
            token.file_id,  # unless another process has sealed it meanwhile; a later block may have its id by then
        ),
    )
    removed = block.facts.readings - facts.readings
    if cursor.rowcount == 0 or replacement is None:
        return 0
    connection.execute(
        "UPDATE ledger SET purged = purged + ?, bytes = bytes + ? WHERE tenant = ? AND hour_us = ?",
        (removed, len(data) - token.length, block.key.tenant, block.facts.hour_us),
    )
    return removed


def _drop_blocks(connection: sqlite3.Connection, where: str, values: tuple[object, ...]) -> int:
    """Deletes block rows, and accounts for them in the ledger and in their epochs."""
    rows = connection.execute(
        f"DELETE FROM blocks WHERE {where} RETURNING tenant, hour_us, readings, length, incarnation, partition, epoch",  # noqa: S608
        values,
    ).fetchall()
    connection.executemany(
        "UPDATE ledger SET purged = purged + ?, bytes = bytes - ? WHERE tenant = ? AND hour_us = ?",
        [(readings, length, tenant, hour) for tenant, hour, readings, length, *_ in rows],
    )
    connection.executemany(
        "UPDATE epochs SET blocks = blocks - 1, readings = readings - ? "
        "WHERE incarnation = ? AND partition = ? AND epoch = ?",
        [(row[2], *row[4:]) for row in rows],
    )
    return sum(row[2] for row in rows)


def _has_blocks(connection: sqlite3.Connection, file_id: int) -> bool:
    return (
        connection.execute("SELECT 1 FROM blocks WHERE file_id = ? LIMIT 1", (file_id,)).fetchone()
        is not None
    )


def _token(block: StoredBlock) -> reading.Token:
    assert isinstance(block.token, reading.Token)
    return block.token
