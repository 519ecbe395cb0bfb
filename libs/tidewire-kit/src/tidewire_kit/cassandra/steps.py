"""Schema steps as files: `NNNN_name.cql` in a directory of the service that owns the tables, in order of their numbers.

Beside them lie `MANIFEST` (the SHA-256 of each step, so that an edit of one that may have been applied somewhere does
not go unnoticed: steps never change, one adds another) and `snapshot.cql` (what all of them together amount to, for
people to read; a test proves that it is the same). After adding a step:

    python -m tidewire_kit.cassandra.steps DIRECTORY

adds it to the manifest. Used by `schema`.

A step may be carried out again after its process died in the middle, so each of its statements must be repeatable:
CREATE ... IF NOT EXISTS, DROP ... IF EXISTS, ALTER TABLE ... ADD IF NOT EXISTS / DROP IF EXISTS / WITH. Tables are
named `<component>_...`, without a keyspace.
"""

import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tidewire_kit.errors import TidewireError

MANIFEST = "MANIFEST"
SNAPSHOT = "snapshot.cql"
_FILE = re.compile(r"(?P<version>\d{4})_(?P<name>[a-z0-9_]+)\.cql")
_REPEATABLE = re.compile(
    r"CREATE\s+(?:TABLE|(?:CUSTOM\s+)?INDEX|TYPE)\s+IF\s+NOT\s+EXISTS\s"
    r"|DROP\s+(?:TABLE|INDEX|TYPE)\s+IF\s+EXISTS\s"
    r"|ALTER\s+TABLE\s+\w+\s+(?:ADD\s+IF\s+NOT\s+EXISTS|DROP\s+IF\s+EXISTS|WITH)\s",
    re.IGNORECASE,
)
_TABLE = re.compile(
    r"(?:CREATE|DROP|ALTER)\s+TABLE\s+(?:IF\s+(?:NOT\s+)?EXISTS\s+)?(?P<table>[\w.\"]+)", re.IGNORECASE
)
_TOKEN = re.compile(
    r"(?P<comment>--[^\n]*|//[^\n]*|/\*.*?\*/)|(?P<quoted>'(?:[^']|'')*'|\"[^\"]*\")|(?P<end>;)|(?P<other>.)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Step:
    """One change of the tables."""

    component: str
    version: int
    name: str
    checksum: str
    """Hexadecimal SHA-256 of the file."""
    statements: tuple[str, ...]

    @property
    def title(self) -> str:
        """How people see it, for example `registry 0002_credentials`."""
        return f"{self.component} {self.version:04d}_{self.name}"


@dataclass(frozen=True, slots=True)
class SchemaSet:
    """The steps of one component. `directory` is in the component's package."""

    component: str
    """`[a-z]+`; the prefix of its tables."""
    directory: Path

    def steps(self) -> tuple[Step, ...]:
        """Returns the steps by version, which has no gaps. Raises TidewireError for files that break the rules above: a
        mistake in the software."""
        listed = _read_manifest(self.directory)
        steps = tuple(self._step(path, listed) for path in _files(self.directory))
        if [step.version for step in steps] != list(range(1, len(steps) + 1)):
            raise TidewireError(f"{self.directory}: steps must be numbered 0001, 0002, … without a gap")
        missing = set(listed) - {path.name for path in _files(self.directory)}
        if missing:
            raise TidewireError(
                f"{self.directory}: {', '.join(sorted(missing))} is in {MANIFEST} and not there"
            )
        return steps

    def snapshot(self) -> tuple[str, ...]:
        """Returns the statements of the snapshot."""
        return tuple(split((self.directory / SNAPSHOT).read_text(encoding="utf-8")))

    def _step(self, path: Path, listed: dict[str, str]) -> Step:
        match = _FILE.fullmatch(path.name)
        assert match is not None
        checksum = _checksum(path)
        if listed.get(path.name) != checksum:
            what = "is not in" if path.name not in listed else "has changed since it came into"
            raise TidewireError(
                f"{path} {what} {MANIFEST}; add new steps by python -m tidewire_kit.cassandra.steps, never change one"
            )
        statements = tuple(split(path.read_text(encoding="utf-8")))
        for statement in statements:
            self._check(path, statement)
        return Step(self.component, int(match["version"]), match["name"], checksum, statements)

    def _check(self, path: Path, statement: str) -> None:
        if not _REPEATABLE.match(statement):
            raise TidewireError(
                f"{path}: a statement is not repeatable (IF NOT EXISTS, IF EXISTS): {statement[:80]}"
            )
        match = _TABLE.match(statement)
        if match is not None and not match["table"].startswith(f"{self.component}_"):
            raise TidewireError(f"{path}: table {match['table']} does not begin with {self.component}_")


def split(text: str) -> Iterator[str]:
    """Yields the statements of a CQL text, without comments and closing semicolons, white space run together."""
    parts: list[str] = []
    for match in _TOKEN.finditer(text + "\n;"):
        if match["end"]:
            statement = "".join(parts).strip()
            if statement:
                yield statement
            parts = []
        elif match["quoted"]:
            parts.append(match["quoted"])
        elif match["comment"] or match["other"].isspace():
            if parts and parts[-1] != " ":
                parts.append(" ")
        else:
            parts.append(match["other"])


def write_manifest(directory: Path) -> list[str]:
    """Adds steps that are not in the manifest yet; returns their names. Raises TidewireError when one that is in it has
    changed."""
    listed = _read_manifest(directory)
    added = []
    for path in _files(directory):
        checksum = _checksum(path)
        if listed.setdefault(path.name, checksum) != checksum:
            raise TidewireError(f"{path} has changed since it came into {MANIFEST}; add another step instead")
        added.append(path.name)
    lines = [f"{checksum}  {name}\n" for name, checksum in sorted(listed.items())]
    (directory / MANIFEST).write_text("".join(lines), encoding="utf-8")
    return added


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if _FILE.fullmatch(path.name))


def _read_manifest(directory: Path) -> dict[str, str]:
    path = directory / MANIFEST
    if not path.exists():
        return {}
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return {name: checksum for checksum, name in lines}


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        write_manifest(Path(argument))
