"""Cassandra as the platform uses it: settings, session, schema steps, and commits over several rows.

Stores' Cassandra adapters build on `CassandraSession` (`session`), `Journal` (`journal`) and `schema`; composition
roots call `connect`. Importing this package imports the driver, so embedded processes do not.
"""

from tidewire_kit.cassandra.connecting import connect
from tidewire_kit.cassandra.errors import OUTCOME_UNKNOWN
from tidewire_kit.cassandra.session import Applied, CassandraSession, Consistency, Params, Prepared, Row
from tidewire_kit.cassandra.settings import CassandraSettings

__all__ = [
    "OUTCOME_UNKNOWN",
    "Applied",
    "CassandraSession",
    "CassandraSettings",
    "Consistency",
    "Params",
    "Prepared",
    "Row",
    "connect",
]
