"""Renders the reference of the settings from the docstrings under their fields; docs.py calls it.

The sources are read, not imported, so a page never depends on the environment in which it was made.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("libs/tidewire-kit/src", "services/*/src", "libs/tidewire/src")
INTRO = """# Settings

Every process reads its settings once, at start, from environment variables. `TIDEWIRE_<NAME>` is shared by all
processes, `TIDEWIRE_<SERVICE>_<NAME>` belongs to one. A value that does not fit ends the process with exit status 2
and a message that names the variable.
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """One field of a settings class, as text for a table."""

    variable: str
    kind: str
    default: str
    meaning: str


def constant(node: ast.expr | None) -> str:
    """Returns a default as one writes it in the environment."""
    if node is None:
        return "required"
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return f"`{ast.unparse(node)}`"
    if value is None or value == "":
        return "unset"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def prefix_of(statements: list[ast.stmt]) -> str | None:
    """Returns the value of PREFIX when these statements of a class define it."""
    for statement in statements:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id="PREFIX")], value=ast.Constant(value=str(prefix)))
                | ast.AnnAssign(target=ast.Name(id="PREFIX"), value=ast.Constant(value=str(prefix)))
            ):
                return prefix
    return None


def settings_of(definition: ast.ClassDef, prefix: str) -> Iterator[Setting]:
    """Yields the fields of a settings class in order; a field without a docstring is an error."""
    following = [*definition.body[1:], None]
    for statement, after in zip(definition.body, following, strict=True):
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name)) if not name.isupper() and not name.startswith("_"):
                match after:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        meaning = " ".join(text.split()).replace("|", "\\|")
                    case _:
                        raise SystemExit(
                            f"docs: the setting {definition.name}.{name} has no docstring under it"
                        )
                kind = ast.unparse(statement.annotation).replace("|", "or")
                yield Setting(prefix + name.upper(), kind, constant(statement.value), meaning)


def sections() -> Iterator[str]:
    """Yields one section for each class that has a PREFIX, shared settings first."""
    found: list[tuple[str, str, list[Setting]]] = []
    for pattern in SOURCES:
        for path in sorted(ROOT.glob(f"{pattern}/*/settings.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and (prefix := prefix_of(node.body)):
                    heading = ast.get_docstring(node) or node.name
                    found.append((prefix, heading, list(settings_of(node, prefix))))
    for prefix, heading, settings in sorted(
        found, key=lambda entry: (len(entry[0]) > len("TIDEWIRE_"), entry[0])
    ):
        rows = ["| variable | type | default | meaning |", "|---|---|---|---|"]
        rows += [f"| `{s.variable}` | {s.kind} | {s.default} | {s.meaning} |" for s in settings]
        title = prefix.removeprefix("TIDEWIRE_").strip("_").lower() or "shared"
        yield "\n".join([f"## {title.capitalize()}: `{prefix}*`\n", f"{heading}\n", *rows, ""])


def pages() -> dict[str, str]:
    """Returns the path below docs/reference → text of each page."""
    return {"settings.md": "\n".join([INTRO, *sections()])}
