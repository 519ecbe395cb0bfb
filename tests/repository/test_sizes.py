"""A module has one idea. One of more than 400 lines has a second one, which becomes a module of its own."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES = 400
GENERATED = ("libs/tidewire-protos/src/", "third_party/")


def test_no_module_is_longer_than_400_lines() -> None:
    told = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    modules = [name for name in told.stdout.splitlines() if not name.startswith(GENERATED)]
    assert len(modules) > 500
    lines = {name: (ROOT / name).read_text().count("\n") for name in modules if (ROOT / name).exists()}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}
