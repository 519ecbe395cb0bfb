"""What a commit writes, as rows: made by `writes`, kept in the journal, carried out once or several times by `apply`.

The form is self-describing (tables and columns by name), so that a newer program can complete what an older one left.
Carrying it out again changes nothing: every row has the commit's timestamp, so what later commits wrote stays.
"""

import asyncio
import json
import zlib
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import batched
from typing import Any

from tidewire_kit.cassandra import CassandraSession
from tidewire_kit.errors import FailedPrecondition
from tidewire_kit.ids import TenantId, Uid
from tidewire_registry.adapters.cassandra.rows import Row
from tidewire_registry.domain.changes import Kind

PARTITION_COLUMNS = {
    "registry_tenants": 1,
    "registry_devices": 2,
    "registry_descendants": 2,
    "registry_credentials": 2,
    "registry_device_credentials": 2,
    "registry_tombstones": 2,
    "registry_tenant_tombstones": 1,
    "registry_purges": 1,
    "registry_replays": 2,
}
"""Tables that a commit may write, and how many of their first columns are the partition key."""

ROWS_PER_BATCH = 100
"""Rows of one partition that are written at once and become visible together."""

_BLOBS = frozenset({"tenant", "uid", "device_uid", "ancestor", "ancestors", "fingerprint", "object_uids"})
_FORMAT = 1


class Mode(StrEnum):
    """What is done with rows."""

    INSERT = "insert"
    """They are new: None is left out, as writing it would leave a deletion mark in each row."""
    REPLACE = "replace"
    """None empties the column."""
    DELETE = "delete"
    """The columns are the key."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one table."""

    table: str
    columns: Sequence[str]
    rows: Sequence[Row]
    mode: Mode


Noted = tuple[Kind, str, Uid, int]
"""Kind, id, uid and revision of an object that is unpublished."""


@dataclass(slots=True)
class CommitPlan:
    """A whole commit."""

    tenant: TenantId
    period: int
    """Under which the notes lie; see `notes`."""
    rows: list[Rows] = field(default_factory=list)
    noted: list[Noted] = field(default_factory=list)
    freed_name: str = ""
    """Id of the tenant, when the commit deletes it."""

    def encode(self) -> bytes:
        """As kept in the journal."""
        content = {
            "format": _FORMAT,
            "tenant": self.tenant.hex(),
            "period": self.period,
            "rows": [
                {"table": r.table, "columns": r.columns, "mode": r.mode, "rows": _packed(r)}
                for r in self.rows
                if r.rows
            ],
            "noted": [(kind, id_, uid.hex(), revision) for kind, id_, uid, revision in self.noted],
            "freed_name": self.freed_name,
        }
        return zlib.compress(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(), 1)


def decode(payload: bytes) -> CommitPlan:
    """The plan of `encode`'s bytes. FailedPrecondition when a newer program wrote them."""
    content = json.loads(zlib.decompress(payload))
    if content["format"] > _FORMAT:
        why = "a newer registry has left an unfinished commit in Cassandra; run a registry of that version"
        raise FailedPrecondition(why, reason="FORMAT_NEWER", subject="registry_heads")
    return CommitPlan(
        TenantId(bytes.fromhex(content["tenant"])),
        content["period"],
        [_unpacked(r["table"], r["columns"], r["rows"], Mode(r["mode"])) for r in content["rows"]],
        [
            (Kind(kind), id_, Uid(bytes.fromhex(uid)), revision)
            for kind, id_, uid, revision in content["noted"]
        ],
        content["freed_name"],
    )


def _packed(rows: Rows) -> list[list[Any]]:
    blobs = [column in _BLOBS for column in rows.columns]
    return [
        [v.hex() if b and v is not None else v for v, b in zip(row, blobs, strict=True)] for row in rows.rows
    ]


def _unpacked(table: str, columns: list[str], rows: list[list[Any]], mode: Mode) -> Rows:
    if table not in PARTITION_COLUMNS:
        raise ValueError(f"{table} is no table of the registry")
    blobs = [column in _BLOBS for column in columns]
    made = [
        tuple(bytes.fromhex(v) if b and v is not None else v for v, b in zip(row, blobs, strict=True))
        for row in rows
    ]
    return Rows(table, columns, made, mode)


async def write_rows(session: CassandraSession, rows: Rows, timestamp: int) -> None:
    """Writes rows with a timestamp in µs, those of one partition together."""
    if rows.mode is not Mode.INSERT:
        await _write(session, rows, timestamp)
        return
    given: dict[tuple[bool, ...], list[Row]] = {}
    for row in rows.rows:
        given.setdefault(tuple(value is not None for value in row), []).append(row)
    await together(
        _write(
            session,
            Rows(rows.table, _chosen(rows.columns, which), [_chosen(r, which) for r in some], rows.mode),
            timestamp,
        )
        for which, some in given.items()
    )


def _chosen(values: Sequence[Any], which: Sequence[bool]) -> Row:
    return tuple(value for value, chosen in zip(values, which, strict=True) if chosen)


async def _write(session: CassandraSession, rows: Rows, timestamp: int) -> None:
    if rows.mode is Mode.DELETE:
        where = " AND ".join(f"{column} = ?" for column in rows.columns)
        prepared = await session.prepare(f"DELETE FROM {rows.table} USING TIMESTAMP ? WHERE {where}")  # noqa: S608
        values: Iterator[Row] = ((timestamp, *row) for row in rows.rows)
    else:
        columns, marks = ", ".join(rows.columns), ", ".join("?" * len(rows.columns))
        prepared = await session.prepare(
            f"INSERT INTO {rows.table} ({columns}) VALUES ({marks}) USING TIMESTAMP ?"  # noqa: S608
        )
        values = ((*row, timestamp) for row in rows.rows)
    width = PARTITION_COLUMNS.get(rows.table, 1)
    partitions: dict[Row, list[Row]] = {}
    for row, value in zip(rows.rows, values, strict=True):
        partitions.setdefault(row[:width], []).append(value)
    await together(
        session.batch([(prepared, value) for value in some])
        for partition in partitions.values()
        for some in batched(partition, ROWS_PER_BATCH)
    )


async def together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Does all at once and waits for all, also when one fails; then raises the first error."""
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
