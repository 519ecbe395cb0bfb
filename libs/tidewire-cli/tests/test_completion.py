"""Completion as a shell asks for it: bash runs the script that the command prints."""

import os
import subprocess
import sys
from pathlib import Path

TIDEWIRE = Path(sys.executable).with_name("tidewire")
SCRIPT = """
source <("$1" --show-completion bash)
while read -ra COMP_WORDS; do
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _tidewire_completion tidewire
    echo "${COMPREPLY[@]}"
done
"""


def completed(home: Path, *lines: str) -> list[str]:
    """What bash offers for the last word of each line."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("TIDEWIRE_")}
    environ |= {"XDG_CONFIG_HOME": str(home), "PATH": f"{TIDEWIRE.parent}:{environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", SCRIPT, "bash", str(TIDEWIRE)],
        input="\n".join(lines) + "\n",
        env=environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_nouns_verbs_options_values_and_contexts_are_completed(tmp_path: Path) -> None:
    config = tmp_path / "tidewire" / "config.yaml"
    config.parent.mkdir()
    entry = "{endpoint: '127.0.0.1:1', token: x}"
    config.write_text(f"current-context: plant\ncontexts:\n  plant: {entry}\n  office: {entry}\n")
    offered = {
        "tidewire stat": "status",
        "tidewire device blo": "block",
        "tidewire device list --filt": "--filter",
        "tidewire device list --output js": "json",
        "tidewire token create me --role tenant": "tenant-admin",
        "tidewire context use pl": "plant",
        "tidewire status --context of": "office",
    }
    assert dict(zip(offered, completed(tmp_path, *offered), strict=True)) == offered
