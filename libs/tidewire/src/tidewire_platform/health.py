"""The health of a platform that runs by `tidewire up`, on one page for all its services: for a container's probes.

Asks the services' own pages each time. Made by `foreground` when a port is named; lives from before the services start
until after they have stopped, so that whoever asks is told at every moment.
"""

import asyncio
import enum
import json
from collections.abc import Mapping, Sequence

from tidewire_kit.observability.http import MetricsServer
from tidewire_platform.platform import Platform
from tidewire_platform.process import ServiceProcess

SECONDS = 2.0
"""Longest time that a service has to answer; a probe's own time limit has to be longer."""
_MOST_BYTES = 1 << 16
_OPTION = "--health-port"


class Silence(enum.Enum):
    """How a service's page says nothing."""

    HANGS = enum.auto()
    """The connection stands, and no answer comes in time."""
    BROKEN = enum.auto()
    """Nobody listens, or whoever did is gone in the middle of it."""


class HealthPage:
    """GET /readyz (= /healthz), /startupz and /livez with the meanings of `tidewire_kit.grpc.health`."""

    def __init__(self) -> None:
        self._platform: Platform | None = None
        self._stopping = False
        self._answered: dict[str, int] = {}
        pages = {
            "/readyz": self.ready,
            "/healthz": self.ready,
            "/startupz": self.started,
            "/livez": self.alive,
        }
        self._server = MetricsServer(None, pages)

    async def start(self, host: str, port: int) -> str:
        """Listens and returns `host:port`; FailedPrecondition when the port cannot be had."""
        return await self._server.start(host, port, _OPTION)

    async def close(self) -> None:
        """Stops listening. Idempotent."""
        await self._server.close()

    def serving(self, platform: Platform) -> None:
        """All services serve."""
        self._platform = platform

    def stopping(self) -> None:
        """The platform is being stopped."""
        self._stopping = True

    async def started(self) -> Mapping[str, str]:
        """Empty for ever once all services have served."""
        return {} if self._platform is not None else {"start": "the services are starting"}

    async def ready(self) -> Mapping[str, str]:
        """Service and check → why it fails; empty while every service is ready."""
        if self._stopping:
            return {"drain": "stopping"}
        failures = dict(await self.started())
        for process, _, found in await self._ask("/readyz"):
            if isinstance(found, Silence):
                failures[process.spec.name] = "does not answer"
            else:
                failures |= {f"{process.spec.name}/{check}": why for check, why in found.items()}
        return failures

    async def alive(self) -> Mapping[str, str]:
        """Service → why only a new container heals it.

        A service that died is started again by its keeper, so it counts only when the keeper has ended. One that lives
        counts when it says so itself, and when it keeps whoever asks waiting though it once answered: its loop hangs.
        A refused or broken connection is no such sign: a process whose end nobody has noticed yet does the same.
        """
        failures: dict[str, str] = {}
        if self._stopping:
            return failures
        for process, pid, found in await self._ask("/livez"):
            name = process.spec.name
            asked = pid if pid == process.pid else None  # it may have been replaced meanwhile
            if (why := process.ended()) is not None:
                failures[name] = why
            elif isinstance(found, Silence):
                if found is Silence.HANGS and asked is not None and self._answered.get(name) == asked:
                    failures[name] = f"does not answer within {SECONDS:g} s"
            elif found:
                failures |= {f"{name}/{lifeline}": why for lifeline, why in found.items()}
            elif asked is not None:
                self._answered[name] = asked
        return failures

    async def _ask(self, path: str) -> Sequence[tuple[ServiceProcess, int | None, dict[str, str] | Silence]]:
        """What each service's page says, or how it says nothing; with the process as it was when it was asked."""
        platform = self._platform
        if platform is None:
            return ()
        pids = [process.pid for process in platform.processes]
        addresses = [platform.endpoints[process.spec.name].metrics_address for process in platform.processes]
        found = await asyncio.gather(*(_page(address, path) for address in addresses))
        return list(zip(platform.processes, pids, found, strict=True))


async def _page(address: str, path: str) -> dict[str, str] | Silence:
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(SECONDS):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), limit=_MOST_BYTES)
            try:
                writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
                answer = await reader.read(-1)
            finally:
                writer.close()
        return dict(json.loads(answer.partition(b"\r\n\r\n")[2]))
    except TimeoutError:
        return Silence.HANGS
    except (OSError, ValueError):
        return Silence.BROKEN
