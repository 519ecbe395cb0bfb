"""The names and limits of the platform's tokens, shared by who signs and who verifies."""

from typing import Final

ISSUER: Final = "tidewire"
AUDIENCE: Final = "tidewire"
LEEWAY_US: Final = 30_000_000
"""How far ahead of ours a signer's clock may be (`iat`, `nbf`). An expiry gets none: it is the signer's own limit."""
DEVICE_TOKEN_SECONDS: Final = 3600
"""Longest life of a token that a device signs."""
MAX_TOKEN_CHARACTERS: Final = 8192
