"""The platform on this machine as one thing that starts and stops: `up` runs it in the foreground, `demo` beside its
work. On the distributed backend the services run here and their data is in Kafka and Cassandra.

Start: lock the data directory, start all processes at once, wait until each says SERVING; the registry makes keys and
tokens where there are none. Stop: in the order of `STOP_ORDER`, each tier when the one before has ended, so that what
was acknowledged is written before its writer goes.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Coroutine, Mapping
from pathlib import Path
from typing import Any, TextIO

from tidewire_kit.datadir import DataDir, open_data_dir
from tidewire_kit.endpoints import Endpoint
from tidewire_kit.errors import InvalidArgument, Unavailable
from tidewire_kit.settings import CommonSettings, load
from tidewire_platform.lock import ExclusiveLock
from tidewire_platform.logs import LogSink
from tidewire_platform.ports import check_ports
from tidewire_platform.process import ServiceProcess
from tidewire_platform.specs import STOP_ORDER, PlatformOptions, process_specs

START_SECONDS = 60.0
"""Longest wait until all serve; a first start takes two seconds, a log to recover or a loaded machine more."""
DRAIN_GRACE_SECONDS = 2.0
"""Beyond its own drain time a process gets this much to end before it is killed."""


def ca_file_of(settings: CommonSettings) -> Path | None:
    """The certificate authority that clients need; None without TLS. A certificate without one is its own."""
    return (settings.tls_ca_file or settings.tls_cert_file) if settings.tls_cert_file else None


class Interrupted(Exception):
    """The user did not want to wait until it was done."""


class Platform:
    """The running platform. Made by `running_platform` only."""

    def __init__(
        self,
        options: PlatformOptions,
        data_dir: DataDir,
        settings: CommonSettings,
        environ: Mapping[str, str],
        sink: LogSink,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.options = options
        self.data_dir = data_dir
        self.sink = sink
        self.notes = notes
        """What was done before the start, for people."""
        self.endpoints: dict[str, Endpoint] = {}
        self._drain_seconds = settings.drain_seconds
        self.ca_file = ca_file_of(settings)
        self.processes = [
            ServiceProcess(spec, data_dir.root, environ, sink) for spec in process_specs(options)
        ]

    @property
    def endpoint(self) -> str:
        """The one address that clients need: the registry's."""
        first = next(process.spec.name for process in self.processes if process.spec.service == "registry")
        return self.endpoints[first].address

    async def start(self) -> None:
        """Starts all processes and waits until all serve; FailedPrecondition, Unavailable when one does not."""
        check_ports(process.spec for process in self.processes)
        await asyncio.gather(*(process.start() for process in self.processes))
        waits = [asyncio.create_task(self._wait_serving(process)) for process in self.processes]
        failures = [process.failure for process in self.processes]
        try:
            async with asyncio.timeout(START_SECONDS):
                pending: set[asyncio.Future[None]] = {*waits}
                while pending:
                    done, _ = await asyncio.wait({*pending, *failures}, return_when=asyncio.FIRST_COMPLETED)
                    for future in done:
                        future.result()
                    pending -= done
        except TimeoutError:
            late = [p.spec.name for p in self.processes if p.spec.name not in self.endpoints]
            raise Unavailable(
                ", ".join(late),
                f"not serving after {START_SECONDS:.0f} s; see {self.sink.path(late[0]).parent}",
            ) from None
        finally:
            for wait in waits:
                wait.cancel()
        self.sink.event("info", "platform serving", endpoint=self.endpoint)

    async def _wait_serving(self, process: ServiceProcess) -> None:
        # Only now: importing gRPC takes long, and the processes are under way meanwhile.
        from tidewire_platform.serving import port_of, wait_serving

        tls_ca = self.ca_file.read_bytes() if self.ca_file else None
        while True:
            pid = process.pid
            if pid is None:  # died, about to be started again
                await asyncio.sleep(0.05)
                continue
            waiting = asyncio.create_task(wait_serving(self.data_dir, process.spec.service, pid, tls_ca))
            try:
                while not waiting.done() and process.pid == pid:
                    await asyncio.wait([waiting], timeout=0.1)
                if waiting.done():
                    endpoint = waiting.result()
                    process.mark_serving(port_of(endpoint.address), port_of(endpoint.metrics_address))
                    self.endpoints[process.spec.name] = endpoint
                    return
            finally:
                waiting.cancel()

    async def stop(self) -> None:
        """Stops all processes in order. Those that do not end within their drain time are killed."""
        for service in STOP_ORDER:
            tier = [process for process in self.processes if process.spec.service == service]
            for process in tier:
                process.request_stop()
            stopped = asyncio.gather(*(process.wait_stopped() for process in tier))
            try:
                await asyncio.wait_for(asyncio.shield(stopped), self._drain_seconds + DRAIN_GRACE_SECONDS)
            except TimeoutError:
                names = [process.spec.name for process in tier if process.pid is not None]
                self.sink.event("error", "killed: did not end within the drain time", processes=names)
                for process in tier:
                    process.kill()
                await stopped
        self.sink.event("info", "platform stopped")

    def kill(self) -> None:
        """Ends all processes at once, for a user who does not want to wait."""
        for process in self.processes:
            process.kill()


@contextlib.asynccontextmanager
async def running_platform(
    options: PlatformOptions,
    command: str,
    stop: asyncio.Event,
    environ: Mapping[str, str] | None = None,
    terminal: TextIO | None = None,
) -> AsyncIterator[Platform]:
    """Starts the platform over `options.data_dir`, yields it serving, and stops it in order.

    Raises FailedPrecondition (reasons PLATFORM_RUNNING, PORT_IN_USE, SERVICE_FAILED, those of the data directory and of
    the distributed backend), InvalidArgument and Unavailable; Interrupted when `stop` is set before all serve. Whatever
    was started by then is stopped.
    """
    variables = os.environ if environ is None else environ
    settings = load(CommonSettings, variables)
    if settings.backend == "embedded" and options.registry_processes > 1:
        raise InvalidArgument(
            "--registry-processes", "the embedded backend has one registry; leave the option out"
        )
    data_dir = open_data_dir(options.data_dir)
    lock = ExclusiveLock(
        data_dir.run / "up.lock",
        command=command,
        remedy="Use that one (`tidewire status`), stop it first, or give this one another --data-dir",
    )
    with lock:
        sink = LogSink(data_dir.run / "logs", terminal)
        notes: tuple[str, ...] = ()
        if settings.backend == "distributed":
            # Only then: it imports the drivers.
            from tidewire_platform.distributed import prepare

            prepared = await unless(stop, prepare(data_dir, settings, variables))
            variables, notes = prepared.environ, prepared.notes
        platform = Platform(options, data_dir, settings, variables, sink, notes)
        try:
            await unless(stop, platform.start())
            sink.show_warnings()
            yield platform
        finally:
            await asyncio.shield(platform.stop())
            sink.close()


async def unless[T](stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    """Does the work, unless `stop` is set before it is done: then it is cancelled and Interrupted is raised."""
    working, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    both: set[asyncio.Task[Any]] = {working, stopped}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Interrupted
        return working.result()
    finally:
        working.cancel()
        stopped.cancel()
