"""The connection to a platform: one known address, the registry's, and channels to the services it names.

Clients and publishers share a connection. It owns no retry of streams (publishers do), only that of unary calls, and it
asks the registry again for addresses when a service cannot be reached.
"""

import asyncio
import contextlib
import ipaddress
import json
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Self

import grpc
import grpc.aio

from tidewire.registry.v1 import registry_pb2, registry_pb2_grpc
from tidewire_client.backoff import Backoff
from tidewire_client.errors import InvalidArgument, TidewireError, Unavailable
from tidewire_client.names import last_segment
from tidewire_client.status import from_rpc_error
from tidewire_client.tokens import FileToken, StaticToken, TokenSource

REGISTRY = "registry"
INGESTION = "ingestion"
STORAGE = "storage"
DEFAULT_ENDPOINT = "127.0.0.1:7001"

type Metadata = tuple[tuple[str, str], ...]

_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.max_receive_message_length", -1),  # the server bounds what it sends
    ("grpc.max_send_message_length", -1),  # the server names its own limit when one is too long
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # By its name a pause, in truth the least time that one attempt has: far platforms take some round trips.
    ("grpc.min_reconnect_backoff_ms", 3_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # So often a name may be looked up again when connections end; gRPC's own half minute would keep new pods waiting.
    ("grpc.dns_min_time_between_resolutions_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),  # two connections are two TCP connections
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
]
_REFRESH_SECONDS = 0.5
_SCHEMES = {"": None, "grpc": False, "http": False, "grpcs": True, "https": True}


def split_endpoint(endpoint: str) -> tuple[str, bool | None]:
    """Takes `grpc://host:port`, `grpcs://host:port` or `host:port` apart: (`host:port`, TLS or not or not said).

    Raises InvalidArgument when it is none of these.
    """
    scheme, separator, address = endpoint.rpartition("://")
    host, colon, port = address.rpartition(":")
    if (
        scheme not in _SCHEMES
        or (separator and not scheme)
        or not colon
        or not host
        or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)
        or "/" in address
    ):
        raise InvalidArgument(
            f"'{endpoint}' is not an endpoint; write host:port, such as 127.0.0.1:7001, or grpcs://host:port for TLS",
            field="endpoint",
        )
    return address, _SCHEMES[scheme]


def is_loopback(address: str) -> bool:
    """Whether `host:port` is this machine."""
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def target_of(addresses: tuple[str, ...], turn: int = 0, *, tls: bool = False) -> str:
    """A gRPC target for the addresses of a service.

    Without TLS, addresses that are all IPv4 or all IPv6 make one target that is balanced round robin. Else one is
    taken, another with each `turn`: gRPC cannot list host names, and checks certificates against the whole target.
    """
    if tls:
        addresses = (addresses[turn % len(addresses)],)
    versions: set[int] = set()
    for address in addresses:
        try:
            versions.add(ipaddress.ip_address(address.rpartition(":")[0].strip("[]")).version)
        except ValueError:
            versions.add(0)
    if versions == {4}:
        return "ipv4:" + ",".join(addresses)
    if versions == {6}:
        return "ipv6:" + ",".join(addresses)
    return f"dns:///{addresses[turn % len(addresses)]}"


class AsyncConnection:
    """A connection to one platform as one caller. Belongs to the event loop on which it is first used.

    Args:
        endpoint: the registry's address: `host:port`, `grpc://host:port` (no TLS) or `grpcs://host:port` (TLS). Without
            a scheme TLS is used when `ca_file` is given, and with every address that is not this machine.
        token: token of a user, or a source of tokens, such as `DeviceKey`.
        tenant: tenant id for the names of devices; found by asking when the caller can see one tenant only.
        ca_file: PEM file of the certificate authorities to trust; absent: the system's.
        timeout_seconds: deadline of one unary call.
        retry_seconds: for how long a unary call that finds nobody is repeated; 0: not at all.
        addresses: `{service: host:port}` to use instead of what the registry says, for tunnels.
    """

    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        *,
        token: str | TokenSource | None = None,
        tenant: str = "",
        ca_file: str | os.PathLike[str] | None = None,
        timeout_seconds: float = 30.0,
        retry_seconds: float = 10.0,
        addresses: Mapping[str, str] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._address, self._tls = split_endpoint(endpoint)
        self.ca_file = Path(ca_file) if ca_file else None
        self.token_source: TokenSource | None = StaticToken(token) if isinstance(token, str) else token
        self.timeout_seconds = timeout_seconds
        self.retry_seconds = retry_seconds
        self._tenant = last_segment(tenant)
        self._fixed = {service: (address,) for service, address in (addresses or {}).items()}
        self._fixed.setdefault(REGISTRY, (self._address,))
        self._found: dict[str, tuple[str, ...]] = {}
        self._channels: dict[str, tuple[str, grpc.aio.Channel]] = {}
        self._old: list[grpc.aio.Channel] = []
        self._asked_at = 0.0
        self._turn = random.randrange(1 << 16)  # so that clients do not all begin with the same process
        self._lock = asyncio.Lock()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Self:
        """A connection from TIDEWIRE_ENDPOINT, _TOKEN or _TOKEN_FILE, _TENANT and _CA_FILE."""
        env = os.environ if environ is None else environ
        token_file = env.get("TIDEWIRE_TOKEN_FILE")
        return cls(
            env.get("TIDEWIRE_ENDPOINT") or DEFAULT_ENDPOINT,
            token=env.get("TIDEWIRE_TOKEN") or (FileToken(token_file) if token_file else None),
            tenant=env.get("TIDEWIRE_TENANT", ""),
            ca_file=env.get("TIDEWIRE_CA_FILE") or None,
        )

    def uses_tls(self, *, loopback: bool) -> bool:
        """Whether TLS is used with an address on this machine (`loopback`) or elsewhere."""
        return self._tls if self._tls is not None else bool(self.ca_file) or not loopback

    def metadata(self) -> Metadata:
        """Metadata of the next call: the caller's token."""
        if self.token_source is None:
            return ()
        return (("authorization", f"Bearer {self.token_source.token()}"),)

    async def tenant(self) -> str:
        """The tenant's id: as given, or the only one that the caller sees. InvalidArgument when that is unclear."""
        if not self._tenant:
            request = registry_pb2.ListTenantsRequest(page_size=10)
            answer = await self.call(
                REGISTRY, lambda c: registry_pb2_grpc.RegistryServiceStub(c).ListTenants, request
            )
            if len(answer.tenants) != 1:
                names = ", ".join(last_segment(tenant.name) for tenant in answer.tenants)
                raise InvalidArgument(
                    f"the token sees several tenants ({names}{', …' if answer.next_page_token else ''}); say which"
                    if answer.tenants
                    else "the token sees no tenant; create one first",
                    field="tenant",
                    reason="TENANT_UNCLEAR",
                )
            self._tenant = last_segment(answer.tenants[0].name)
        return self._tenant

    async def addresses(self, service: str, *, refresh: bool = False) -> tuple[str, ...]:
        """Addresses of a service. Raises Unavailable when the registry names none.

        With `refresh` the registry is asked again (at most twice a second); when it cannot be asked, the last answer
        stands.
        """
        if service in self._fixed:
            return self._fixed[service]
        due = time.monotonic() - self._asked_at >= _REFRESH_SECONDS
        if service not in self._found or (refresh and due):
            async with self._lock:
                if service not in self._found or time.monotonic() - self._asked_at >= _REFRESH_SECONDS:
                    await self._ask()
        if not self._found.get(service):
            raise Unavailable(
                f"the registry at {self._address} knows no running {service}; look with `tidewire status`",
                reason="SERVICE_NOT_RUNNING",
            )
        return self._found[service]

    def known_addresses(self, service: str) -> tuple[str, ...]:
        """Addresses of a service as far as they are known, for messages; asks nobody."""
        return self._fixed.get(service) or self._found.get(service) or ()

    async def _ask(self) -> None:
        stub = registry_pb2_grpc.RegistryServiceStub(await self.channel(REGISTRY))
        try:
            answer = await stub.GetEndpoints(
                registry_pb2.GetEndpointsRequest(),
                metadata=self.metadata(),
                timeout=min(5.0, self.timeout_seconds),
            )
        except grpc.aio.AioRpcError as error:
            if self._found:
                return
            raise from_rpc_error(error, REGISTRY, self._address) from error
        finally:
            self._asked_at = time.monotonic()
        self._found = {endpoint.service: tuple(endpoint.addresses) for endpoint in answer.endpoints}

    async def services(self) -> dict[str, tuple[str, ...]]:
        """All services that the registry names, with their addresses."""
        await self._ask()
        return {REGISTRY: (self._address,)} | self._found | self._fixed

    async def channel(self, service: str, *, refresh: bool = False) -> grpc.aio.Channel:
        """The channel to a service; with `refresh` a new one when its addresses have changed.

        A channel that was replaced stays open until the connection is closed or two more have been replaced, so that
        calls under way can end.
        """
        addresses = await self.addresses(service, refresh=refresh)
        if refresh:
            self._turn += 1
        loopback = all(is_loopback(address) for address in addresses)
        target = target_of(addresses, self._turn, tls=self.uses_tls(loopback=loopback))
        known = self._channels.get(service)
        if known is not None and known[0] == target:
            return known[1]
        if known is not None:
            self._old.append(known[1])
            if len(self._old) > 2:
                await self._old.pop(0).close()
        channel = self.open_channel(target, loopback=loopback)
        self._channels[service] = (target, channel)
        return channel

    def open_channel(self, target: str, *, loopback: bool = False) -> grpc.aio.Channel:
        """A channel of its own to a gRPC target, with this connection's TLS; the caller closes it."""
        options = [*_OPTIONS, ("grpc.enable_http_proxy", 0)] if loopback else _OPTIONS
        if not self.uses_tls(loopback=loopback):
            return grpc.aio.insecure_channel(target, options)
        try:
            roots = self.ca_file.read_bytes() if self.ca_file else None
        except OSError as error:
            raise InvalidArgument(
                f"the CA file {self.ca_file} cannot be read: {error.strerror}", field="ca_file"
            ) from error
        return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(roots), options)

    async def call[Request, Response](
        self,
        service: str,
        method: Callable[[grpc.aio.Channel], Callable[..., Awaitable[Response]]],
        request: Request,
        *,
        timeout_seconds: float | None = None,
    ) -> Response:
        """Makes a unary call, again with back-off while nobody can be reached, until `retry_seconds` have passed.

        `method` gets the channel and gives the callable, as `lambda c: RegistryServiceStub(c).GetTenant`. Raises
        TidewireError.
        """

        async def once() -> Response:
            channel = await self.channel(service)
            try:
                return await method(channel)(
                    request, metadata=self.metadata(), timeout=timeout_seconds or self.timeout_seconds
                )
            except grpc.aio.AioRpcError as failure:
                raise from_rpc_error(failure, service, ", ".join(self.known_addresses(service))) from failure

        return await self.retrying(service, once)

    async def retrying[Result](self, service: str, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Repeats what cannot reach a service until `retry_seconds` have passed, each time at its latest addresses.

        A token that is refused is renewed once, if its source has another.
        """
        backoff = Backoff()
        give_up_at = time.monotonic() + self.retry_seconds
        renewed = False
        while True:
            try:
                return await attempt()
            except TidewireError as error:
                if error.code == "UNAUTHENTICATED" and not renewed and self._has_other_token():
                    renewed = True
                    continue
                delay = backoff.next_delay(error.retry_delay_seconds)
                if error.code != "UNAVAILABLE" or time.monotonic() + delay > give_up_at:
                    raise
            await asyncio.sleep(delay)
            with contextlib.suppress(Unavailable):  # the next attempt says so itself
                await self.channel(service, refresh=True)

    def _has_other_token(self) -> bool:
        """Renews the token; whether it is another one now."""
        if self.token_source is None:
            return False
        before = self.token_source.token()
        self.token_source.renew()
        return self.token_source.token() != before

    async def close(self) -> None:
        """Closes every channel; calls under way end with an error."""
        channels = [channel for _, channel in self._channels.values()] + self._old
        self._channels.clear()
        self._old.clear()
        for channel in channels:
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
