"""Page sizes and page tokens (AIP-158).

A token holds where the next page starts and a hash of the list's other arguments, so that it only continues that list.
It grants nothing: whoever sends it is checked as for the first page.
"""

import base64
import binascii
import hashlib

from tidewire_kit.errors import InvalidArgument

DEFAULT_PAGE_SIZE = 100
MAX_RESPONSE_BYTES = 3_500_000
"""A page ends before it gets larger, since a message has at most 4 MiB."""
_VERSION = b"\x01"


def page_size(asked: int, maximum: int) -> int:
    """Entries of a page: 0 → 100, above the maximum → the maximum. InvalidArgument when negative."""
    if asked < 0:
        raise InvalidArgument("page_size", f"is {asked}; give 0 (default) or more")
    return min(asked or DEFAULT_PAGE_SIZE, maximum)


def page_token(after: str, *arguments: str) -> str:
    """The token of the page that follows `after` of the list with these other arguments."""
    return base64.urlsafe_b64encode(_VERSION + _hash(arguments) + after.encode()).decode().rstrip("=")


def page_start(token: str, *arguments: str) -> str:
    """What the page follows; empty for the first. InvalidArgument for a token of another list, or none of ours."""
    if not token:
        return ""
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        after = data[9:].decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        data, after = b"", ""
    if data[:1] != _VERSION or not after:
        raise InvalidArgument("page_token", "is not a token that this list gave; start without one")
    if data[1:9] != _hash(arguments):
        raise InvalidArgument(
            "page_token", "is of a list with other arguments; repeat these, or start without it"
        )
    return after


def _hash(arguments: tuple[str, ...]) -> bytes:
    return hashlib.blake2b("\x00".join(arguments).encode(), digest_size=8).digest()
