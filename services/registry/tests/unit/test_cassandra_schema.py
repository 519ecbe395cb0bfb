"""The registry's tables in Cassandra."""

import pytest

from tidewire_registry.adapters.cassandra.plan import PARTITION_COLUMNS
from tidewire_registry.adapters.cassandra.schema import SCHEMA
from tidewire_testkit.cassandra import assert_steps_make_snapshot


def test_steps_are_in_the_manifest_and_make_the_tables_that_commits_write() -> None:
    statements = " ".join(statement for step in SCHEMA.steps() for statement in step.statements)
    for table in PARTITION_COLUMNS:
        assert f"CREATE TABLE IF NOT EXISTS {table} " in statements


@pytest.mark.servers
async def test_the_steps_make_the_snapshot(cassandra_contact_points: str) -> None:
    await assert_steps_make_snapshot(cassandra_contact_points, SCHEMA)
