"""A keyspace per module, a session per test. The tables: a pair of heads for the journal, and rows of two shapes."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tidewire_kit.cassandra import CassandraSession, CassandraSettings
from tidewire_testkit.cassandra import connected, fresh_keyspace

HEADS = """
CREATE TABLE heads (unit blob PRIMARY KEY, version bigint, recent blob, state blob, body blob, chunks int,
                    applied bigint)
"""
CHUNKS = """
CREATE TABLE heads_chunks (unit blob, version bigint, entry blob, chunk int, body blob,
                           PRIMARY KEY (unit, version, entry, chunk))
"""
ROWS = "CREATE TABLE rows (part blob, id int, value blob, PRIMARY KEY (part, id))"
TABLES = (HEADS, CHUNKS, ROWS)


@pytest.fixture(scope="module")
def keyspace(cassandra_contact_points: str) -> Iterator[CassandraSettings]:
    with fresh_keyspace(cassandra_contact_points, cql=TABLES) as settings:
        yield settings


@pytest.fixture
async def session(keyspace: CassandraSettings) -> AsyncIterator[CassandraSession]:
    async with connected(keyspace) as session:
        yield session
