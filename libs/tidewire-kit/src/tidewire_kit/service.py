"""The life of a service's process, the same for all: what is opened, in which order, and how it is let go.

A service's main is a parts list:

    def build(ctx: ServiceContext[Settings]) -> ServiceParts: ...

    def run() -> int:
        return service.run("ingestion", Settings, build)

`run` reads the settings, opens data directory, log and directory, calls `build`, starts the parts, serves, and at
SIGTERM or SIGINT drains: NOT_SERVING, refuse, finish what was accepted, flush, acknowledge, close. Tests use
`running_service` to do the same inside their own process.
"""

import asyncio
import contextlib
import gc
import itertools
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Final, Protocol

import grpc
import uvloop
from grpc import aio
from prometheus_client import CollectorRegistry

from tidewire_kit import backend, topics
from tidewire_kit.clock import Clock, SystemClock
from tidewire_kit.datadir import DataDir, open_data_dir
from tidewire_kit.directory import Directory
from tidewire_kit.endpoints import Endpoint, add_endpoint, read_endpoints, remove_endpoint
from tidewire_kit.errors import InvalidArgument, TidewireError, Unavailable
from tidewire_kit.grpc import (
    Check,
    Guard,
    Health,
    Server,
    ServerSettings,
    TokenFile,
    channel,
    channel_credentials,
    tls_files,
)
from tidewire_kit.identity import TokenVerifier
from tidewire_kit.lasting import Lifeline
from tidewire_kit.log.port import MemberProfile, MessageLog
from tidewire_kit.net import advertised, local
from tidewire_kit.observability import logs, traces
from tidewire_kit.observability.http import MetricsServer, Page
from tidewire_kit.observability.metrics import RpcMetrics, new_registry
from tidewire_kit.settings import CommonSettings, SettingsClass, load, unknown_variables

EXIT_FAILED: Final = 1
EXIT_BAD_SETTINGS: Final = 2

_turns = itertools.count(random.randrange(1 << 16))  # processes do not all begin with the same one

logger = logs.get_logger(__name__)


class ServiceSettings(Protocol):
    """What a service's own settings have at least."""

    PREFIX: ClassVar[str]

    @property
    def port(self) -> int:
        """Of the gRPC listener; 0: a free one."""

    @property
    def metrics_port(self) -> int:
        """Of /metrics and the pages of health; 0: a free one."""


@dataclass(frozen=True, slots=True)
class ServiceContext[S: ServiceSettings]:
    """What every service gets; opened and ready when `build` is called, except that the directory may still replay."""

    name: str
    settings: S
    common: CommonSettings
    clock: Clock
    data_dir: DataDir
    log: MessageLog
    directory: Directory
    verifier: TokenVerifier
    guard: Guard
    metrics: CollectorRegistry
    environ: Mapping[str, str]
    """What adapters' own settings are loaded from."""

    def channel_to(self, service: str) -> aio.Channel:
        """Returns a channel to another service, with TLS and the service token as the settings say.

        It leads to one process of that service; calls take turns among those that live. They are known by the data
        directory (embedded) or by the members of the log (distributed); of the registry, when neither names one, by
        the setting TIDEWIRE_ENDPOINT. Otherwise Unavailable is raised. Make the channel late (at the first call), as
        the other service may still be starting, and anew when calls fail with UNAVAILABLE, as it may have come back
        elsewhere and another process of it may answer.
        """
        common = self.common
        addresses = self._addresses_of(service)
        if not addresses and service == "registry" and common.endpoint:
            addresses = [common.endpoint]
        if not addresses:
            raise Unavailable(service, "is not running here; try again shortly")
        address = addresses[next(_turns) % len(addresses)]
        tls = None
        if common.tls_cert_file is not None:
            own = (common.tls_cert_file, common.tls_key_file) if common.tls_client_ca_file else (None, None)
            tls = channel_credentials(common.tls_ca_file, *own)
        return channel(address, tls, TokenFile(common.service_token_file or self.data_dir.service_token_file))

    def _addresses_of(self, service: str) -> list[str]:
        if self.common.backend == "embedded":
            return [endpoint.address for endpoint in read_endpoints(self.data_dir).get(service, [])]
        return [
            member.addresses["grpc"] for member in self.log.members(service) if "grpc" in member.addresses
        ]


async def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class ServiceParts:
    """What a service is made of, in the order in which `run` uses it."""

    handlers: Sequence[grpc.GenericRpcHandler]
    """Made by `service_handler`."""
    start: Callable[[], Awaitable[None]] = _nothing
    """Awaited before serving, with the directory replayed: open stores, start consumers and producers."""
    drain: Callable[[], Awaitable[None]] = _nothing
    """Awaited when no call is in flight any more: stop consumers, flush, commit."""
    close: Callable[[], Awaitable[None]] = _nothing
    """Awaited last, also when `start` failed: close stores. The log is still open."""
    checks: Mapping[str, Check] = field(default_factory=dict)
    """Health checks, by name, besides those of the log and the replica."""
    lifelines: Mapping[str, Lifeline] = field(default_factory=dict)
    """What only a restart heals when it ends, by name, besides the log and the replica."""


type Build[S: ServiceSettings] = Callable[[ServiceContext[S]], ServiceParts]


@dataclass(frozen=True, slots=True)
class RunningService:
    """A service that serves."""

    address: str
    metrics_address: str
    parts: ServiceParts
    server: Server
    directory: Directory
    log: MessageLog


def run[S: ServiceSettings](
    name: str,
    settings_cls: type[S],
    build: Build[S],
    environ: Mapping[str, str] | None = None,
    *,
    device_facts: bool = False,
) -> int:
    """Runs a service until SIGTERM or SIGINT; returns the exit status: 0 stopped in order, 1 failed, 2 bad settings.

    With `device_facts` the directory keeps devices' labels and so on. `--check-config` on the command line only checks
    the settings.
    """
    environ = dict(os.environ) if environ is None else environ
    try:
        common = load(CommonSettings, environ)
        settings = load(settings_cls, environ)
        tls_files(common)
        backend.check_settings(common, environ)
    except InvalidArgument as error:
        sys.stderr.write(f"tidewire-{name}: {error.message}\n")
        return EXIT_BAD_SETTINGS
    if "--check-config" in sys.argv[1:]:
        return 0
    read: list[type[SettingsClass]] = [CommonSettings, settings_cls, *backend.settings_classes(common)]
    logs.configure(name, level=common.log_level, form=common.log_format)
    for variable, near in unknown_variables(environ, read).items():
        logger.warning("setting_unknown", variable=variable, did_you_mean=near)
    stop_traces = traces.configure(name, environ)
    try:
        # uvloop: a quarter less CPU per gRPC call than asyncio's own loop (benchmarks/README.md).
        uvloop.run(_serve(name, settings, common, build, environ, device_facts=device_facts))
    except InvalidArgument as error:
        logger.error("start_failed", error=error.message, reason=error.reason)
        return EXIT_BAD_SETTINGS
    except TidewireError as error:
        logger.error("start_failed", error=error.message, reason=error.reason)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_FAILED  # a second Ctrl-C: the user did not want to wait for the drain
    finally:
        stop_traces()
    return 0


@contextlib.asynccontextmanager
async def running_service[S: ServiceSettings](
    name: str,
    settings: S,
    common: CommonSettings,
    build: Build[S],
    *,
    clock: Clock | None = None,
    log: MessageLog | None = None,
    environ: Mapping[str, str] = MappingProxyType({}),
    device_facts: bool = False,
) -> AsyncIterator[RunningService]:
    """A service inside this process and loop, serving within the block, drained and closed after it.

    `log` is one that is already started and stays open; None opens the backend's. `environ` has the settings of the
    backend's adapters. `device_facts` as in `run`.
    """
    clock = clock or SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        data_dir = open_data_dir(common.data_dir)
        metrics = new_registry()
        if log is None:
            log = backend.open_log(common, environ, data_dir, metrics)
            stack.push_async_callback(log.close)
            await log.start()
        await log.ensure_topics(backend.topic_specs(common, environ))
        directory = Directory(log, clock, log.partitions(topics.TELEMETRY), device_facts=device_facts)
        await directory.start()
        stack.push_async_callback(directory.close)
        guard = Guard(TokenVerifier(directory, clock), RpcMetrics(metrics))
        server = Server(
            _server_settings(settings, common), tls_files(common), guard, jitter=random.uniform(-1, 1)
        )
        stack.push_async_callback(server.stop)
        server.bind()  # before anything is started: a port in use is the most likely reason to fail
        metrics_server = MetricsServer(metrics, _pages(server.health))
        metrics_address = await metrics_server.start(
            common.host, settings.metrics_port, f"{settings.PREFIX}METRICS_PORT"
        )
        stack.push_async_callback(metrics_server.close)

        context = ServiceContext(
            name, settings, common, clock, data_dir, log, directory, guard.verifier, guard, metrics, environ
        )
        parts = build(context)
        stack.push_async_callback(parts.close)
        for handler in parts.handlers:
            server.add(handler)
        server.health.add("log", _log_check(log))
        for check_name, check in parts.checks.items():
            server.health.add(check_name, check)
        lifelines = {"log": log.ended, "registry-replica": directory.ended, **parts.lifelines}
        for lifeline_name, lifeline in lifelines.items():
            server.health.rest_on(lifeline_name, lifeline)
        await directory.ready()
        await parts.start()
        bound = await server.start()
        address = advertised(bound, common.advertise_host)
        # Who shares the directory shares the machine, and needs no name for it; but a certificate is for a name.
        here = address if common.tls_cert_file is not None else local(bound)
        endpoint = Endpoint(here, local(metrics_address), os.getpid())
        metrics_address = advertised(metrics_address, common.advertise_host)
        add_endpoint(data_dir, name, endpoint)
        stack.callback(remove_endpoint, data_dir, name, endpoint)
        await log.announce(MemberProfile(name, {"grpc": address, "metrics": metrics_address}))
        logger.info(
            "serving", address=address, metrics_address=metrics_address, failures=server.health.failures
        )
        try:
            yield RunningService(address, metrics_address, parts, server, directory, log)
        finally:
            remove_endpoint(data_dir, name, endpoint)
            await _drain(server, parts, common.drain_seconds)


async def _serve[S: ServiceSettings](
    name: str,
    settings: S,
    common: CommonSettings,
    build: Build[S],
    environ: Mapping[str, str],
    *,
    device_facts: bool,
) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, stopping, number)
    running = running_service(name, settings, common, build, environ=environ, device_facts=device_facts)
    async with running:
        # What start-up made stays: without this, each full collection would walk over a hundred thousand devices.
        gc.freeze()
        await stopping.wait()
        logger.info("stopping")
    logger.info("stopped")


def _on_signal(stopping: asyncio.Event, number: int) -> None:
    if stopping.is_set() and number == signal.SIGINT:
        raise KeyboardInterrupt
    stopping.set()


async def _drain(server: Server, parts: ServiceParts, seconds: float) -> None:
    """Lets go in order, within `seconds` altogether; what was not accepted by then is refused, never half done."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    # A third is kept for the parts: their commits matter more than the last open calls.
    if not await server.drain(seconds * 2 / 3):
        logger.warning("drain_incomplete", calls_in_flight=True)
    await server.stop(0.1)
    try:
        async with asyncio.timeout_at(deadline):
            await parts.drain()
    except TimeoutError:
        logger.error("drain_timed_out", seconds=seconds)


def _log_check(log: MessageLog) -> Check:
    async def check() -> str | None:
        await log.end_offsets(topics.TELEMETRY)
        return None

    return check


def _pages(health: Health) -> dict[str, Page]:
    async def ready() -> Mapping[str, str]:
        return health.failures

    async def alive() -> Mapping[str, str]:
        return health.dead

    async def started() -> Mapping[str, str]:
        return health.not_started

    return {"/readyz": ready, "/healthz": ready, "/livez": alive, "/startupz": started}


def _server_settings(settings: ServiceSettings, common: CommonSettings) -> ServerSettings:
    return ServerSettings(
        host=common.host,
        port=settings.port,
        port_variable=f"{settings.PREFIX}PORT",
        insecure=common.insecure,
        reflection=common.reflection,
        max_connection_age_seconds=common.max_connection_age_seconds,
    )
