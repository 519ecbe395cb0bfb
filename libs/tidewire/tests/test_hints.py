from pathlib import Path

import pytest

from tidewire_platform.demo import hints


def test_the_command_is_named_as_it_can_be_called_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = tmp_path / "project" / ".venv" / "bin" / "tidewire"
    binary.parent.mkdir(parents=True)
    binary.touch(mode=0o755)
    python = binary.with_name("python")
    monkeypatch.setenv("PATH", "/nowhere")
    assert hints.command_name(python, tmp_path / "project") == ".venv/bin/tidewire"
    assert hints.command_name(python, tmp_path / "elsewhere") == str(binary)
    monkeypatch.setenv("PATH", str(binary.parent))
    assert hints.command_name(python, tmp_path) == "tidewire"
