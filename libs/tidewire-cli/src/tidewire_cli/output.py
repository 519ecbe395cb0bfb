"""What a command prints: tables for people, JSON, YAML or CSV for programs, notes on standard error.

Standard output carries the answer alone, so `tidewire device list -o json | jq` always works.
"""

import csv
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


class Format(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: the key in the row (a.b goes down), its heading, and how a value looks."""

    key: str
    heading: str
    look: Callable[[Any], str] = str
    right: bool = False


class Output:
    """The printer of one command."""

    def __init__(self, format: Format = Format.TABLE) -> None:
        self.format = format
        self._consoles: dict[bool, Console] = {}

    @property
    def for_people(self) -> bool:
        """Whether tables are wanted."""
        return self.format is Format.TABLE

    def console(self, *, stderr: bool = False) -> "Console":
        """Rich console of standard output or error."""
        if stderr not in self._consoles:
            from rich.console import Console

            console = Console(stderr=stderr, highlight=False, soft_wrap=True)
            if not console.is_terminal:
                console.width = 1000  # a file has no edge
            self._consoles[stderr] = console
        return self._consoles[stderr]

    def note(self, text: str) -> None:
        """Something for people beside the answer; on standard error, and only with tables."""
        if self.for_people:
            print(text, file=sys.stderr)

    def warn(self, text: str) -> None:
        """Something people must see; on standard error."""
        print(text, file=sys.stderr)

    def error(self, reason: str, message: str, exit_code: int, line: str = "") -> None:
        """Why the command fails, on standard error: `line` (else `Error: reason: message`), or with JSON an object."""
        if self.format is Format.JSON:
            told = {"reason": reason, "message": message, "exit_code": exit_code}
            print(json.dumps(told, ensure_ascii=False), file=sys.stderr)
        else:
            print(line or f"Error: {reason}: {message}", file=sys.stderr)

    def text(self, text: str) -> None:
        """A line of the answer, with tables."""
        if self.for_people:
            print(text)

    def data(self, value: object) -> None:
        """The whole answer for programs; nothing with tables."""
        match self.format:
            case Format.JSON:
                json.dump(_finite(value), sys.stdout, indent=2, ensure_ascii=False)
                print()
            case Format.YAML:
                import yaml

                yaml.safe_dump(_finite(value), sys.stdout, sort_keys=False, allow_unicode=True)
            case Format.CSV:
                rows = value if isinstance(value, list) else [value]
                self._csv([_flat(row) for row in rows])
            case Format.TABLE:
                pass

    def _csv(self, rows: Sequence[Mapping[str, object]]) -> None:
        headings = list(dict.fromkeys(key for row in rows for key in row))
        writer = csv.DictWriter(sys.stdout, headings, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

    def done(self, text: str, value: object) -> None:
        """Something was done: a sentence for people, the object for programs."""
        self.text(text)
        self.data(value)

    def rows(
        self, rows: Iterable[Mapping[str, Any]], columns: Sequence[Column], *, empty: str = "Nothing."
    ) -> None:
        """A list."""
        listed = list(rows)
        if not self.for_people:
            self.data(listed)
            return
        if not listed:
            self.note(empty)
            return
        from rich.table import Table

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for column in columns:
            table.add_column(
                column.heading, justify="right" if column.right else "left", no_wrap=True, overflow="fold"
            )
        for row in listed:
            table.add_row(*(_look(column, row) for column in columns))
        console = self.console()
        seen = console.width
        # On a narrow terminal its lines are broken, not cut: half an id is none.
        console.width = max(
            seen, console.measure(table, options=console.options.update(max_width=1000)).maximum
        )
        console.print(table)
        console.width = seen

    def one(self, value: Mapping[str, Any]) -> None:
        """One object: its fields below one another."""
        if not self.for_people:
            self.data(value)
            return
        flat = _flat(value)
        width = max(map(len, flat), default=0)
        for key, item in flat.items():
            if item not in ("", None):
                print(f"{key:<{width}}  {item}")


def _look(column: Column, row: Mapping[str, Any]) -> str:
    from rich.markup import escape

    value: Any = row
    for part in column.key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return "" if value is None else escape(column.look(value))


def _flat(value: Any, prefix: str = "") -> dict[str, object]:
    """Nested dictionaries as one with dotted keys; lists of plain values joined by blanks."""
    if not isinstance(value, Mapping):
        return {prefix or "value": value}
    flat: dict[str, object] = {}
    for key, item in value.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(item, Mapping):
            flat |= _flat(item, name)
        elif isinstance(item, list):
            flat[name] = " ".join(map(str, item))
        else:
            flat[name] = item
    return flat


def _finite(value: Any) -> Any:
    """The value with null for NaN and infinities, which JSON does not know."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
