"""An S3 server for tests: versitygw over a directory, built by Go the first time.

What is built is pinned, with all it is made of, by tests/servers/s3/go.mod and go.sum.
"""

import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tidewire_testkit.servers.addresses import free_address
from tidewire_testkit.servers.install import RECIPES, cache_directory
from tidewire_testkit.servers.processes import Node, ServerError

PORT: Final = 9000
ACCESS_KEY: Final = "tidewire"
SECRET_KEY: Final = "tidewire-secret"  # of a server on loopback that a test starts
READY_SECONDS = 60.0
_COMMAND = "github.com/versity/versitygw/cmd/versitygw"


def built() -> Path:
    """The server's executable, built first when it is not there (minutes). Safe when several processes ask at once."""
    recipe = RECIPES / "s3"
    digest = hashlib.sha256((recipe / "go.mod").read_bytes() + (recipe / "go.sum").read_bytes()).hexdigest()
    target = cache_directory() / f"s3-{digest[:16]}"
    if target.is_file():
        return target
    go = shutil.which("go")
    if go is None:
        raise ServerError("go is missing: install Go 1.26 or newer; it builds the S3 server")
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / ".s3.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_file():
            return target
        work = target.parent / f".s3-{os.getpid()}"
        command = [go, "build", "-trimpath", "-mod=readonly", "-ldflags=-s -w", "-o", str(work), _COMMAND]
        environ = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
        done = subprocess.run(command, cwd=recipe, env=environ, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            work.unlink(missing_ok=True)
            raise ServerError(f"go could not build the S3 server:\n{done.stderr[-3000:]}")
        work.rename(target)
    return target


class S3Server:
    """One server on a loopback address nobody uses; a context manager that starts it and removes every trace."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="tidewire-s3-"))
        self.address = free_address(1, (PORT,))
        home = self.directory / "node1"
        command = [
            str(built()), "--port", f"{self.address}:{PORT}", "--access", ACCESS_KEY, "--secret", SECRET_KEY,
            "--quiet", "posix", "--sidecar", str(home / "meta"), str(home / "data"),
        ]  # fmt: skip
        self.node = Node(home, self.address, command, leashed=True)

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://{self.address}:{PORT}"

    @property
    def data(self) -> Path:
        """Where buckets are directories, and objects files."""
        return self.node.home / "data"

    def environ(self) -> dict[str, str]:
        """What a client of it needs to be told."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }

    def start(self) -> None:
        """Starts it and waits until it listens. ServerError when it ends instead."""
        self.data.mkdir(parents=True, exist_ok=True)
        (self.node.home / "meta").mkdir(exist_ok=True)
        self.node.start()
        deadline = time.monotonic() + READY_SECONDS
        while not self._listens():
            self.node.check_running()
            if time.monotonic() > deadline:
                raise ServerError(f"the S3 server is not ready; its log ends:\n{self.node.log_tail()}")
            time.sleep(0.02)

    def make_bucket(self, name: str) -> None:
        """A new bucket."""
        (self.data / name).mkdir()

    def close(self) -> None:
        """Kills it and removes its data."""
        self.node.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _listens(self) -> bool:
        try:
            socket.create_connection((self.address, PORT), timeout=1.0).close()
        except OSError:
            return False
        return True

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
