"""The loss ledger's other half: counting what is really there, by the catalog's rows and by the files' own headers.

A row that vanished is not counted, nor is a row whose bytes are not in the file (any more). Of a file seen for the
first time the headers are read, of one that has changed since every byte, of one that has not nothing.
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from tidewire_kit.ids import TenantId
from tidewire_storage.adapters.embedded.files import path_of, read_pieces
from tidewire_storage.domain.block_format import HEADER_BYTES, BlockDamaged, BlockHeader
from tidewire_storage.ports import LedgerAccount, LedgerLine

_PIECES = 64
_SNAPSHOTS = 3


@dataclass(slots=True)
class _FileState:
    size: int
    mtime_ns: int
    inode: int
    known: bool
    """It was seen before, with other facts."""
    verified_to: int
    """Block ids up to this one were verified in this state."""
    bad: set[int]


class Recount:
    """Verifies block files and keeps what it found. One per process; used by one thread at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[int, _FileState] = {}

    def account(
        self, connection: sqlite3.Connection, tenant: TenantId | None, start_us: int, end_us: int
    ) -> LedgerAccount:
        """The ledger and, from the same snapshot of the catalog, the readings that are present."""
        for _ in range(_SNAPSHOTS - 1):
            lines, missing = self._snapshot(connection, tenant, start_us, end_us)
            if not missing:
                break  # files that vanished meanwhile were rewritten; then the next snapshot names others
        else:
            lines, _ = self._snapshot(connection, tenant, start_us, end_us)
        return LedgerAccount(sorted(lines, key=lambda line: (line.key[1], line.key[0])))

    def _snapshot(
        self, connection: sqlite3.Connection, tenant: TenantId | None, start_us: int, end_us: int
    ) -> tuple[list[LedgerLine], bool]:
        connection.execute("BEGIN")
        try:
            rows = connection.execute(
                "SELECT tenant, hour_us, accepted, stored, duplicate, dead_lettered, purged FROM ledger "
                "WHERE (tenant = ? OR ? IS NULL) AND hour_us >= ? AND hour_us < ?",
                (tenant, tenant, start_us, end_us),
            ).fetchall()
            present = {
                (owner, hour): readings
                for owner, hour, readings in connection.execute(
                    "SELECT tenant, hour_us, sum(readings) FROM blocks WHERE (tenant = ? OR ? IS NULL) "
                    "AND hour_us >= ? AND hour_us < ? GROUP BY tenant, hour_us",
                    (tenant, tenant, start_us, end_us),
                )
            }
            bad, missing = self._verify(connection)
        finally:
            connection.execute("COMMIT")
        for owner, hour, readings in bad:
            if (owner, hour) in present:
                present[owner, hour] -= readings
        lines = [
            LedgerLine(
                key=(TenantId(owner), hour),
                accepted=accepted,
                stored=stored,
                duplicate=duplicate,
                dead_lettered=dead,
                purged=purged,
                present=present.pop((owner, hour), 0),
            )
            for owner, hour, accepted, stored, duplicate, dead, purged in rows
        ]
        for (owner, hour), readings in present.items():  # blocks that nobody has accounted for
            lines.append(LedgerLine((TenantId(owner), hour), 0, 0, 0, 0, 0, readings))
        return lines, missing

    def _verify(self, connection: sqlite3.Connection) -> tuple[list[tuple[bytes, int, int]], bool]:
        """Returns (tenant, hour, readings) of the blocks that are not there, and whether a whole file is missing."""
        bad: list[tuple[bytes, int, int]] = []
        missing = False
        named = connection.execute("SELECT file_id, max(block_id) FROM blocks GROUP BY file_id").fetchall()
        for file_id in set(self._files) - {file_id for file_id, _ in named}:
            del self._files[file_id]
        for file_id, last_block in named:
            try:
                facts = path_of(self._directory, file_id).stat()
            except FileNotFoundError:
                missing = True
                self._files.pop(file_id, None)
                bad += connection.execute(
                    "SELECT tenant, hour_us, readings FROM blocks WHERE file_id = ?", (file_id,)
                )
                continue
            state = self._files.get(file_id)
            now = (facts.st_size, facts.st_mtime_ns, facts.st_ino)
            if state is None or (state.size, state.mtime_ns, state.inode) != now:
                state = self._files[file_id] = _FileState(*now, state is not None, 0, set())
            if state.verified_to < last_block:
                self._verify_file(connection, file_id, state)
                state.verified_to = last_block
            for block_id in state.bad:
                bad += connection.execute(
                    "SELECT tenant, hour_us, readings FROM blocks WHERE block_id = ? AND file_id = ?",
                    (block_id, file_id),
                )
        return bad, missing

    def _verify_file(self, connection: sqlite3.Connection, file_id: int, state: _FileState) -> None:
        rows = connection.execute(
            "SELECT block_id, position, length, readings, tenant FROM blocks WHERE file_id = ? AND block_id > ? "
            "ORDER BY position",
            (file_id, state.verified_to),
        ).fetchall()
        for first in range(0, len(rows), _PIECES):
            some = rows[first : first + _PIECES]
            places = [(row[1], row[2] if state.known else HEADER_BYTES) for row in some]
            pieces = read_pieces(self._directory, file_id, places)
            for (block_id, position, length, readings, tenant), data in zip(some, pieces, strict=True):
                there = position + length <= state.size and _is_there(data, length, readings, tenant)
                if not there:
                    state.bad.add(block_id)


def _is_there(data: bytes, length: int, readings: int, tenant: bytes) -> bool:
    try:
        header = BlockHeader(data)
        if len(data) > HEADER_BYTES:
            header.verify(data)
    except BlockDamaged:
        return False
    return (header.total_bytes, header.readings, header.key.tenant) == (length, readings, tenant)
