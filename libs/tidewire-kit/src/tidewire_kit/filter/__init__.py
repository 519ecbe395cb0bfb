"""AIP-160 filters over devices: text → a small tree of conditions, which select devices.

    parse(text, tenant_id) -> Condition      raises InvalidArgument("filter", ...) with the position

The registry's store turns the tree (`conditions`) into queries; whoever holds a replica of the registry's topic asks it
of the devices there (`evaluation`). Either way it means the same.
"""

from tidewire_kit.filter.conditions import Condition
from tidewire_kit.filter.parser import parse

__all__ = ["Condition", "parse"]
