"""RunSql: one statement of a tenant, in a process of its own that has this tenant's rows and a time to live.

Storage keeps the initiative: it serves the scans that the process asks for, counts what passes, and ends the process
at any limit, at an error, and when the caller goes. No process serves a second statement.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from tidewire_kit.errors import FailedPrecondition, InvalidArgument, QuotaExceeded, TidewireError, Unavailable
from tidewire_kit.ids import TenantId
from tidewire_storage.application.names import Names
from tidewire_storage.application.sql_tables import ScanBounds, SqlTables
from tidewire_storage.sqlbox.frames import Kind

_MOST_STATEMENT_BYTES = 64 << 10
_MOST_SCANS = 256
_MOST_NAMES = 100_000
_BUSY_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class SqlLimits:
    """What one statement may use, and how many run at once."""

    seconds: float = 30.0
    memory_bytes: int = 256 << 20
    scanned_rows: int = 20_000_000
    result_rows: int = 1_000_000
    result_bytes: int = 128 << 20
    statements: int = 3
    statements_per_tenant: int = 2


class ProcessEnded(Exception):
    """The process is there no more; the text says how it ended."""


class SqlProcess(Protocol):
    """A fresh process that has locked itself in."""

    async def send(self, kind: Kind, payload: bytes = b"") -> None:
        """Sends a frame; waits while the process has no room. Raises ProcessEnded."""

    async def receive(self) -> tuple[Kind, bytes]:
        """The next frame. Raises ProcessEnded, also when what came is no frame."""

    def kill(self) -> None:
        """Ends it at once, whatever it does."""

    async def close(self) -> None:
        """Ends it and waits until it is gone."""


# Raises ProcessEnded when there can be none.
Launch = Callable[[SqlLimits], Awaitable[SqlProcess]]
Observe = Callable[[str, float, int], None]
"""Outcome (`ok`, `cancelled` or the reason), seconds, readings scanned."""


class RunSql:
    """The use case. Its settings are named in the errors, so that the remedy is."""

    def __init__(
        self, names: Names, tables: SqlTables, launch: Launch, limits: SqlLimits, observe: Observe
    ) -> None:
        self._names = names
        self._tables = tables
        self._launch = launch
        self._limits = limits
        self._observe = observe
        self._running: Counter[TenantId] = Counter()

    async def run(self, tenant: TenantId, statement: str) -> AsyncGenerator[bytes]:
        """Yields one Arrow IPC stream in parts.

        InvalidArgument for a statement that is refused, wrong or beyond a limit; QuotaExceeded while too many run;
        FailedPrecondition where the kernel cannot confine the process; Unavailable when the process was ended.
        """
        self._names.tenant(tenant)
        size = len(statement.encode())
        if not statement.strip() or size > _MOST_STATEMENT_BYTES:
            why = f"has {size:,} bytes; send a SELECT of at most {_MOST_STATEMENT_BYTES:,}"
            raise InvalidArgument("statement", why, reason="SQL_INVALID")
        self._admit(tenant)
        self._running[tenant] += 1
        loop = asyncio.get_running_loop()
        begun, outcome = loop.time(), "cancelled"
        holds = True

        def release() -> None:
            nonlocal holds
            if holds:
                holds = False
                self._running[tenant] -= 1
                if not self._running[tenant]:
                    del self._running[tenant]

        one = _Statement(self._tables, tenant, self._limits, release)
        try:
            async with aclosing(one.run(self._launch, statement)) as parts:
                async for part in parts:
                    yield part
            outcome = "ok"
        except TidewireError as error:
            outcome = error.reason
            raise
        finally:
            release()
            self._observe(outcome, loop.time() - begun, one.scanned)

    def _admit(self, tenant: TenantId) -> None:
        for running, most, whose, setting in (
            (
                self._running[tenant],
                self._limits.statements_per_tenant,
                "your tenant",
                "SQL_STATEMENTS_PER_TENANT",
            ),
            (self._running.total(), self._limits.statements, "this process", "SQL_STATEMENTS"),
        ):
            if running >= most:
                raise QuotaExceeded(
                    "sql_statements",
                    f"{running} statements of {whose} are running; try again when one has ended, "
                    f"or raise TIDEWIRE_STORAGE_{setting}",
                    reason="SQL_BUSY",
                    retry_delay_seconds=_BUSY_RETRY_SECONDS,
                )


class _Statement:
    """One run."""

    def __init__(
        self, tables: SqlTables, tenant: TenantId, limits: SqlLimits, on_late: Callable[[], None]
    ) -> None:
        """`on_late`: the time is up and the process killed, though a caller who reads nothing may not be told yet."""
        self._on_late = on_late
        self._tables = tables
        self._tenant = tenant
        self._limits = limits
        self._scans: dict[int, AsyncGenerator[tuple[bytes, int]]] = {}
        self._late = False
        self.scanned = 0

    async def run(self, launch: Launch, statement: str) -> AsyncGenerator[bytes]:
        try:
            process = await launch(self._limits)
        except ProcessEnded as error:
            raise _ended(error) from error
        timer = asyncio.get_running_loop().call_later(self._limits.seconds, self._too_late, process)
        sent = 0
        try:
            asked = {"statement": statement, "result_rows": self._limits.result_rows}
            await process.send(Kind.START, json.dumps(asked).encode())
            while True:
                kind, payload = await process.receive()
                if kind is Kind.RESULT:
                    sent += len(payload)
                    if sent > self._limits.result_bytes:
                        raise self._beyond_result(f"{self._limits.result_bytes:,} bytes", "SQL_RESULT_BYTES")
                    yield payload
                elif kind is Kind.DONE:
                    return
                elif kind is Kind.ERROR:
                    raise self._error(json.loads(payload))
                else:
                    await self._serve(process, kind, payload)
        except ProcessEnded as error:
            if self._late:
                raise _beyond(
                    "SQL_TIMEOUT",
                    f"took longer than {self._limits.seconds:g} s; narrow the time range, name devices and metrics, "
                    "or raise TIDEWIRE_STORAGE_SQL_SECONDS",
                ) from error
            raise _ended(error) from error
        finally:
            timer.cancel()
            process.kill()
            await process.close()
            for scan in self._scans.values():
                await scan.aclose()

    async def _serve(self, process: SqlProcess, kind: Kind, payload: bytes) -> None:
        """A scan is opened or read on. What a process sends is not trusted: it may be an escaped one."""
        if kind is Kind.OPEN:
            if len(self._scans) >= _MOST_SCANS:
                raise _beyond(
                    "SQL_REFUSED", f"reads the tables more than {_MOST_SCANS} times; join them instead"
                )
            number, table, bounds = _question(payload)
            if number in self._scans:
                raise ProcessEnded("it opened a scan twice")
            self._scans[number] = self._tables.scan(self._tenant, table, bounds)
            return
        number = int.from_bytes(payload, "little")
        if kind is not Kind.NEXT or number not in self._scans:
            raise ProcessEnded("it asked for what there is not")
        part = await anext(self._scans[number], None)
        if part is None:
            await process.send(Kind.END)
            return
        data, readings = part
        self.scanned += readings
        if self.scanned > self._limits.scanned_rows:
            raise _beyond(
                "SQL_ROWS",
                f"needs more than {self._limits.scanned_rows:,} readings; narrow the time range (WHERE time >= …), "
                "name devices and metrics, or raise TIDEWIRE_STORAGE_SQL_SCANNED_ROWS",
            )
        await process.send(Kind.DATA, data)

    def _too_late(self, process: SqlProcess) -> None:
        self._late = True
        process.kill()
        self._on_late()

    def _error(self, told: dict[str, Any]) -> TidewireError:
        message = str(told.get("message", ""))
        match told.get("kind"):
            case "REFUSED":
                return InvalidArgument("statement", message, reason="SQL_REFUSED")
            case "MEMORY":
                return _beyond(
                    "SQL_MEMORY",
                    f"needs more than {self._limits.memory_bytes >> 20} MiB of memory; aggregate or filter earlier, "
                    "or raise TIDEWIRE_STORAGE_SQL_MEMORY_BYTES",
                )
            case "RESULT":
                return self._beyond_result(f"{self._limits.result_rows:,} rows", "SQL_RESULT_ROWS")
            case "UNSUPPORTED":
                return FailedPrecondition(message, reason="SQL_UNSUPPORTED")
            case _:
                return InvalidArgument("statement", message, reason="SQL_INVALID")

    def _beyond_result(self, what: str, setting: str) -> TidewireError:
        return _beyond(
            "SQL_RESULT_TOO_LARGE",
            f"has a result of more than {what}; aggregate, or add LIMIT, or raise TIDEWIRE_STORAGE_{setting}",
        )


def _beyond(reason: str, why: str) -> InvalidArgument:
    return InvalidArgument("statement", why, reason=reason)


def _ended(error: ProcessEnded) -> Unavailable:
    why = f"the process of the statement ended ({error}); if it does so again, ask for less at once"
    return Unavailable("sql", why, reason="SQL_PROCESS_ENDED", retry_delay_seconds=1.0)


def _question(payload: bytes) -> tuple[int, str, ScanBounds]:
    try:
        asked = json.loads(payload)
        moments = [None if asked[key] is None else int(asked[key]) for key in ("first_us", "last_us")]
        names = [
            None if asked[key] is None else frozenset(map(str, asked[key][:_MOST_NAMES]))
            for key in ("devices", "metrics")
        ]
        table = str(asked["table"])
        if not re.fullmatch("readings|devices|series", table):
            raise ValueError(table)
        return int(asked["scan"]), table, ScanBounds(moments[0], moments[1], names[0], names[1])
    except (ValueError, KeyError, TypeError) as error:
        raise ProcessEnded("it asked for a table that there is not") from error
