"""The Cassandra store: blocks as big rows, and a catalog whose commits are atomic by one conditional write each."""

from pathlib import Path

from tidewire_storage.adapters.cassandra.events import CassandraEventStore
from tidewire_storage.adapters.cassandra.store import CassandraStore

SCHEMA_DIRECTORY = Path(__file__).with_name("schema")
"""Schema steps and their outcome."""

__all__ = ["SCHEMA_DIRECTORY", "CassandraEventStore", "CassandraStore"]
