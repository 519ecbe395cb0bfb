"""The gRPC server that every service has: listener, TLS, health, reflection, limits, connection age, drain.

`tidewire_kit.service.run` builds it; tests do too. Order of life: `add` handlers, `health.add` checks, `start`, serve,
`drain` (health NOT_SERVING, new calls refused with UNAVAILABLE, those in flight finish), `stop`.
"""

from dataclasses import dataclass
from typing import Any

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tidewire_kit.grpc.guard import STREAM_END_SECONDS, Guard
from tidewire_kit.grpc.health import Health
from tidewire_kit.grpc.limits import TRANSPORT_MAX_BYTES
from tidewire_kit.grpc.tls import TlsFiles, server_credentials
from tidewire_kit.net import bind_error, check_listener, join_address, probe
from tidewire_kit.observability.logs import get_logger

_KEEPALIVE_MS = 30_000
_LEAST_PING_INTERVAL_MS = 10_000

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Of one listener. `CommonSettings` and a service's own settings give the values."""

    host: str = "127.0.0.1"
    port: int = 0
    """0: a free one."""
    port_variable: str = "TIDEWIRE_<SERVICE>_PORT"
    """Named by the error when the port is in use."""
    insecure: bool = False
    reflection: bool = False
    max_connection_age_seconds: float = 300.0
    """± 20 %, chosen for each process, so that connections do not all end at once."""
    connection_age_grace_seconds: float = 30.0
    """Time that calls in flight have to finish on a connection that has reached its age. Request streams have it when
    they have reached theirs, which is a little above a connection's."""


class Server:
    """One listener with its services."""

    def __init__(
        self, settings: ServerSettings, tls: TlsFiles | None, guard: Guard, *, jitter: float = 0.0
    ) -> None:
        """`jitter` is -1 to 1, times 20 % of the connections' age; callers pass a random number.

        Raises InvalidArgument for a listener that would be open to the network without TLS.
        """
        check_listener(settings.host, secure=tls is not None, insecure_allowed=settings.insecure)
        self._settings = settings
        self._tls = tls
        self._guard = guard
        guard.stream_age_seconds = _stream_age(settings, jitter)
        self._server = aio.server(options=_options(settings, jitter))
        self._services: list[str] = []
        self._port = 0
        self.health = Health()
        self.address = ""
        """`host:port` once bound."""

    def add(self, handler: grpc.GenericRpcHandler) -> None:
        """Adds a service made by `service_handler`. Before `start`."""
        name = handler.service_name() if isinstance(handler, grpc.ServiceRpcHandler) else None
        if not name:
            raise TypeError("add takes what service_handler returned")
        self._server.add_generic_rpc_handlers((handler,))
        self._services.append(name)
        self.health.serve(name)

    def bind(self) -> str:
        """Takes the port and returns `host:port` with the real one; who connects waits until `start`. Idempotent.

        Raises FailedPrecondition (ADDRESS_IN_USE, ADDRESS_UNUSABLE) naming the address, the setting and the remedy.
        """
        if not self._port:
            self._port = self._bind()
            self.address = join_address(self._settings.host, self._port)
        return self.address

    async def start(self) -> str:
        """Binds unless `bind` did, serves, and runs the health checks once; returns the address. Raises as `bind`."""
        health_pb2_grpc.add_HealthServicer_to_server(self.health.servicer, self._server)
        if self._settings.reflection:
            names = (*self._services, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
            reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), self._server)
        self.bind()
        await self.health.start()  # before the first question can come, so that none is answered by a guess
        await self._server.start()
        return self.address

    async def drain(self, grace_seconds: float) -> bool:
        """Refuses new calls and waits up to `grace_seconds` for those in flight. Returns whether all ended. Idempotent.

        The listener stays up meanwhile, so that refusals are proper answers. Open request streams are ended: their
        servicers answer what was received, then the client is told to connect again.
        """
        await self.health.drain()
        self._guard.drain()
        return await self._guard.idle(grace_seconds)

    async def stop(self, grace_seconds: float = 0.5) -> None:
        """Closes listener and connections, cancelling calls that are left after `grace_seconds`. Idempotent."""
        await self.health.close()
        await self._server.stop(grace_seconds)

    def _bind(self) -> int:
        host, port = self._settings.host, self._settings.port
        address = join_address(host, port)
        try:
            probe(host, port)
            if self._tls is not None:
                bound = self._server.add_secure_port(address, server_credentials(self._tls))
            else:
                bound = self._server.add_insecure_port(address)
        except OSError as error:
            raise bind_error(address, self._settings.port_variable, error) from error
        except RuntimeError as error:
            raise bind_error(address, self._settings.port_variable, OSError(0, str(error))) from error
        return bound


def _connection_age(settings: ServerSettings, jitter: float) -> float:
    return settings.max_connection_age_seconds * (1 + 0.2 * max(-1.0, min(1.0, jitter)))


def _stream_age(settings: ServerSettings, jitter: float) -> tuple[float, float]:
    """Above the age of connections, to which gRPC adds up to a tenth: by the time a stream ends, its client has been
    told to connect anew and has asked for addresses again, so that the next one goes wherever there is room."""
    age = _connection_age(settings, jitter)
    return 1.1 * age, 1.25 * age


def _options(settings: ServerSettings, jitter: float) -> list[tuple[str, Any]]:
    age_ms = round(_connection_age(settings, jitter) * 1000)
    # A stream may have been opened when its connection was about to end: it has its whole age all the same.
    stream_seconds = _stream_age(settings, jitter)[1] + STREAM_END_SECONDS
    grace_seconds = stream_seconds + settings.connection_age_grace_seconds
    return [
        ("grpc.so_reuseport", 0),  # two processes must never share a port by accident
        ("grpc.max_receive_message_length", TRANSPORT_MAX_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_connection_age_ms", age_ms),
        ("grpc.max_connection_age_grace_ms", round(grace_seconds * 1000)),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_MS // 3),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _LEAST_PING_INTERVAL_MS),
        ("grpc.http2.max_ping_strikes", 2),
    ]
