"""A keyspace per module, a session per test. The tables: a pair of heads for the journal, and rows of two shapes."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from tidewire_kit.cassandra import CassandraSession, CassandraSettings
from tidewire_testkit import journal_model
from tidewire_testkit.cassandra import connected, fresh_keyspace


@pytest.fixture(scope="module")
def keyspace(cassandra_contact_points: str) -> Iterator[CassandraSettings]:
    with fresh_keyspace(cassandra_contact_points, cql=journal_model.TABLES) as settings:
        # Generous: nothing here is about what happens when a busy machine takes its time.
        yield replace(settings, request_timeout_seconds=40)


@pytest.fixture
async def session(keyspace: CassandraSettings) -> AsyncIterator[CassandraSession]:
    async with connected(keyspace) as session:
        yield session
