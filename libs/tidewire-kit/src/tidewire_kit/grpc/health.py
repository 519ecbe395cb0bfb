"""Health that says what is true: registered checks, polled, behind grpc.health.v1 and the pages of the metrics port.

Three questions with three answers, each a service name of grpc.health.v1 and a page:

- ready ("" and the names of the services; /readyz, /healthz): send calls here now. SERVING only while every check
  passes and the process is not stopping; a check that hangs or raises counts as failed. When the process stops this
  turns first, so that balancers send nothing more before calls are refused.
- `startup` (/startupz): the process has started. SERVING for ever after; not known before.
- `liveness` (/livez): the process can still work by itself. It is no mirror of what it depends on, as a restart heals
  no broker: only lifelines (see `tidewire_kit.lasting`) turn it NOT_SERVING. A loop that hangs answers nothing.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from grpc_health.v1 import health, health_pb2

from tidewire_kit.lasting import Lifeline, ended
from tidewire_kit.observability.logs import get_logger

POLL_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 0.2
"""Between polls while something fails, so that a start, or a recovery, is seen at once."""
CHECK_TIMEOUT_SECONDS: Final = 2.0
STARTUP: Final = "startup"
LIVENESS: Final = "liveness"

Check = Callable[[], Awaitable[str | None]]
"""Returns None when all is well, otherwise why it is not, for people."""

logger = get_logger(__name__)


class Health:
    """The checks of a process and what they last said."""

    def __init__(self, *, poll_seconds: float = POLL_SECONDS) -> None:
        self.servicer = health.aio.HealthServicer()
        self._poll_seconds = poll_seconds
        self._checks: dict[str, Check] = {}
        self._lifelines: dict[str, Lifeline] = {}
        self._dead: dict[str, str] = {}
        self._started = False
        self._services: list[str] = []
        self._task: asyncio.Task[None] | None = None
        self._failures: dict[str, str] = {"start": "not checked yet"}
        self._draining = False

    @property
    def failures(self) -> dict[str, str]:
        """Check → why it fails; empty when the process serves."""
        return {**self._failures, **({"drain": "stopping"} if self._draining else {})}

    @property
    def dead(self) -> dict[str, str]:
        """Lifeline → why only a new process heals it; empty while this one can work."""
        why = None if self._draining else ended(self._task)
        return {**self._dead, **({"health": why} if why else {})}

    @property
    def not_started(self) -> dict[str, str]:
        """Empty for ever once the process has started."""
        return {} if self._started else {"start": "the process is starting"}

    def add(self, name: str, check: Check) -> None:
        """Registers a check of readiness, such as `log` or `registry-replica`."""
        self._checks[name] = check

    def rest_on(self, name: str, lifeline: Lifeline) -> None:
        """Registers what the process cannot work without, and only a restart brings back."""
        self._lifelines[name] = lifeline

    def serve(self, service: str) -> None:
        """Reports health under this full service name too, not only for the whole server ("")."""
        self._services.append(service)

    async def start(self) -> None:
        """Checks once, then every 2 s (0.2 s while something fails) until `drain` or `close`."""
        self._started = True
        await self.poll()
        self._task = asyncio.create_task(self._poll_for_ever(), name="health")

    async def poll(self) -> None:
        """Runs all checks now, side by side, and reports the outcome."""
        dead = {name: why for name, lifeline in self._lifelines.items() if (why := lifeline()) is not None}
        if dead and dead != self._dead:
            logger.error("process_cannot_go_on", lifelines=dead)
        self._dead = dead
        names = list(self._checks)
        outcomes = await asyncio.gather(*(self._run(self._checks[name]) for name in names))
        failures = {name: why for name, why in zip(names, outcomes, strict=True) if why is not None}
        if failures != self._failures:
            log = logger.warning if failures else logger.info
            log("health_changed", failures=failures)
        self._failures = failures
        await self._report()

    async def drain(self) -> None:
        """Turns NOT_SERVING for good."""
        self._draining = True
        await self.close()
        await self._report()

    async def close(self) -> None:
        """Stops polling."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _poll_for_ever(self) -> None:
        while True:
            await asyncio.sleep(
                min(RETRY_SECONDS, self._poll_seconds) if self._failures else self._poll_seconds
            )
            await self.poll()

    async def _run(self, check: Check) -> str | None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
                return await check()
        except TimeoutError:
            return f"no answer within {CHECK_TIMEOUT_SECONDS:g} s"
        except Exception as error:  # noqa: BLE001 - whatever a check raises is its outcome
            return f"{type(error).__name__}: {error}"

    async def _report(self) -> None:
        states = health_pb2.HealthCheckResponse
        ready = states.NOT_SERVING if self.failures else states.SERVING
        alive = states.NOT_SERVING if self.dead else states.SERVING
        for service in ("", *self._services):
            await self.servicer.set(service, ready)
        await self.servicer.set(LIVENESS, alive)
        await self.servicer.set(STARTUP, states.SERVING)
