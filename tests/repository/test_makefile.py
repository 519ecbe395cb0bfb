"""The Makefile is the door for people and CI: what it offers is documented, and CI calls only what it offers."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
PHONY = re.findall(r"^\.PHONY: (\S+)$", MAKEFILE, re.MULTILINE)


def test_every_target_is_documented() -> None:
    documented = re.findall(r"^([a-z0-9-]+):.*## \S", MAKEFILE, re.MULTILINE)

    assert documented == PHONY


def test_bare_make_prints_every_target() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert [name for name in PHONY if not re.search(rf"^  {name} +\S", shown, re.MULTILINE)] == []


def test_ci_calls_only_targets_that_exist() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    tiers = re.findall(r"^ *tier +(\S+) +\d+ +\S+ +(\S+)$", script, re.MULTILINE)

    assert [name for name, _ in tiers] == [
        "setup",
        "verify",
        "test-platform",
        "test-kube",
        "test-servers",
        "test-faults",
        "test-kube-api",
        "e2e",
        "bench-smoke",
    ]
    assert {target for _, target in tiers} <= set(PHONY)
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_ci_ends_before_85_minutes() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    found = re.search(r"budget_seconds=\$\(\((\d+) \* 60\)\)", script)

    assert found is not None
    assert int(found[1]) < 85
