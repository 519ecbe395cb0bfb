"""The first look at a condition's text: bounds what follows, and takes strings out of it.

The grammar's own patterns for strings go back over a string that never ends as many times as it has combinations of
escapes: `"` and 30 times `\n` would keep a core busy for minutes. So strings are found here, by patterns that never go
back; the parser is given a text of the same length, and thus the same positions, in which each string is blank.
Called by `parser`; it reads the text once.
"""

import re
from dataclasses import dataclass

from tidewire_kit.cel.errors import Source, shown

MAX_CHARACTERS = 8_192
MAX_TOKENS = 2_000
MAX_NESTING = 48
MAX_STRING_CHARACTERS = 1_024

_TOKEN = re.compile(
    r"""(?P<space>[\t\n\f\r\ ]++|//[^\n]*+)
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*+)
      | (?P<number>[0-9][0-9a-zA-Z.]*+)
      | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_STRINGS = {
    ('"', False): re.compile(r'"((?:[^"\\\r\n]|\\[^\r\n])*+)"'),
    ("'", False): re.compile(r"'((?:[^'\\\r\n]|\\[^\r\n])*+)'"),
    ('"', True): re.compile(r'"([^"\r\n]*+)"'),
    ("'", True): re.compile(r"'([^'\r\n]*+)'"),
    ('"""', False): re.compile(r'"""((?:[^"\\]|\\.|"(?!""))*+)"""', re.DOTALL),
    ("'''", False): re.compile(r"'''((?:[^'\\]|\\.|'(?!''))*+)'''", re.DOTALL),
    ('"""', True): re.compile(r'"""((?:[^"]|"(?!""))*+)"""', re.DOTALL),
    ("'''", True): re.compile(r"'''((?:[^']|'(?!''))*+)'''", re.DOTALL),
}
_ESCAPE = re.compile(
    r"""\\(?:(?P<plain>[abfnrtv\\?"'`])|[xX](?P<x>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})
      |U(?P<U>[0-9a-fA-F]{8})|(?P<octal>[0-3][0-7]{2})|(?P<bad>.))""",
    re.VERBOSE | re.DOTALL,
)
_PLAIN = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_CLOSING = {")": "(", "]": "[", "}": "{"}


@dataclass(frozen=True, slots=True)
class Scanned:
    """A text without its strings."""

    blanked: str
    """As long as the text; each string literal is `"___"`, each comment is spaces."""
    strings: dict[int, str]
    """Position of a literal's first character → the string it means."""


def scan(source: Source) -> Scanned:
    """Raises InvalidArgument with the position: too long a text, nested too deep, a string without end."""
    text = source.text
    if len(text) > MAX_CHARACTERS:
        raise source.fail(
            MAX_CHARACTERS, f"the condition has {len(text)} characters; use at most {MAX_CHARACTERS}"
        )
    pieces: list[str] = []
    strings: dict[int, str] = {}
    open_brackets: list[tuple[str, int]] = []
    position = tokens = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        assert match is not None
        piece, end = match.group(), match.end()
        if match.lastgroup == "space":
            pieces.append(" " * len(piece) if piece[0] == "/" else piece)
            position = end
            continue
        tokens += 1
        if tokens > MAX_TOKENS:
            raise source.fail(position, f"more than {MAX_TOKENS} words and signs; split the condition")
        following = text[end : end + 1]
        if piece in "\"'" or (match.lastgroup == "word" and following in ("'", '"') and len(piece) <= 2):
            end = _string(source, position, piece if match.lastgroup == "word" else "", strings)
            piece = '"' + "_" * (end - position - 2) + '"'
        elif match.lastgroup == "other":
            _bracket(source, piece, position, open_brackets)
        pieces.append(piece)
        position = end
    if open_brackets:
        bracket, position = open_brackets[-1]
        raise source.fail(position, f"`{bracket}` is not closed")
    return Scanned("".join(pieces), strings)


def _bracket(source: Source, sign: str, position: int, open_brackets: list[tuple[str, int]]) -> None:
    if sign in "([{":
        open_brackets.append((sign, position))
        if len(open_brackets) > MAX_NESTING:
            raise source.fail(position, f"nested deeper than {MAX_NESTING} brackets; simplify the condition")
    elif sign in _CLOSING:
        if not open_brackets:
            raise source.fail(position, f"`{sign}` closes nothing; remove it")
        bracket, opened = open_brackets.pop()
        if bracket != _CLOSING[sign]:
            column = opened - source.text.rfind("\n", 0, opened)
            raise source.fail(position, f"`{sign}` does not close the `{bracket}` at column {column}")
    elif sign in "\\@#$`;~^":
        raise source.fail(position, f"{sign!r} has no meaning here; remove it, or quote it as text")


def _string(source: Source, position: int, prefix: str, strings: dict[int, str]) -> int:
    """Notes the string literal that begins here; returns where it ends."""
    text = source.text
    if "b" in prefix.lower():
        raise source.fail(position, 'bytes are not known here; write a string: "text"')
    if prefix not in ("", "r", "R"):
        raise source.fail(position, f"an operator is missing between `{prefix}` and the string")
    start = position + len(prefix)
    quote = text[start]
    if text.startswith(quote * 3, start):
        quote *= 3
    match = _STRINGS[quote, bool(prefix)].match(text, start)
    if match is None:
        raise source.fail(position, f"the string does not end; close it with {quote}")
    body = match.group(1)
    if len(body) > MAX_STRING_CHARACTERS:
        why = f"the string has {len(body)} characters; use at most {MAX_STRING_CHARACTERS}"
        raise source.fail(position, why)
    strings[position] = body if prefix else _unescaped(source, body, start + len(quote))
    return match.end()


def _unescaped(source: Source, body: str, start: int) -> str:
    def meant(match: re.Match[str]) -> str:
        if match["plain"]:
            return _PLAIN.get(match["plain"], match["plain"])
        if match["bad"]:
            why = f'{shown(match.group())} is no escape; for a backslash write \\\\, or a raw string r"…"'
            raise source.fail(start + match.start(), why)
        code = int(match["octal"], 8) if match["octal"] else int(match["x"] or match["u"] or match["U"], 16)
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise source.fail(start + match.start(), f"{shown(match.group())} is no character")
        return chr(code)

    return _ESCAPE.sub(meant, body)
