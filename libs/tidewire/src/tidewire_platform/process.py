"""One supervised service process: started, its output collected, started again with back-off when it dies, stopped.

Used by `platform` only. All of it runs on one event loop; nothing here is shared between threads.
"""

import asyncio
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from tidewire_kit.errors import FailedPrecondition
from tidewire_kit.lasting import ended
from tidewire_platform.logs import LogSink, parse_line
from tidewire_platform.specs import ProcessSpec, process_environment

FIRST_BACKOFF_SECONDS = 0.25
MOST_BACKOFF_SECONDS = 5.0
STEADY_SECONDS = 10.0
"""A process that lived this long is healthy: when it dies, the back-off starts anew."""
START_ATTEMPTS = 3
"""A process that dies this often before it ever served is not going to."""
SETTINGS_EXIT_STATUS = 2
"""What a service exits with when a setting is wrong: starting it again cannot help."""
_LINE_LIMIT_BYTES = 1 << 20


class ServiceProcess:
    """A service process that is kept alive between `start` and `stop`."""

    def __init__(self, spec: ProcessSpec, data_dir: Path, environ: Mapping[str, str], sink: LogSink) -> None:
        self.spec = spec
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Raises FailedPrecondition (reason SERVICE_FAILED) when the process cannot be brought up; else pending."""
        self.restarts = 0
        self._data_dir = data_dir
        self._environ = process_environment(spec, data_dir, environ)
        self._sink = sink
        self._served = False
        self._stopping = False
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._last_lines: deque[str] = deque(maxlen=20)

    @property
    def pid(self) -> int | None:
        """The process's id; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Starts the process and the task that keeps it alive."""
        await self._spawn()
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.spec.name}")

    def ended(self) -> str | None:
        """Says so when nothing starts the process again though nobody asked it to stop."""
        return None if self._stopping else ended(self._keeper)

    def mark_serving(self, port: int, metrics_port: int) -> None:
        """Notes that it serves on these ports. A restart asks for the same, so that clients find it again."""
        self._served = True
        prefix = f"TIDEWIRE_{self.spec.service.upper()}_"
        self._environ |= {f"{prefix}PORT": str(port), f"{prefix}METRICS_PORT": str(metrics_port)}

    def request_stop(self) -> None:
        """Asks the process to drain and end; it is not started again."""
        self._stopping = True
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the process at once; it is not started again."""
        self._stopping = True
        self._signal(signal.SIGKILL)

    async def wait_stopped(self) -> None:
        """Returns when the process has ended after `request_stop` or `kill`."""
        if self._keeper is not None:
            await asyncio.wait([self._keeper])

    def _signal(self, number: signal.Signals) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            process.send_signal(number)
        elif self._keeper is not None and self._stopping:
            self._keeper.cancel()  # it waits for the back-off to end

    async def _spawn(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tidewire_platform.child",
            str(os.getpid()),
            self.spec.module,
            env=self._environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LINE_LIMIT_BYTES,
            start_new_session=True,  # a Ctrl-C at the terminal is for the supervisor, which stops them in order
        )
        if self._stopping:  # asked while it was being made
            self._signal(signal.SIGTERM)

    async def _keep(self) -> None:
        attempts, backoff = 0, FIRST_BACKOFF_SECONDS
        while True:
            started = time.monotonic()
            process = self._process
            assert process is not None
            await self._collect(process)
            status = await process.wait()
            if self._stopping:
                self._sink.event("info", "service stopped", process=self.spec.name, exit_status=status)
                return
            attempts += 1
            if not self._served and (status == SETTINGS_EXIT_STATUS or attempts >= START_ATTEMPTS):
                self._fail(status)
                return
            if time.monotonic() - started >= STEADY_SECONDS:
                backoff = FIRST_BACKOFF_SECONDS
            self._sink.event(
                "warning",
                "service died and is started again",
                process=self.spec.name,
                exit_status=status,
                backoff_seconds=backoff,
            )
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, MOST_BACKOFF_SECONDS)
            self.restarts += 1
            await self._spawn()

    async def _collect(self, process: asyncio.subprocess.Process) -> None:
        stream = process.stdout
        assert stream is not None
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # longer than the limit: that part is dropped, what follows is not
                self._sink.event("warning", "an overlong log line was dropped", process=self.spec.name)
                continue
            if not line:
                return
            text = line.decode(errors="replace")
            self._last_lines.append(text.strip())
            self._sink.line(self.spec.name, text)

    def _fail(self, status: int) -> None:
        entries = [parse_line(line) for line in self._last_lines]
        last = entries[-1].get("error") or entries[-1].get("event") if entries else "it said nothing"
        if not self.failure.done():
            self.failure.set_exception(
                FailedPrecondition(
                    f"{self.spec.name} ended with status {status} before it served: {last}. "
                    f"Its log is {self._sink.path(self.spec.name)}",
                    reason="SERVICE_FAILED",
                    subject=self.spec.name,
                )
            )
