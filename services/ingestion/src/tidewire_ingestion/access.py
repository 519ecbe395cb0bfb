"""Who may call what."""

from collections.abc import Mapping

from tidewire_kit.identity import Role

_PUBLISHERS = frozenset({Role.DEVICE, Role.OPERATOR, Role.TENANT_ADMIN})

ACCESS: Mapping[str, frozenset[Role]] = {
    # A device for itself and its descendants; people and programs of a tenant (imports, simulations) for all devices.
    "PublishTelemetry": _PUBLISHERS,
    "StreamTelemetry": _PUBLISHERS,
    "PublishEvents": _PUBLISHERS,
}
"""RPC → roles that may call it."""
