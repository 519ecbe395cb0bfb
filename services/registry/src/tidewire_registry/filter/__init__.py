"""AIP-160 filters over devices: text → a small tree of conditions, which stores turn into queries.

    parse(text, tenant_id) -> Condition      raises InvalidArgument("filter", ...) with the position

Used by application.devices; the tree (`conditions`) is what the store port takes.
"""

from tidewire_registry.filter.conditions import Condition
from tidewire_registry.filter.parser import parse

__all__ = ["Condition", "parse"]
