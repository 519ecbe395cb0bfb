"""The console of a demo: when nobody reads on (`| head -1`), the demo stops in order instead of ending in its midst."""

import os
import sys
from collections.abc import Callable

from rich.console import Console


class DemoConsole(Console):
    """Calls `gone`, once, when what it prints to is closed; it and everybody else then print to nowhere."""

    def __init__(self) -> None:
        super().__init__(soft_wrap=True)
        self.gone: Callable[[], object] = lambda: None

    def on_broken_pipe(self) -> None:
        """Of Console, which would leave by SystemExit: services and a temporary directory would stay."""
        self.quiet = True
        out, errors = sys.stdout.fileno(), sys.stderr.fileno()
        closed = (out, errors) if os.path.sameopenfile(out, errors) else (out,)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in closed:
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
        self.gone()
