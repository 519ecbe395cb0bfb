"""Help: complete, readable on any screen, and at once."""

import pytest


def test_help_names_every_command(tidewire):
    result = tidewire("--help")
    assert result.exit_code == 0
    for name in [
        "status",
        "simulate",
        "import",
        "publish",
        "query",
        "tenant",
        "device",
        "credential",
        "token",
        "context",
        "ledger",
        "storage",
    ]:
        assert name in result.output


@pytest.mark.parametrize("noun", ["tenant", "device", "credential", "token", "context", "ledger", "storage"])
def test_every_command_has_json_and_a_sentence_of_help(tidewire, noun):
    from tidewire_cli.main import build

    group = next(one for one in build().registered_groups if one.name == noun)
    for command in group.typer_instance.registered_commands:
        result = tidewire(noun, command.name, "--help")
        assert result.exit_code == 0
        assert "--output" in result.output
        assert command.callback.__doc__


def test_help_fills_the_lines_of_the_screen(tidewire, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    lines = tidewire("import", "--help").stdout.splitlines()
    assert any("it goes on where it was when run again" in line for line in lines)


def test_help_and_completion_do_not_wait_for_heavy_libraries():
    import subprocess
    import sys

    heavy = "{'numpy', 'grpc', 'cryptography', 'pyarrow', 'yaml'}"
    code = f"import sys, tidewire_cli.main; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
