"""Runs one statement and ends. Storage starts it with a socket as standard input and without environment.

In this order: import, make an empty database with the tenant's tables as streams that storage serves, give up every
right, and only then read the statement. So no text of a tenant meets a process that could do anything.
"""

import io
import json
import os
import socket
import sys
from typing import Any

import duckdb
import nanoarrow
from nanoarrow import ipc
from nanoarrow._utils import NanoarrowException
from nanoarrow.c_array_stream import CArrayStream

from tidewire_storage.sqlbox import jail
from tidewire_storage.sqlbox.bounds import Bounds, bounds_of
from tidewire_storage.sqlbox.frames import HEADER, Kind, pack
from tidewire_storage.sqlbox.statement import Refused, checked

_CHUNK_BYTES = 1 << 20
_TIME = nanoarrow.timestamp("us", timezone="UTC")
_SCHEMAS = {
    "readings": {
        "device": nanoarrow.string(),
        "metric": nanoarrow.string(),
        "time": _TIME,
        "value": nanoarrow.float64(),
    },
    "devices": {
        "id": nanoarrow.string(),
        "type": nanoarrow.string(),
        "labels": nanoarrow.map_(nanoarrow.string(), nanoarrow.string()),
        "parent": nanoarrow.string(),
        "create_time": _TIME,
    },
    "series": {
        "device": nanoarrow.string(),
        "metric": nanoarrow.string(),
        "first_time": _TIME,
        "last_time": _TIME,
        "last_value": nanoarrow.float64(),
    },
}
_SETTINGS = (
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET allow_community_extensions = false",
    "SET temp_directory = ''",
    "SET max_temp_directory_size = '0 bytes'",
    "SET python_enable_replacements = false",
    "SET preserve_insertion_order = false",
    "SET TimeZone = 'UTC'",
    "SET enable_external_access = false",
)


class Wire:
    """The socket to storage."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._scans = 0

    def send(self, kind: Kind, payload: bytes = b"") -> None:
        """Sends a frame; waits while storage has no room for it."""
        self._connection.sendall(pack(kind, payload))

    def receive(self) -> tuple[Kind, bytes]:
        """The next frame. Ends the process when storage has gone."""
        kind, size = HEADER.unpack(self._exactly(HEADER.size))
        return Kind(kind), self._exactly(size)

    def open(self, table: str, bounds: Bounds) -> int:
        """Begins a scan; returns its number."""
        self._scans += 1
        question = {"scan": self._scans, "table": table, **bounds.as_json()}
        self.send(Kind.OPEN, json.dumps(question).encode())
        return self._scans

    def next(self, scan: int) -> bytes:
        """The next bytes of a scan; b"" at its end."""
        self.send(Kind.NEXT, scan.to_bytes(4, "little"))
        kind, payload = self.receive()
        return payload if kind is Kind.DATA else b""

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._connection.recv(min(size, 1 << 20))
            if not part:
                os._exit(0)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


class _Rows(io.RawIOBase):
    """A scan as a file of Arrow IPC; asks for more when it is read."""

    def __init__(self, wire: Wire, table: str, bounds: Bounds) -> None:
        self._wire = wire
        self._scan = wire.open(table, bounds)
        self._held = memoryview(b"")
        self._ended = False

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer as far as one batch goes."""
        if not self._held and not self._ended:
            self._held = memoryview(self._wire.next(self._scan))
            self._ended = not self._held
        size = min(len(buffer), len(self._held))
        buffer[:size] = self._held[:size]
        self._held = self._held[size:]
        return size


class Table:
    """A table of the tenant as DuckDB sees it: each scan is a stream of its own."""

    def __init__(self, wire: Wire, name: str) -> None:
        self._wire = wire
        self._name = name
        self._schema = nanoarrow.c_schema(nanoarrow.struct(_SCHEMAS[name]))
        self.bounds = Bounds()

    def __arrow_c_schema__(self) -> object:
        """The columns."""
        return self._schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """A scan."""
        rows = io.BufferedReader(_Rows(self._wire, self._name, self.bounds), 1 << 16)
        return nanoarrow.c_array_stream(ipc.InputStream.from_readable(rows)).__arrow_c_stream__()


class _Result(io.RawIOBase):
    """Takes the bytes of the result and sends them in pieces."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._held = bytearray()

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """Holds small pieces back until there is enough for a frame."""
        self._held += data
        while len(self._held) >= _CHUNK_BYTES:
            self._wire.send(Kind.RESULT, bytes(self._held[:_CHUNK_BYTES]))
            del self._held[:_CHUNK_BYTES]
        return len(data)

    def finish(self) -> None:
        """Sends what is held."""
        if self._held:
            self._wire.send(Kind.RESULT, bytes(self._held))
            self._held.clear()


def main() -> None:
    """The process."""
    wire = Wire(socket.socket(fileno=0))
    try:
        jail.die_with(int(sys.argv[1]))
        jail.one_heap()
        limits = json.loads(sys.argv[2])
        connection, readings = database(wire, int(limits["memory_bytes"]))
        _rehearse(connection)
        jail.lock(int(limits["memory_bytes"]) + (192 << 20), int(limits["cpu_seconds"]))
        _, payload = wire.receive()  # START
        rows = _run(wire, connection, readings, json.loads(payload))
        wire.send(Kind.DONE, json.dumps({"rows": rows}).encode())
    except jail.JailError as error:
        _fail(wire, "UNSUPPORTED", str(error))
    except Refused as error:
        _fail(wire, "REFUSED", str(error))
    except _TooManyRowsError:
        _fail(wire, "RESULT", "")
    except (duckdb.OutOfMemoryException, MemoryError):
        _fail(wire, "MEMORY", "")
    except (duckdb.Error, NanoarrowException, ValueError, RecursionError) as error:
        _fail(wire, "MEMORY" if "bad_alloc" in str(error) else "INVALID", _told(error))
    os._exit(0)


def database(wire: Wire, memory_bytes: int) -> tuple[duckdb.DuckDBPyConnection, Table]:
    """An empty database with the tables over `wire`, its settings locked; and the table `readings`."""
    connection = duckdb.connect(
        ":memory:", config={"threads": "1", "memory_limit": f"{memory_bytes >> 10}KiB"}
    )
    for setting in _SETTINGS:
        connection.execute(setting)
    tables = {name: Table(wire, name) for name in _SCHEMAS}
    for name, table in tables.items():
        connection.register(name, table)
    connection.execute("SET lock_configuration = true")
    return connection, tables["readings"]


def _rehearse(connection: duckdb.DuckDBPyConnection) -> None:
    """Does once what every statement does, so that whatever Python loads late is there before nothing can be opened."""
    text = "SELECT time, value, 1.5::DECIMAL(9,2), now() FROM readings WHERE time > now() AND device = 'a' AND false"
    bounds_of(connection, checked(connection, text))
    with ipc.StreamWriter.from_writable(io.BytesIO()) as writer:
        writer.write_stream(nanoarrow.c_array_stream(connection.sql("SELECT 1 AS a, 'b' AS b, now() AS c")))
    try:
        connection.sql("SELECT 'x'::INTEGER").fetchall()
    except duckdb.Error:
        pass


class _TooManyRowsError(Exception):
    """The result has more rows than it may."""


def _run(wire: Wire, connection: duckdb.DuckDBPyConnection, readings: Table, asked: dict[str, Any]) -> int:
    """Sends the result; returns its rows."""
    statement = checked(connection, str(asked["statement"]))
    connection.execute("BEGIN TRANSACTION")  # one `now()` for the plan and the run
    readings.bounds = bounds_of(connection, statement)
    relation = connection.sql(statement)
    kinds = [str(kind) for kind in relation.types]
    if any("ENUM" in kind for kind in kinds):
        raise Refused("a column of the result is an ENUM; cast it to VARCHAR")
    stream = nanoarrow.c_array_stream(relation)
    result, rows = _Result(wire), 0
    with ipc.StreamWriter.from_writable(result) as writer:
        writer.write_stream(CArrayStream.from_c_arrays([], stream.get_schema()))
        for batch in stream:
            rows += len(batch)
            if rows > int(asked["result_rows"]):
                raise _TooManyRowsError
            writer.write_array(batch)
    result.finish()
    return rows


def _told(error: BaseException) -> str:
    return str(error).strip()[:2000]


def _fail(wire: Wire, kind: str, message: str) -> None:
    wire.send(Kind.ERROR, json.dumps({"kind": kind, "message": message}).encode())


if __name__ == "__main__":
    main()
