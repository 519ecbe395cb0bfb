"""The loss ledger's other half: counting what is really there, by the catalog's rows and by the files' own headers.

A row that vanished is not counted, nor is a row whose bytes are not in the file (any more). Of a file seen for the
first time the headers are read, of one that has changed since every byte, of one that has not nothing.
"""

import sqlite3
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tidewire_kit.ids import TenantId
from tidewire_storage.adapters.embedded.files import path_of, read_pieces
from tidewire_storage.domain.block_format import verified
from tidewire_storage.domain.block_header import HEADER_BYTES, BlockDamaged, BlockHeader
from tidewire_storage.ports import LedgerAccount, LedgerLine

_PIECES = 64
_SNAPSHOTS = 3

_Present = Counter[tuple[bytes, int]]
"""(tenant, hour) → readings."""


@dataclass(frozen=True, slots=True)
class _FileState:
    """What was found in a file, and by what it is known to be unchanged."""

    facts: tuple[int, int, int]
    """Size, time of change, inode."""
    rows: tuple[int, int]
    """Number of its blocks in the catalog, and the sum of their ids."""
    present: _Present


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

    def difference(self, connection: sqlite3.Connection) -> int:
        """What the whole ledger counts less what is there."""
        found = 0
        for _ in range(_SNAPSHOTS):
            connection.execute("BEGIN")
            try:
                (expected,) = connection.execute(
                    "SELECT coalesce(sum(accepted - duplicate - dead_lettered - purged), 0) FROM ledger"
                ).fetchone()
                present, missing = self._present(connection)
            finally:
                connection.execute("COMMIT")
            found = expected - present.total()
            if not missing:
                break
        return found

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
            present, missing = self._present(connection)
        finally:
            connection.execute("COMMIT")
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
            if start_us <= hour < end_us and tenant in (None, owner):
                lines.append(LedgerLine((TenantId(owner), hour), 0, 0, 0, 0, 0, readings))
        return lines, missing

    def _present(self, connection: sqlite3.Connection) -> tuple[_Present, bool]:
        """Returns what is there of all tenants, and whether a whole file is missing."""
        total: _Present = Counter()
        missing = False
        files: dict[int, _FileState] = {}
        for file_id, count, sum_of_ids in connection.execute(
            "SELECT file_id, count(*), sum(block_id) FROM blocks GROUP BY file_id"
        ).fetchall():
            state = self._files.get(file_id)
            try:
                stat = path_of(self._directory, file_id).stat()
                facts = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
                if state is None or state.facts != facts or state.rows != (count, sum_of_ids):
                    whole = state is not None and state.facts != facts
                    present = self._count_file(connection, file_id, stat.st_size, whole=whole)
                    state = _FileState(facts, (count, sum_of_ids), present)
            except FileNotFoundError:
                missing = True
                continue
            files[file_id] = state
            total.update(state.present)
        self._files = files
        return total, missing

    def _count_file(
        self, connection: sqlite3.Connection, file_id: int, size: int, *, whole: bool
    ) -> _Present:
        rows = connection.execute(
            "SELECT position, length, readings, tenant, hour_us FROM blocks WHERE file_id = ? ORDER BY position",
            (file_id,),
        ).fetchall()
        present: _Present = Counter()
        for first in range(0, len(rows), _PIECES):
            some = rows[first : first + _PIECES]
            places = [(row[0], row[1] if whole else HEADER_BYTES) for row in some]
            pieces = read_pieces(self._directory, file_id, places)
            for (position, length, readings, tenant, hour_us), data in zip(some, pieces, strict=True):
                if position + length <= size and _is_there(data, length, readings, tenant):
                    present[tenant, hour_us] += readings
        return present


def _is_there(data: bytes, length: int, readings: int, tenant: bytes) -> bool:
    try:
        header = verified(data) if len(data) > HEADER_BYTES else BlockHeader(data)
    except BlockDamaged:
        return False
    return (header.total_bytes, header.readings, header.key.tenant) == (length, readings, tenant)
