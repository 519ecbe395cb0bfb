from pathlib import Path

import pytest
import yaml

from tidewire_platform.contexts import config_file, write_context
from tidewire_platform.demo import hints


@pytest.fixture(autouse=True)
def config_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


def test_contexts_are_added_beside_others_and_the_first_becomes_current() -> None:
    write_context("local", "127.0.0.1:7001", Path("/d/keys/admin.token"))
    write_context("demo", "127.0.0.1:7001", Path("/d/keys/demo.token"), tenant="demo")
    write_context("local", "127.0.0.1:9001", Path("/d/keys/admin.token"))
    content = yaml.safe_load(config_file().read_text())
    assert content["current-context"] == "local"
    assert content["contexts"] == {
        "local": {"endpoint": "127.0.0.1:9001", "token_file": "/d/keys/admin.token"},
        "demo": {"endpoint": "127.0.0.1:7001", "token_file": "/d/keys/demo.token", "tenant": "demo"},
    }
    assert config_file().stat().st_mode & 0o077 == 0


def test_the_users_own_current_context_stays() -> None:
    config_file().parent.mkdir(parents=True)
    config_file().write_text("current-context: work\ncontexts: {work: {endpoint: far:7001, token: t}}\n")
    write_context("local", "127.0.0.1:7001", Path("/t"))
    content = yaml.safe_load(config_file().read_text())
    assert content["current-context"] == "work"
    assert content["contexts"]["work"] == {"endpoint": "far:7001", "token": "t"}


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
