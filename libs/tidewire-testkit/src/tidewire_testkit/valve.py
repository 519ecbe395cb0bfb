"""A TCP proxy in front of a server that a test can hold or cut: replies that do not come, connections that end.

async with Valve("127.0.0.1", 9042) as valve:
    ...a client of f"127.0.0.1:{valve.port}"...
    valve.hold()      # what the server says waits; what the client says still arrives
    valve.release()
    valve.cut()       # ends all connections; new ones are taken
"""

import asyncio
from types import TracebackType
from typing import Self


class Valve:
    """Forwards connections from a free port of 127.0.0.1 to a server."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.release()
        self.cut()

    def hold(self) -> None:
        """From now on nothing of what the server says reaches the client."""
        self._open.clear()

    def release(self) -> None:
        """Lets through what was held and what comes."""
        self._open.set()

    def cut(self) -> None:
        """Ends every connection."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, there_writer}
        self._writers |= ends
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(reader, there_writer, held=False))
                tasks.create_task(self._pump(there_reader, writer, held=True))
        finally:
            self._writers -= ends

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, held: bool) -> None:
        try:
            while data := await source.read(1 << 16):
                if held:
                    await self._open.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()
