"""Statements, and the mutations that a commit is made of.

A mutation is (name, values): the name of a statement below and what fills it, without the write timestamp. Mutations of
a commit are stored as its entry, and carried out by whoever completes it, all with the commit's version as timestamp.
"""

import asyncio
import base64
import json
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any

import zstandard

from tidewire_kit.cassandra import CassandraSession, Prepared, Row

type Mutation = tuple[str, tuple[Any, ...]]
"""Name of a statement, and its values. Values: int, str, bool, bytes or None."""

PLACE = ("incarnation", "log_partition")
FACTS = (
    "end_offset", "hour_us", "row_count", "readings", "length", "chunks", "attempt", "expires_us", "metric_sets",
    "block_level", "head_bytes",
)  # fmt: skip
"""Columns that both tables of blocks have besides their keys and times."""
COUNTS = ("accepted", "stored", "duplicate", "dead_lettered", "purged", "bytes")
CATALOG_KEY = (
    "tenant", *PLACE, "day", "level", "min_time_us", "max_time_us", "epoch", "first_offset", "slice",
)  # fmt: skip
EPOCH_BLOCK_KEY = (*PLACE, "epoch", "first_offset", "tenant", "slice")
BYTES_KEY = ("tenant", *PLACE, "slice", "epoch", "first_offset", "end_offset", "attempt")

_DAY_US = 86_400_000_000
_BATCH = 64


def select(table: str, columns: Sequence[str], key: Sequence[str], rest: str = "") -> str:
    """SELECT by equality of the key's columns. Names come from this package, never from outside."""
    return f"SELECT {', '.join(columns)} FROM {table} WHERE {_equal(key)} {rest}"  # noqa: S608


def insert(table: str, columns: Sequence[str], rest: str = "") -> str:
    """INSERT of a row."""
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) {rest}"  # noqa: S608


def delete(table: str, key: Sequence[str], rest: str = "") -> str:
    """DELETE with a write timestamp, which is the first value."""
    return f"DELETE FROM {table} USING TIMESTAMP ? WHERE {_equal(key)} {rest}"  # noqa: S608


def _equal(columns: Sequence[str]) -> str:
    return " AND ".join(f"{column} = ?" for column in columns)


def _insert(table: str, *columns: str) -> str:
    return insert(table, columns, "USING TIMESTAMP ?")


_PUT = {
    "catalog": (4, _insert("storage_catalog", *CATALOG_KEY, *FACTS)),
    "epoch_block": (
        3,
        _insert("storage_epoch_blocks", *EPOCH_BLOCK_KEY, "min_time_us", "max_time_us", *FACTS),
    ),
    "day": (
        1,
        _insert("storage_days", "tenant", *PLACE, "day", "level", "min_time_us", "max_time_us", "expires_us", "blocks"),
    ),
    "epoch": (
        2,
        _insert(
            "storage_epochs", *PLACE, "epoch", "first_offset", "covered_offset", "end_offset", "hour_us",
            "gathered_bytes", "blocks", "readings", "sealed", "merged", "changed",
        ),
    ),
    "last_seal": (2, _insert("storage_epochs", *PLACE, "last_seal")),
    "dedup": (2, _insert("storage_dedup", *PLACE, "end_offset", "newest_us", "segments", "segment_entries")),
    "ledger": (3, _insert("storage_ledger", "tenant", *PLACE, "hour_us", *COUNTS)),
    "usage": (2, _insert("storage_usage", *PLACE, "tenant", *COUNTS)),
}  # fmt: skip
_DROP = {
    "drop_catalog": (4, delete("storage_catalog", CATALOG_KEY)),
    "drop_epoch_block": (3, delete("storage_epoch_blocks", EPOCH_BLOCK_KEY)),
    "drop_day": (1, delete("storage_days", ("tenant", *PLACE, "day", "level"))),
    "drop_dedup": (2, delete("storage_dedup", PLACE, "AND end_offset <= ?")),
    "drop_bytes": (5, delete("storage_blocks", BYTES_KEY)),
}


class Tables:
    """The session, with statements by name and by text."""

    def __init__(self, session: CassandraSession) -> None:
        self.session = session
        self._mutations: dict[str, Prepared] = {}

    async def open(self) -> None:
        """Prepares what commits need."""
        for name, (_, cql) in (_PUT | _DROP).items():
            self._mutations[name] = await self.session.prepare(cql)

    async def rows(self, cql: str, *params: Any, **options: Any) -> list[Row]:
        """Executes a statement of text with question marks."""
        return await self.session.execute(await self.session.prepare(cql), params, **options)

    async def row(self, cql: str, *params: Any, **options: Any) -> Row | None:
        """The first row, or None."""
        rows = await self.rows(cql, *params, **options)
        return rows[0] if rows else None

    async def carry_out(self, mutations: Iterable[Mutation], version: int) -> None:
        """Writes all of them, those of one partition together, and removes nothing before all is written. Idempotent.

        So whoever reads meanwhile finds what replaces a block, or the block.
        """
        some = list(mutations)
        if any(name == "drop_catalog" for name, _ in some):
            await self._carry_out([item for item in some if item[0] in _PUT], version)
            some = [item for item in some if item[0] not in _PUT]
        await self._carry_out(some, version)

    async def _carry_out(self, mutations: Sequence[Mutation], version: int) -> None:
        batches: dict[tuple[str, tuple[Any, ...]], list[tuple[Prepared, tuple[Any, ...]]]] = {}
        for name, values in mutations:
            prepared = self._mutations[name]
            if name in _PUT:
                key_columns, cql = _PUT[name]
                bound = (*values, version)
            else:
                key_columns, cql = _DROP[name]
                # Bytes carry the wall time of whoever wrote them, which may be ahead; their key is never used again.
                bound = (version + _DAY_US if name == "drop_bytes" else version, *values)
            table = cql.split(" ")[2]
            batches.setdefault((table, values[:key_columns]), []).append((prepared, bound))
        await gather_all(self._write(batch) for batch in batches.values())

    async def _write(self, batch: list[tuple[Prepared, tuple[Any, ...]]]) -> None:
        for first in range(0, len(batch), _BATCH):
            some = batch[first : first + _BATCH]
            if len(some) == 1:
                await self.session.execute(*some[0])
            else:
                await self.session.batch(some)


async def gather_all[T](work: Iterable[Awaitable[T]]) -> list[T]:
    """Awaits all, also when one fails; then raises the first failure."""
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    done: list[T] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        done.append(outcome)
    return done


def encode_entry(mutations: Sequence[Mutation]) -> bytes:
    """A commit's mutations as bytes."""
    plain = [[name, [_plain(value) for value in values]] for name, values in mutations]
    return zstandard.compress(json.dumps(plain, separators=(",", ":")).encode(), 1)


def decode_entry(entry: bytes) -> list[Mutation]:
    """The reverse of `encode_entry`."""
    return [
        (name, tuple(base64.b64decode(value[0]) if isinstance(value, list) else value for value in values))
        for name, values in json.loads(zstandard.decompress(entry))
    ]


def _plain(value: Any) -> Any:
    return [base64.b64encode(value).decode()] if isinstance(value, bytes) else value
