"""The Cassandra store: the RegistryStore of the distributed backend.

store        the port's methods
writes       a WriteSet on top of a settled tenant → what must hold, and the rows
plan         the rows of a commit: kept in the journal, carried out
claims       tenants' names and CreateTenant requests, unique across tenants
reads        by key
queries      lists and counts by a filter
notes        what is unpublished, as notes
publishing   what is unpublished, as objects
purging      removing deleted tenants for ever
rows         rows ↔ objects, and where they lie
schema       the tables
"""

from tidewire_registry.adapters.cassandra.store import CassandraStore

__all__ = ["CassandraStore"]
