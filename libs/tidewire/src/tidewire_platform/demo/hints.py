"""The next commands to try, written so that they work when pasted into the shell the demo was started from."""

import shlex
import shutil
import sys
from pathlib import Path

from tidewire_platform.demo.fleet import METERS
from tidewire_platform.demo.setup import TENANT
from tidewire_platform.demo.sources import BUOY, GLUCOSE


def command_name(executable: Path | None = None, directory: Path | None = None) -> str:
    """How to call the command from `directory` (default: here): by name when it is on the PATH, else by its path."""
    own = (executable or Path(sys.executable)).with_name("tidewire")
    on_path = shutil.which("tidewire")
    if on_path and Path(on_path).absolute() == own.absolute():
        return "tidewire"
    here = (directory or Path.cwd()).absolute()
    return shlex.quote(str(own.relative_to(here)) if own.is_relative_to(here) else str(own))


def command_lines() -> list[str]:
    """Commands that show what the demo has brought, the simplest first."""
    tidewire = command_name()
    verbs = (
        "status",
        f"query {METERS[0]}",
        f"query {GLUCOSE} glucose --last 7d",
        f"query {BUOY} temperature --aggregate min,avg,max --every 4w",
        "device list --filter 'labels.floor = \"2\"' --limit 5",
        "ledger show",
    )
    return [f"{tidewire} {verb} --context {TENANT}" for verb in verbs]


def next_commands() -> str:
    """The same as a text to print."""
    return "\nIn another terminal, for example:\n" + "\n".join(f"  {line}" for line in command_lines()) + "\n"
