"""Renders the reference of the settings from the docstrings under their fields; docs.py calls it."""

import dataclasses
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from tidewire_kit.settings import SettingsClass, describe

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("libs/tidewire-kit/src", "services/*/src", "libs/tidewire/src")
SHARED_PREFIX = "TIDEWIRE_"
INTRO = """# Settings

Every process reads its settings once, at start, from environment variables. `TIDEWIRE_<NAME>` is shared by all
processes, `TIDEWIRE_<SERVICE>_<NAME>` belongs to one. A value that does not fit ends the process with exit status 2
and a message that names the variable.

Traces are off. `OTEL_EXPORTER_OTLP_ENDPOINT` turns them on in every process, with OpenTelemetry's own variables
beside it; it needs the extra `tidewire-kit[otel]`. A trace that comes with a call goes on through the log,
in the header `traceparent` of its records, and ends when the readings are visible.
"""


def settings_classes() -> list[type[SettingsClass]]:
    """Imports every `settings` module and returns the settings classes defined there, shared ones first."""
    found: list[type[SettingsClass]] = []
    for pattern in SOURCES:
        for path in sorted(ROOT.glob(f"{pattern}/**/settings.py")):
            below = path.relative_to(next(parent for parent in path.parents if parent.name == "src"))
            module = importlib.import_module(".".join(below.with_suffix("").parts))
            for _, value in inspect.getmembers(module, inspect.isclass):
                own = value.__module__ == module.__name__
                if own and hasattr(value, "PREFIX") and dataclasses.is_dataclass(value):
                    found.append(cast("type[SettingsClass]", value))
    return sorted(found, key=lambda cls: (cls.PREFIX != SHARED_PREFIX, cls.PREFIX, cls.__module__))


def section(cls: type[SettingsClass]) -> Iterator[str]:
    """Yields the lines of one class: heading, what it is, a table of its fields."""
    owner = (
        "Shared"
        if cls.PREFIX == SHARED_PREFIX
        else cls.PREFIX.removeprefix(SHARED_PREFIX).strip("_").capitalize()
    )
    yield f"## {owner}: `{cls.PREFIX}*`\n"
    yield f"{inspect.getdoc(cls) or ''}\n"
    yield "| variable | value | default | meaning |"
    yield "|---|---|---|---|"
    for row in describe(cls):
        default = f"`{row.default}`" if row.default else "unset"
        yield f"| `{row.variable}` | {cell(row.type)} | {default} | {cell(row.doc)} |"
    yield ""


def cell(text: str) -> str:
    """Makes a text fit into one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def pages() -> dict[str, str]:
    """Returns the path below docs/reference → text of each page."""
    return {"settings.md": "\n".join([INTRO, *(line for cls in settings_classes() for line in section(cls))])}
