"""What a tenant is told of a mistake in a condition: where it is, what it is, and what to write instead.

Every module here that reads text raises through `Source`, so that all messages look alike.
"""

import difflib
from collections.abc import Iterable

from tidewire_kit.errors import InvalidArgument


class Source:
    """A condition's text, and the name of the request's field that it came in."""

    __slots__ = ("field", "text")

    def __init__(self, text: str, field: str) -> None:
        self.text = text
        self.field = field

    def fail(self, position: int, why: str) -> InvalidArgument:
        """The error for something at a position, counted from 0; people are told line and column, counted from 1."""
        before = self.text[:position]
        line = before.count("\n") + 1
        column = position - before.rfind("\n")
        error = InvalidArgument(
            self.field, f"line {line}, column {column}: {why}", reason="CONDITION_INVALID"
        )
        error.metadata.update(line=str(line), column=str(column))
        return error


def alike(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` when a known word is spelled nearly so, else nothing."""
    close = difflib.get_close_matches(word[:64], known, n=3, cutoff=0.7)
    return f"; did you mean {' or '.join(f'`{match}`' for match in close)}?" if close else ""


def shown(text: str) -> str:
    """A tenant's text, short enough for a message."""
    return repr(text if len(text) <= 40 else text[:40] + "…")
