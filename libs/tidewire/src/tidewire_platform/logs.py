"""What the services log: every line into `run/logs/NAME.jsonl`, warnings and worse also to the terminal.

The services write JSON. A person at a terminal reads lines made for people; anything else that reads stderr (a service
manager, a test) gets the JSON as it is. Lines that are not JSON (the interpreter's own last words, gRPC's C core) are
wrapped, so that a log file is JSON throughout.
"""

import datetime
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

ROTATE_BYTES = 16 << 20
"""A log file of this size becomes `NAME.1.jsonl`, replacing the one before: each process keeps at most twice this."""

_SEVERITY = {"debug": 10, "info": 20, "warning": 30, "warn": 30, "error": 40, "exception": 40, "critical": 50}
_COLOURS = {"warning": "\x1b[33m", "warn": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[1;31m"}
_SHOWN_APART = {"event", "level", "time", "service", "process", "logger"}


def severity(entry: Mapping[str, Any]) -> int:
    """How bad an entry is: 10 debug, 20 info, 30 warning, 40 error, 50 critical."""
    return _SEVERITY.get(str(entry.get("level", "info")).lower(), 20)


def parse_line(line: str) -> dict[str, Any]:
    """The entry of a line; a line that is not a JSON object is wrapped as a warning, a traceback's head as an error."""
    if line.startswith("{"):
        try:
            entry = json.loads(line)
        except ValueError:
            pass
        else:
            return dict(entry)
    level = "error" if line.startswith("Traceback") else "warning"
    return {"time": _now(), "level": level, "event": line, "raw": True}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class LogSink:
    """Takes the lines of all processes. One per platform, used on its event loop."""

    def __init__(self, directory: Path, terminal: TextIO | None = None) -> None:
        """Makes `directory`. `terminal` (default stderr) gets errors, and from `show_warnings` on warnings too."""
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._terminal = terminal if terminal is not None else sys.stderr
        self._terminal_level = 40
        self._for_people = self._terminal.isatty()
        self._files: dict[str, TextIO] = {}

    def show_warnings(self) -> None:
        """Shows warnings from now on: while services start they warn of one another, which is of no use to anybody."""
        self._terminal_level = 30

    def path(self, name: str) -> Path:
        """The log file of the process `name`."""
        return self._directory / f"{name}.jsonl"

    def line(self, name: str, line: str) -> None:
        """Takes one line that the process `name` wrote."""
        text = line.rstrip("\r\n")
        if text:
            self._take(name, parse_line(text))

    def event(self, level: str, event: str, **fields: object) -> None:
        """Logs something of the platform's own, into `up.jsonl`."""
        self._take("up", {"time": _now(), "level": level, "event": event, **fields})

    def close(self) -> None:
        """Closes the files. Idempotent."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _take(self, name: str, entry: dict[str, Any]) -> None:
        entry.setdefault("process", name)
        text = json.dumps(entry, default=str, ensure_ascii=False)
        file = self._file(name)
        file.write(text + "\n")
        file.flush()
        if severity(entry) >= self._terminal_level:
            self._show(name, entry, text)

    def _file(self, name: str) -> TextIO:
        file = self._files.get(name)
        if file is not None and file.tell() < ROTATE_BYTES:
            return file
        if file is not None:
            file.close()
            self.path(name).replace(self._directory / f"{name}.1.jsonl")
        self._files[name] = file = self.path(name).open("a", encoding="utf-8")
        return file

    def _show(self, name: str, entry: Mapping[str, Any], text: str) -> None:
        try:
            self._terminal.write((render(name, entry) if self._for_people else text) + "\n")
            self._terminal.flush()
        except OSError:  # the terminal went away; the files have it all
            self._terminal_level = 100


def render(name: str, entry: Mapping[str, Any]) -> str:
    """An entry as one coloured line for people: time, level, process, event, the other fields."""
    level = str(entry.get("level", "info")).lower()
    clock = str(entry.get("time", ""))[11:19]
    fields = " ".join(f"{key}={value}" for key, value in entry.items() if key not in _SHOWN_APART)
    colour = _COLOURS.get(level, "")
    return f"{clock} {colour}{level:<8}\x1b[0m {name:<12} {entry.get('event', '')} \x1b[2m{fields}\x1b[0m".rstrip()
