"""Renders the reference of the `tidewire` command from its help texts, plug-in verbs included; docs.py calls it.

Walks the commands as Click knows them, without running any of them, so a page never depends on the environment.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import typer

from tidewire_cli.main import build

EVERYWHERE = 10  # an option that this many commands have alike is described once
HEAD = "| argument or option | default | meaning |\n|---|---|---|"
INTRO = """# The command

`tidewire NOUN VERB` for what is kept (tenants, devices, credentials, contexts), a few plain verbs for what is done.
`--help` on anything says the same as this page.
"""


def plain(text: str | None) -> str:
    """Returns a help text with one line a paragraph, without Click's marks."""
    paragraphs = (text or "").replace("\b", "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs).strip()


def parameters(command: Any) -> Iterator[str]:
    """Yields the rows of a command's arguments and options; hidden ones and --help are left out."""
    for parameter in command.params:
        if getattr(parameter, "hidden", False) or parameter.name == "help":
            continue
        names = [*parameter.opts, *parameter.secondary_opts]
        if parameter.param_type_name == "argument":
            names = [parameter.name.upper()]
        default = parameter.default
        shown = "required" if parameter.required else ""
        if isinstance(default, str | int | float) and not isinstance(default, bool) and default != "":
            shown = f"`{default}`"
        meaning = " ".join((getattr(parameter, "help", "") or "").split()).replace("|", "\\|")
        yield f"| {', '.join(f'`{name}`' for name in names)} | {shown} | {meaning} |"


def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yields path and command, depth first, sorted by name, hidden ones left out."""
    yield path, command
    for name, below in sorted(getattr(command, "commands", {}).items()):
        if not below.hidden:
            yield from walk(below, f"{path} {name}")


def pages() -> dict[str, str]:
    """Returns the path below docs/reference → text of each page."""
    commands = list(walk(typer.main.get_command(build()), "tidewire"))
    count = Counter(row for _, command in commands for row in parameters(command))
    common = [row for row, times in count.items() if times >= EVERYWHERE]
    parts = [INTRO]
    for path, command in commands:
        parts += [f"{'#' * min(path.count(' ') + 2, 4)} {path}\n", f"{plain(command.help)}\n"]
        rows = [row for row in parameters(command) if row not in common]
        if rows:
            parts += [HEAD, *rows, ""]
        if path == "tidewire" and common:
            parts += ["Options of every command that talks to a platform:\n", HEAD, *common, ""]
    return {"command.md": "\n".join(parts)}
