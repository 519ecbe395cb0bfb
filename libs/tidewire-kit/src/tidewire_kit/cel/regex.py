"""Patterns of `matches`, by RE2: its time is linear in the text and its memory bounded, whatever a tenant writes.

RE2 is also what the language asks for. Called when a condition is checked, and for each device it is asked of.
"""

from functools import lru_cache

import re2

MAX_PATTERN_CHARACTERS = 256
_MEMORY_BYTES = 1 << 20


def _options() -> "re2.Options":
    options = re2.Options()
    options.max_mem = _MEMORY_BYTES
    options.log_errors = False
    return options


@lru_cache(maxsize=1024)
def pattern(text: str) -> "re2._Regexp":
    """The compiled pattern. Raises ValueError that says what is wrong with it."""
    if len(text) > MAX_PATTERN_CHARACTERS:
        raise ValueError(f"the pattern has {len(text)} characters; use at most {MAX_PATTERN_CHARACTERS}")
    try:
        return re2.compile(text, options=_options())
    except re2.error as error:
        told = error.args[0] if error.args else ""
        why = told.decode(errors="replace") if isinstance(told, bytes) else str(told)
        raise ValueError(f"the pattern is not accepted: {why}; patterns are those of RE2") from None


def matches(text: str, of: str) -> bool:
    """Whether a pattern is found anywhere in a text."""
    return pattern(of).search(text) is not None
