"""The store of the embedded backend: SQLite in the data directory, for one registry process on one machine.

store       EmbeddedStore, the port's methods
writes      applying a WriteSet
rows        rows ↔ objects
queries     a filter's condition → SQL, with a plan that an index serves
database    the schema and its version; connections, their threads, group commit
"""

from tidewire_registry.adapters.embedded.store import EmbeddedStore

__all__ = ["EmbeddedStore"]
"""Opens with `EmbeddedStore(directory, clock)`; then `await store.start()`."""
