"""The embedded store: block files and an SQLite catalog in the data directory. A product, not a stand-in.

One machine, several processes; each appends to block files of its own and all share the catalog.
"""

from tidewire_storage.adapters.embedded.events import EmbeddedEventStore
from tidewire_storage.adapters.embedded.store import EmbeddedStore

__all__ = ["EmbeddedEventStore", "EmbeddedStore"]
