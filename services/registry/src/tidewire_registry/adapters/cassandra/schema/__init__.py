"""The registry's tables in Cassandra, as steps: applied by `tidewire schema apply`, checked by the store."""

from pathlib import Path

from tidewire_kit.cassandra.steps import SchemaSet

SCHEMA = SchemaSet("registry", Path(__file__).parent)
"""What this version knows."""
