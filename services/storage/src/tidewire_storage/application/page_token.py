"""Page tokens: where the next page begins, bound to the question it belongs to. Opaque, and no authorisation."""

import base64
import binascii
from collections.abc import Sequence

import xxhash

from tidewire_kit.errors import InvalidArgument

_DIGEST_BYTES = 8


def make(question: Sequence[object], position: str) -> str:
    """A token for `position` in the answers to `question`."""
    raw = _digest(question) + position.encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def read(token: str, question: Sequence[object]) -> str:
    """The position in a token; "" for no token. InvalidArgument when it belongs to another question or is none."""
    if not token:
        return ""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        position = raw[_DIGEST_BYTES:].decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise InvalidArgument(
            "page_token", "is not a token; pass the next_page_token of the page before unchanged"
        ) from None
    if raw[:_DIGEST_BYTES] != _digest(question):
        raise InvalidArgument(
            "page_token",
            "was made for other arguments; repeat those of the page before, or begin without a token",
        )
    return position


def _digest(question: Sequence[object]) -> bytes:
    return xxhash.xxh3_64_digest(repr(tuple(question)).encode())
