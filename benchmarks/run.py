"""`make bench`: runs every benchmark, prints a table and writes build/bench.json.

Each module `benchmarks/bench_*.py` has `run(scale) -> list[Figure]`; those of Kafka and Cassandra are in
`benchmarks/distributed`. A figure that is not reached is printed with what limits it, never left out. `--only WORD`
runs the modules whose name contains the word; `--quick` runs each for seconds: to see that it works, not to quote it.
"""

import argparse
import importlib
import json
import pkgutil
import sys
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

import benchmarks
import benchmarks.distributed
from benchmarks.figures import Figure, Scale


def main() -> int:
    """Runs, prints and writes; 1 when a module failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["embedded", "distributed"], default="embedded")
    parser.add_argument("--only", default="", help="run the modules whose name contains this")
    parser.add_argument(
        "--quick", action="store_true", help="seconds instead of minutes; figures are not to be quoted"
    )
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="DIRECTORY",
        help="keep data that takes long to make there, and use what an earlier run has left",
    )
    parser.add_argument("--output", type=Path, default=Path("build/bench.json"))
    args = parser.parse_args()
    scale = replace(Scale.quick() if args.quick else Scale.full(), keep=args.keep)
    package = benchmarks.distributed if args.backend == "distributed" else benchmarks
    names = sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name.startswith("bench_"))
    figures: list[Figure] = []
    failed = []
    for name in names:
        if args.only not in name:
            continue
        began = time.monotonic()
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            figures += importlib.import_module(f"{package.__name__}.{name}").run(scale)
        except Exception as error:  # one broken benchmark must not hide the others' figures
            failed.append(name)
            print(f"{name} failed: {error!r}", file=sys.stderr, flush=True)
        print(f"{name} took {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    table = Table(title="quick run: not to be quoted" if args.quick else None)
    for column, justify in [
        ("figure", "left"),
        ("value", "right"),
        ("goal", "right"),
        ("unit", "left"),
        ("reached", "left"),
        ("reference, or what limits it", "left"),
    ]:
        table.add_column(column, justify="right" if justify == "right" else "left", overflow="fold")
    for figure in figures:
        table.add_row(*figure.cells())
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps([figure.as_dict() for figure in figures], indent=2) + "\n")
    print(f"{len(figures)} figures in {args.output}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
