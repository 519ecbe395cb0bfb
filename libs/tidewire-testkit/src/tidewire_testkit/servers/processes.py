"""One server process of a cluster: start it, kill it, suspend it, and never leave it behind.

A node's home is a directory with its configuration, its data, `log` and `pid`, so that another process (the command of
tests/servers) can find and stop what one has started. Used by `kafka` and `cassandra`.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tidewire_testkit.leash import start_free, start_leashed
from tidewire_testkit.polling import until_sync

STOP_SECONDS = 60.0
LOG_TAIL_CHARACTERS = 4000


class ServerError(Exception):
    """A server cannot be installed or started; the message says what is missing or what it said."""


class Node:
    """One process. Not safe for use by two threads at once. `leashed`: it dies with this one, even by SIGKILL."""

    def __init__(self, home: Path, address: str, command: list[str], *, leashed: bool) -> None:
        self.home = home
        self.address = address
        self._command = command
        self._leashed = leashed
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log_file(self) -> Path:
        """Everything the process writes."""
        return self.home / "log"

    @property
    def pid(self) -> int | None:
        """Process id while it runs (also when it is suspended); None otherwise."""
        if self._process is not None:
            return None if self._process.poll() is not None else self._process.pid
        try:
            pid = int((self.home / "pid").read_text())
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if os.fsencode(self.home) in line else None  # a pid is used again, a home is not

    def start(self) -> None:
        """Starts the process unless it runs; returns at once."""
        if self.pid is not None:
            return
        start = start_leashed if self._leashed else start_free
        with self.log_file.open("ab") as log:
            self._process = start(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        (self.home / "pid").write_text(str(self._process.pid))

    def check_running(self) -> None:
        """Raises ServerError with the end of the log when the process has ended."""
        if self.pid is None:
            raise ServerError(
                f"{self.home.name} of {self.home.parent} has ended; its log ends:\n{self.log_tail()}"
            )

    def log_tail(self) -> str:
        """The end of the log."""
        with contextlib.suppress(OSError):
            return self.log_file.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]
        return ""

    def suspend(self) -> None:
        """Stops the process where it is (SIGSTOP): its connections stay, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a suspended process go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kills the process (SIGKILL), suspended or not, and waits until it is gone."""
        self._signal(signal.SIGKILL)
        self._wait_gone()

    def stop(self) -> None:
        """Stops the process in an orderly way, the hard way after STOP_SECONDS, and waits until it is gone."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        deadline = time.monotonic() + STOP_SECONDS
        while self.pid is not None and time.monotonic() < deadline:
            time.sleep(0.05)
        self.kill()

    def _signal(self, number: signal.Signals) -> None:
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _wait_gone(self) -> None:
        until_sync(lambda: self.pid is None, seconds=STOP_SECONDS, message=f"{self.home} has ended")
        (self.home / "pid").unlink(missing_ok=True)


def keep_logs(nodes: list[Node], directory: Path) -> None:
    """Copies the logs of nodes below `directory`, for whoever looks why a test has failed."""
    for node in nodes:
        with contextlib.suppress(OSError):
            directory.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(node.log_file, directory / f"{node.home.name}.log")
