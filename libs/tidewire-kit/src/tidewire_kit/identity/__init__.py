"""Identity: who calls (`Caller`, `Role`), how tokens are verified, and how the registry signs them."""

from tidewire_kit.identity.caller import USER_ROLES, Caller, Role, publisher_uid_of

__all__ = ["USER_ROLES", "Caller", "Role", "publisher_uid_of"]
