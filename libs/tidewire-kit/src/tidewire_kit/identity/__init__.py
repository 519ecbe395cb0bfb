"""Identity: who calls (`Caller`, `Role`), how tokens are verified, and how the registry signs them."""

from tidewire_kit.identity.caller import USER_ROLES, Caller, Role, publisher_uid_of
from tidewire_kit.identity.signer import SignedToken, TokenSigner, key_id_of
from tidewire_kit.identity.verifier import TokenVerifier

__all__ = [
    "USER_ROLES",
    "Caller",
    "Role",
    "SignedToken",
    "TokenSigner",
    "TokenVerifier",
    "key_id_of",
    "publisher_uid_of",
]
