"""Starts the process of a statement and speaks with it over a socket pair; `main` gives it to the use case."""

import asyncio
import json
import os
import signal
import socket
import sys

from tidewire_storage.application.run_sql import ProcessEnded, SqlLimits
from tidewire_storage.sqlbox.frames import HEADER, MOST_BYTES, Kind, pack

_BUFFER_BYTES = 1 << 20
_MODULE = "tidewire_storage.sqlbox.child"


class ChildProcess:
    """A process that runs one statement."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    async def send(self, kind: Kind, payload: bytes = b"") -> None:
        """Sends a frame."""
        try:
            self._writer.write(pack(kind, payload))
            await self._writer.drain()
        except OSError as error:
            raise ProcessEnded(await self._how()) from error

    async def receive(self) -> tuple[Kind, bytes]:
        """The next frame."""
        try:
            kind, size = HEADER.unpack(await self._reader.readexactly(HEADER.size))
            if size > MOST_BYTES:
                raise ProcessEnded("it sent what is no frame")
            payload = await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise ProcessEnded(await self._how()) from error
        try:
            return Kind(kind), payload
        except ValueError as error:
            raise ProcessEnded("it sent what is no frame") from error

    def kill(self) -> None:
        """Ends it."""
        if self._process.returncode is None:
            try:
                self._process.kill()
            except ProcessLookupError:
                pass  # it has ended, and this process has not been told yet

    async def close(self) -> None:
        """Ends it and waits."""
        self.kill()
        self._writer.close()
        await self._process.wait()

    async def _how(self) -> str:
        self.kill()
        code = await self._process.wait()
        return f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"


async def launch(limits: SqlLimits) -> ChildProcess:
    """Starts one, with nothing but its end of a socket: no environment, no other file. Raises ProcessEnded where that
    cannot be: no more processes, memory or files."""
    try:
        return await _launch(limits)
    except OSError as error:
        raise ProcessEnded(f"it could not be started: {error}") from error


async def _launch(limits: SqlLimits) -> ChildProcess:
    ours, theirs = socket.socketpair()
    try:
        asked = {"memory_bytes": limits.memory_bytes, "cpu_seconds": int(limits.seconds) + 5}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-B", "-m", _MODULE, str(os.getpid()), json.dumps(asked)),
            stdin=theirs.fileno(),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env={},
            cwd="/",
            start_new_session=True,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    ours.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=ours, limit=_BUFFER_BYTES)
    return ChildProcess(process, reader, writer)
