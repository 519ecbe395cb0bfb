"""Completion as a shell asks for it: bash runs the script that the command prints."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TIDEWIRE = Path(sys.executable).with_name("tidewire")
SCRIPT = """
source <("$1" --show-completion bash)
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_tidewire_completion tidewire
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(home: Path, *words: str) -> list[str]:
    """What bash offers for the last of `words`."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("TIDEWIRE_")}
    environ |= {"XDG_CONFIG_HOME": str(home), "PATH": f"{TIDEWIRE.parent}:{environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", SCRIPT, "bash", str(TIDEWIRE), *words],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("tidewire", "stat"), ["status"]),
        (("tidewire", "device", "blo"), ["block"]),
        (("tidewire", "device", "list", "--filt"), ["--filter"]),
        (("tidewire", "device", "list", "--output", "js"), ["json"]),
        (("tidewire", "token", "create", "me", "--role", "tenant"), ["tenant-admin"]),
    ],
)
def test_nouns_verbs_options_and_values_are_completed(
    tmp_path: Path, words: tuple[str, ...], offered: list[str]
) -> None:
    assert completed(tmp_path, *words) == offered


def test_contexts_are_completed_by_name(tmp_path: Path) -> None:
    config = tmp_path / "tidewire" / "config.yaml"
    config.parent.mkdir()
    entry = "{endpoint: '127.0.0.1:1', token: x}"
    config.write_text(f"current-context: plant\ncontexts:\n  plant: {entry}\n  office: {entry}\n")
    assert completed(tmp_path, "tidewire", "context", "use", "pl") == ["plant"]
    assert completed(tmp_path, "tidewire", "status", "--context", "of") == ["office"]
