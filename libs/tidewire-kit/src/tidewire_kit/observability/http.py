"""The pages of a process, /metrics (Prometheus) and those of its health, on a port of their own, on its loop.

A hand-written answer to a few GETs: a web framework, or a thread that competes for the interpreter, would be more than
it is worth.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from tidewire_kit.net import bind_error, join_address

_REQUEST_SECONDS: Final = 5.0
_MAX_HEADER_LINES: Final = 100

Page = Callable[[], Awaitable[Mapping[str, str]]]
"""Returns what fails → why; empty: all is well."""


class MetricsServer:
    """Serves GET /metrics and the pages of health: 200 `{}`, or 503 with what fails as JSON."""

    def __init__(self, registry: CollectorRegistry | None, pages: Mapping[str, Page]) -> None:
        """`pages` maps paths, such as `/readyz`, to what they say; None as `registry`: there is no /metrics."""
        self._registry = registry
        self._pages = pages
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int, port_variable: str) -> str:
        """Listens and returns `host:port` with the real port; FailedPrecondition naming `port_variable` otherwise."""
        try:
            self._server = await asyncio.start_server(self._answer, host, port, limit=8192)
        except OSError as error:
            raise bind_error(join_address(host, port), port_variable, error) from error
        return join_address(host, self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stops listening. Idempotent."""
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                request = (await reader.readline()).decode("latin-1").split()
                method, path = request[0], request[1].partition("?")[0]
                for _ in range(_MAX_HEADER_LINES):
                    if (await reader.readline()).strip() == b"":
                        break
                status, kind, body = await self._page(method, path)
                head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                writer.write(
                    f"{head}Connection: close\r\n\r\n".encode() + (b"" if method == "HEAD" else body)
                )
                await writer.drain()
        except (TimeoutError, OSError, ValueError, IndexError):
            pass  # the other side left, or does not speak HTTP: nobody to tell
        finally:
            writer.close()

    async def _page(self, method: str, path: str) -> tuple[str, str, bytes]:
        if method not in ("GET", "HEAD"):
            return "405 Method Not Allowed", "text/plain", b"only GET\n"
        if path == "/metrics" and self._registry is not None:
            return "200 OK", CONTENT_TYPE_LATEST, generate_latest(self._registry)
        if path in self._pages:
            failures = dict(await self._pages[path]())
            status = "503 Service Unavailable" if failures else "200 OK"
            return status, "application/json", json.dumps(failures).encode() + b"\n"
        known = [*(["/metrics"] if self._registry is not None else []), *self._pages]
        return "404 Not Found", "text/plain", f"there are {', '.join(known)}\n".encode()
