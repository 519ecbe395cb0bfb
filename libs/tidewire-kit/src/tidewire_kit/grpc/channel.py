"""Channels from one service of the platform to another: address, TLS, and the service token on every call.

The token is read from its file again when the file changes, so it can be rotated without a restart. Errors of calls
are turned into ours by `tidewire_kit.grpc.status.from_rpc_error`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from tidewire_kit.errors import Unavailable
from tidewire_kit.grpc.limits import TRANSPORT_MAX_BYTES

TokenSource = Callable[[], str]
"""Returns the token to send now. Called for each call, so it must be quick."""


class TokenFile:
    """A token in a file, read again when the file is replaced."""

    __slots__ = ("_path", "_stamp", "_token")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] = (0, 0, 0)
        self._token = ""

    def __call__(self) -> str:
        """Returns the token; Unavailable naming the file when it cannot be read."""
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if stamp != self._stamp:
                self._token = self._path.read_text().strip()
                self._stamp = stamp
        except OSError as error:
            raise Unavailable(
                "service token",
                f"{self._path}: {error.strerror}; `tidewire admin bootstrap` makes it, or set "
                "TIDEWIRE_SERVICE_TOKEN_FILE",
            ) from error
        return self._token


def channel(
    address: str, tls: grpc.ChannelCredentials | None, token_source: TokenSource | None
) -> aio.Channel:
    """Returns a channel to `address` (`host:port`); it connects at the first call and again after failures."""
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", 4 * TRANSPORT_MAX_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        # Of a name with several addresses all are used, and it is looked up again soon when connections end.
        ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
        ("grpc.dns_min_time_between_resolutions_ms", 2_000),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.enable_retries", 0),  # callers decide what is safe to repeat
    ]
    interceptors: list[aio.ClientInterceptor] = []
    if token_source is not None:
        interceptors = [_UnaryToken(token_source), _StreamToken(token_source)]
    if tls is None:
        return aio.insecure_channel(address, options=options, interceptors=interceptors)
    return aio.secure_channel(address, tls, options=options, interceptors=interceptors)


def _with_token(details: aio.ClientCallDetails, source: TokenSource) -> aio.ClientCallDetails:
    metadata = aio.Metadata(*(details.metadata or ()))
    metadata["authorization"] = f"Bearer {source()}"
    return aio.ClientCallDetails(
        details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
    )


class _UnaryToken(aio.UnaryUnaryClientInterceptor):
    def __init__(self, source: TokenSource) -> None:
        self._source = source

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(_with_token(client_call_details, self._source), request)


class _StreamToken(aio.UnaryStreamClientInterceptor):
    def __init__(self, source: TokenSource) -> None:
        self._source = source

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(_with_token(client_call_details, self._source), request)
