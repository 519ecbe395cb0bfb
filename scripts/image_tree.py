"""Shapes the virtual environment that becomes an image's layers; the Dockerfile calls it, inside the build.

`finish TREE HOME` strips what no process reads, compiles and fixes every time stamp, so that the same lock gives the
same bytes; HOME is where the tree will lie. `list TREE FILE` notes what is there; `added FILE TREE TARGET` copies what
has come since, and finishes the copy. `start PACKAGE TREE` writes the image's entry point. `sbom PACKAGE FROM TO` makes
uv's list of components reproducible.

Standard library only: it runs before anything is installed.
"""

import compileall
import json
import os
import py_compile
import re
import shutil
import stat
import sys
from pathlib import Path

_STRIPPED_DIRECTORIES = {"tests", "include", "__pycache__"}
_STRIPPED_SUFFIXES = {".pyx", ".pxd", ".pxi", ".pyi", ".h", ".hpp", ".c", ".cpp", ".a", ".lib"}
_STRIPPED_PACKAGES = {"kubernetes/aio"}
"""The asyncio twin of the client, which nothing of ours imports: 60 MB."""
_STRIPPED_LIBRARIES = re.compile(r"zstandard/_cffi\.|pyarrow/\w*_flight\.")
"""Twins of what is used, and what nothing of ours imports: 45 MB."""
_SAMPLES = {"CGM.csv.gz", "sea_surface_temperature.csv.gz"}
"""Of bokeh-sampledata's files the ones that `tidewire demo` reads."""

_ALL_IN_ONE = "tidewire"


def finish(tree: Path, home: Path) -> None:
    """Strips, compiles and fixes times; `home` becomes part of the compiled files."""
    for path in sorted(tree.rglob("*"), reverse=True):
        if path.is_symlink():
            continue
        if path.is_dir():
            name = f"{path.parent.name}/{path.name}"
            if path.name in _STRIPPED_DIRECTORIES or name in _STRIPPED_PACKAGES:
                shutil.rmtree(path)
        elif path.is_file() and _is_stripped(path):
            path.unlink()
    for record in tree.rglob("*.dist-info/RECORD"):
        _forget_stripped(record)
    compileall.compile_dir(
        tree / "lib",
        maxlevels=40,
        quiet=2,
        force=True,
        stripdir=str(tree),
        prependdir=str(home),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    for path in [tree, *tree.rglob("*")]:
        _fix_time(path)


def _is_stripped(path: Path) -> bool:
    if path.parent.name == "_data" and path.parent.parent.name == "bokeh_sampledata":
        return path.name not in _SAMPLES
    # uv notes in these when and from where it has installed.
    if ".so" in path.name and _STRIPPED_LIBRARIES.search(path.as_posix()):
        return True
    return path.suffix in _STRIPPED_SUFFIXES or path.name in {"uv_cache.json", "direct_url.json", ".lock"}


def _forget_stripped(record: Path) -> None:
    """Leaves out of a distribution's list of files those that are there no more, with their hashes."""
    packages = record.parent.parent
    lines = record.read_text().splitlines(keepends=True)
    there = [line for line in lines if (packages / line.rsplit(",", 2)[0].strip('"')).exists()]
    record.write_text("".join(there))


def _fix_time(path: Path) -> None:
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    if not path.is_symlink():
        mode = path.stat().st_mode
        path.chmod(0o755 if stat.S_ISDIR(mode) or mode & 0o100 else 0o644)
    os.utime(path, (epoch, epoch), follow_symlinks=False)


def listing(tree: Path) -> list[str]:
    """Every file and link below the tree, by its path there."""
    return sorted(
        str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_symlink() or path.is_file()
    )


def added(before: Path, tree: Path, target: Path) -> None:
    """Copies what the listing `before` has not, to the same place below `target`."""
    known = set(before.read_text().splitlines())
    target.mkdir()
    (target / "lib").mkdir()
    for name in listing(tree):
        if name not in known:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(tree / name, target / name, follow_symlinks=False)
    finish(target, tree)


def start(package: str, tree: Path) -> None:
    """Writes bin/start, which runs the package as `python -m` would; of the all-in-one it is the command."""
    script = tree / "bin" / "start"
    if package == _ALL_IN_ONE:
        script.unlink(missing_ok=True)
        script.symlink_to(_ALL_IN_ONE)
        return
    module = package.replace("-", "_")
    script.write_text(
        f"#!{tree}/bin/python\n"
        f'"""Runs {module}."""\n\nimport runpy\n\nrunpy.run_module("{module}", run_name="__main__", alter_sys=True)\n'
    )
    script.chmod(0o755)


def sbom(package: str, source: Path, target: Path) -> None:
    """Copies uv's CycloneDX document without what changes from run to run, and names the package it is about."""
    document = json.loads(source.read_text())
    document.pop("serialNumber", None)
    document["metadata"].pop("timestamp", None)
    document["metadata"].setdefault("properties", []).append({"name": "tidewire:package", "value": package})
    text = json.dumps(document, indent=1, sort_keys=True)
    assert re.search(r'"name": "grpcio"', text), "a list of components without gRPC is not ours"
    target.write_text(f"{text}\n")


def main() -> None:
    """Calls the function that the first argument names with the others."""
    verb, *words = sys.argv[1:]
    match verb:
        case "finish":
            finish(*map(Path, words))
        case "list":
            Path(words[1]).write_text("\n".join(listing(Path(words[0]))))
        case "added":
            added(*map(Path, words))
        case "start":
            start(words[0], Path(words[1]))
        case "sbom":
            sbom(words[0], Path(words[1]), Path(words[2]))
        case _:
            raise SystemExit(f"no verb {verb!r}")


if __name__ == "__main__":
    main()
