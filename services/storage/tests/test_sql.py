"""RunSql: results against plain Python on the same rows, limits, and attempts to get out or at others' data."""

import asyncio
import io
import os
import random
import statistics
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from tidewire_kit import topics
from tidewire_kit.errors import InvalidArgument, QuotaExceeded, TidewireError, Unavailable
from tidewire_storage.adapters import sql_process
from tidewire_storage.adapters.sql_process import ChildProcess
from tidewire_storage.application.directories import Directories
from tidewire_storage.application.names import Names
from tidewire_storage.application.run_sql import ProcessEnded, RunSql, SqlLimits
from tidewire_storage.application.sql_tables import ScanBounds, SqlTables
from tidewire_storage.sqlbox.bounds import Bounds, bounds_of
from tidewire_storage.sqlbox.child import database
from tidewire_testkit.directory import TestTenant
from tidewire_testkit.polling import until

SECOND = 1_000_000
T0 = 1_700_000_000 * SECOND
FACTS = {
    "b": {"type": "pump", "labels": {"site": "north", "note": 'a "b" é'}},
    "pump-1": {"type": "pump", "labels": {"site": "south"}, "parent_id": "b"},
}
LIMITS = SqlLimits(seconds=50.0, memory_bytes=64 << 20)


class Sql:
    """A tenant with readings, another with a secret, and RunSql over both."""

    def __init__(self, rig: Any) -> None:
        self.rig = rig
        self.processes: list[ChildProcess] = []
        self.outcomes: list[tuple[str, int]] = []
        self.scans: list[ScanBounds] = []
        self.readings: list[tuple[str, str, int, float]] = []
        self.acme: TestTenant

    async def fill(self) -> None:
        world, rng = self.rig.world, random.Random(7)
        self.acme, other = world.add_tenant("acme"), world.add_tenant("other")
        await self.rig.publish(world.add_device(other, "vault"), ["secret"], [(T0, [4711.0])])
        for name in ("pump-1", "b", "a-much-longer-name:01"):
            device = world.add_device(self.acme, name, **FACTS.get(name, {}))
            rows = [
                (T0 + n * SECOND, [rng.random(), float(n) if n % 3 else float("nan")]) for n in range(200)
            ]
            await self.rig.publish(device, ["temp", "level"], rows)
            for time, values in rows:
                for metric, value in zip(("temp", "level"), values, strict=True):
                    if value == value:
                        self.readings.append((name, metric, time, value))

        async def all_there() -> bool:
            mine = await self.rig.series.page(self.acme.uid, [], [], 10, "")
            theirs = await self.rig.series.page(other.uid, [], [], 10, "")
            return len(mine.entries) == 6 and len(theirs.entries) == 1

        await until(all_there)

    def use(self, limits: SqlLimits = LIMITS) -> RunSql:
        """The use case, noting the processes and scans."""
        names = Names(self.rig.world.directory)
        tables = SqlTables(
            self.rig.store,
            Directories(self.rig.store),
            names,
            self.rig.series,
            self.rig.log.incarnation(topics.TELEMETRY),
        )
        scan = tables.scan

        def noted(tenant: Any, table: str, bounds: ScanBounds) -> Any:
            self.scans.append(bounds)
            return scan(tenant, table, bounds)

        tables.scan = noted  # type: ignore[method-assign]

        async def launch(given: SqlLimits) -> ChildProcess:
            process = await sql_process.launch(given)
            self.processes.append(process)
            return process

        return RunSql(names, tables, launch, limits, lambda *seen: self.outcomes.append((seen[0], seen[2])))

    async def table(self, statement: str, limits: SqlLimits = LIMITS) -> pa.Table:
        run = self.use(limits).run(self.acme.uid, statement)
        data = b"".join([part async for part in run])
        return pa.ipc.open_stream(io.BytesIO(data)).read_all()

    async def table_of(self, run_sql: RunSql, statement: str) -> list[tuple[Any, ...]]:
        """Rows by a use case that has run others."""
        data = b"".join([part async for part in run_sql.run(self.acme.uid, statement)])
        table = pa.ipc.open_stream(io.BytesIO(data)).read_all()
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))

    async def rows(self, statement: str) -> list[tuple[Any, ...]]:
        table = await self.table(statement)
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))

    async def refused(self, statement: str, limits: SqlLimits = LIMITS) -> TidewireError:
        with pytest.raises(TidewireError) as caught:
            await self.table(statement, limits)
        return caught.value

    def none_left(self) -> bool:
        """Whether every process has ended and was waited for."""
        return not any(Path(f"/proc/{process.pid}").exists() for process in self.processes)


@pytest.fixture
async def sql(rig: Any) -> AsyncIterator[Sql]:
    sql = Sql(rig)
    await sql.fill()
    yield sql
    assert sql.none_left()


def grouped(readings: list[tuple[str, str, int, float]], key: Callable[..., Any]) -> dict[Any, list[float]]:
    groups: dict[Any, list[float]] = {}
    for reading in readings:
        groups.setdefault(key(*reading), []).append(reading[3])
    return groups


async def test_the_tables_say_what_plain_python_says(sql: Sql) -> None:
    found = await sql.rows(
        "SELECT device, metric, count(*), avg(value), max(value), epoch_us(min(time)) FROM readings GROUP BY ALL"
    )
    groups = grouped(sql.readings, lambda device, metric, *_: (device, metric))
    assert {row[:2]: row[2] for row in found} == {key: len(values) for key, values in groups.items()}
    for device, metric, _, mean, most, _ in found:
        assert mean == pytest.approx(statistics.fmean(groups[device, metric]))
        assert most == max(groups[device, metric])
    assert sql.outcomes[-1] == ("ok", len(sql.readings))

    described = await sql.rows(
        "SELECT id, type, parent, to_json(labels), labels['site'] FROM devices ORDER BY id"
    )
    assert described == [
        ("a-much-longer-name:01", "", "", "{}", None),
        ("b", "pump", "", '{"note":"a \\"b\\" é","site":"north"}', "north"),
        ("pump-1", "pump", "b", '{"site":"south"}', "south"),
    ]
    by_site = await sql.rows(
        "SELECT labels['site'] AS site, count(*) FROM readings r JOIN devices d ON d.id = r.device"
        " WHERE d.type = 'pump' GROUP BY site ORDER BY site"
    )
    assert by_site == [
        (site, len(groups[name, "temp"]) + len(groups[name, "level"]))
        for site, name in (("north", "b"), ("south", "pump-1"))
    ]

    joined = await sql.rows(
        "SELECT s.device, s.metric, s.last_value, epoch_us(s.first_time), count(r.value) FROM series s"
        " JOIN devices d ON d.id = s.device LEFT JOIN readings r ON r.device = s.device AND r.metric = s.metric"
        " GROUP BY ALL"
    )
    for device, metric, last, first_us, count in joined:
        mine = [reading for reading in sql.readings if reading[:2] == (device, metric)]
        assert (last, first_us, count) == (mine[-1][3], mine[0][2], len(mine))


async def test_filters_bound_what_is_read_and_never_the_result(sql: Sql) -> None:
    found = await sql.rows(
        "SELECT device, metric, epoch_us(time), value FROM readings WHERE time >= '2023-11-14 22:14:00+00'"
        " AND time < '2023-11-14 22:15:00+00' AND (device = 'b' OR device IN ('pump-1', 'nowhere'))"
        " AND metric = 'temp' AND value > 0.25"
    )
    low, high = 1_700_000_040 * SECOND, 1_700_000_100 * SECOND
    expected = [
        reading
        for reading in sql.readings
        if low <= reading[2] < high and reading[0] in ("b", "pump-1") and reading[1] == "temp"
    ]
    assert sorted(found) == sorted(reading for reading in expected if reading[3] > 0.25)
    assert sql.scans[-1].devices == {"b", "pump-1", "nowhere"}
    assert sql.scans[-1].metrics == {"temp"}
    assert len(expected) <= sql.outcomes[-1][1] <= len(expected) + 2

    # What is not understood bounds nothing; several scans are bounded together.
    both = await sql.rows(
        "SELECT count(*) FROM readings a JOIN readings b USING (device, time)"
        " WHERE a.metric = 'temp' AND b.metric = 'level' AND NOT (a.time < '2023-11-14 22:14:00+00')"
    )
    pairs = [reading for reading in sql.readings if reading[1] == "level" and reading[2] >= low]
    assert both == [(len(pairs),)]
    assert sql.scans[-1] == ScanBounds(low, None, None, frozenset({"temp", "level"}))


MINUTE = 60 * SECOND


@pytest.mark.parametrize(
    ("condition", "bounds"),
    [
        ("true", Bounds()),
        ("time::DATE = '2023-11-14' OR device = 'b'", Bounds()),
        ("device <> 'b' AND metric LIKE 't%' AND value > 3", Bounds()),
        ("device = 'b' OR time < '1970-01-01 00:01:00+00'", Bounds()),
        ("'1970-01-01 00:01:00+00' <= time", Bounds(first_us=MINUTE)),
        ("time = '1970-01-01 00:01:00+00'", Bounds(MINUTE, MINUTE)),
        ("time > '-infinity' AND metric = 'o''clock'", Bounds(metrics=frozenset({"o'clock"}))),
        (
            "device IN ('a', 'b') AND device <> 'a' OR device = 'c' AND time IS NOT NULL",
            Bounds(devices=frozenset({"a", "b", "c"})),
        ),
    ],
)
def test_bounds_are_those_of_the_plan(condition: str, bounds: Bounds) -> None:
    connection, tables = database(None, 64 << 20)  # type: ignore[arg-type] # nothing is scanned
    found = bounds_of(connection, f"SELECT count(value) FROM readings WHERE {condition}")
    assert found == bounds
    connection.close()
    assert tables.bounds == Bounds()


REFUSED = (
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT (SELECT count(*) FROM read_text('/etc/passwd'))",
    "SELECT * FROM glob('*')",
    "SELECT * FROM read_blob('/proc/self/environ')",
    "FROM '/proc/self/maps'",
    "SELECT * FROM read_parquet('https://example.com/x.parquet')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "LOAD '/tmp/x.duckdb_extension'",
    "CREATE OR REPLACE TEMP MACRO readings() AS TABLE SELECT 1",
    "CREATE SECRET s (TYPE S3)",
    "USE other",
    "SELECT 1; ATTACH '/tmp/x.db'",
    "PREPARE p AS SELECT 1; EXECUTE p",
    "EXPLAIN ANALYZE SELECT 1; SELECT 2",
    "CHECKPOINT",
    "VACUUM",
    "SET VARIABLE x = 1",
    "FROM '/etc/passwd'",
    "FROM duckdb_settings()",
    "SELECT * FROM duckdb_secrets()",
    "FROM duckdb_settings",
    "WITH duckdb_settings AS (SELECT 1) FROM duckdb_settings",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT * FROM query('SELECT 1')",
    "SELECT * FROM other.main.readings",
    "SELECT current_setting('home_directory')",
    "SHOW TABLES",
    "SELECT 1; SELECT 2",
    "ATTACH '/tmp/x.db'",
    "COPY (SELECT 1) TO '/tmp/x.csv'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET threads = 4",
    "RESET threads",
    "PRAGMA version",
    "CALL pragma_version()",
    "CREATE MACRO f() AS TABLE SELECT 1",
    "CREATE TABLE t (a INT)",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "BEGIN",
    "EXPORT DATABASE '/tmp/x'",
    "DELETE FROM readings",
    "INSERT INTO readings SELECT * FROM readings",
    "WITH x AS (SELECT 1) INSERT INTO readings FROM x",
)


async def test_whatever_is_not_a_select_over_the_tables_is_refused(sql: Sql) -> None:
    """By the check alone, in this process, as each would cost the start of a process; the walls are tested below."""
    from tidewire_storage.sqlbox.statement import Refused, checked

    connection = duckdb.connect(":memory:")
    for statement in REFUSED:
        with pytest.raises((Refused, duckdb.Error)) as caught:
            checked(connection, statement)
        assert str(caught.value), statement
    connection.close()
    assert (await sql.refused(" ")).reason == "SQL_INVALID"
    error = await sql.refused("SELECT getenv('HOME')")
    assert (error.reason, error.grpc_code) == ("SQL_REFUSED", "INVALID_ARGUMENT")
    assert "getenv" in error.message
    assert sql.scans == []


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_blob('/proc/self/environ')",
        "SELECT * FROM glob('/*')",
        "FROM '/etc/passwd'",
        "SELECT * FROM read_parquet('https://example.com/x.parquet')",
        "ATTACH '/tmp/tidewire-x.db'",
        "COPY (SELECT 1) TO '/tmp/tidewire-x.csv'",
        "EXPORT DATABASE '/tmp/tidewire-x'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET threads = 4",
        "PRAGMA memory_limit = '10GB'",
        "SET memory_limit = '10GB'",
        "SET lock_configuration = false",
    ],
)
def test_what_the_check_would_let_through_the_engine_refuses(statement: str) -> None:
    """The second wall: DuckDB as the process sets it up, without the check in front of it."""
    connection, _ = database(None, 64 << 20)  # type: ignore[arg-type] # nothing is scanned
    with pytest.raises(duckdb.Error):
        connection.execute(statement).fetchall()
    connection.close()


async def test_a_caller_who_stops_reading_keeps_neither_the_process_nor_the_place(sql: Sql) -> None:
    for seconds in (2.0, 8.0, 40.0):  # the first whose part comes in time
        run_sql = sql.use(replace(LIMITS, seconds=seconds, statements_per_tenant=1))
        async with aclosing(run_sql.run(sql.acme.uid, "SELECT * FROM range(900000)")) as parts:
            try:
                assert await anext(parts)
            except InvalidArgument:
                continue
            await until(sql.none_left, seconds=seconds + 20)
            assert await sql.table_of(run_sql, "SELECT 1 AS a") == [(1,)]
            return
    pytest.fail("no statement began within 40 s")


async def test_a_process_that_cannot_be_started_is_told(sql: Sql) -> None:
    async def none(limits: SqlLimits) -> ChildProcess:
        raise ProcessEnded("it could not be started: no more processes")

    names = Names(sql.rig.world.directory)
    run_sql = RunSql(names, SqlTables.__new__(SqlTables), none, LIMITS, lambda *seen: None)
    for _ in range(3):  # nothing stays counted
        with pytest.raises(Unavailable) as caught:
            _ = [part async for part in run_sql.run(sql.acme.uid, "SELECT 1")]
        assert caught.value.reason == "SQL_PROCESS_ENDED"


@pytest.mark.parametrize(
    ("mode", "told"),
    [("container", "42"), ("no-filters", "SQL_UNSUPPORTED"), ("no-limits", "SQL_UNSUPPORTED")],
)
async def test_it_runs_as_in_a_pod_and_never_without_its_walls(mode: str, told: str) -> None:
    """No capability, no new privileges and the runtime's filter of calls; and kernels that refuse ours."""
    script = Path(__file__).with_name("sql_in_a_container.py")
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, str(script), mode), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await child.communicate()
    assert output.decode().split() == [told]


async def test_no_other_tenant_is_there(sql: Sql) -> None:
    found = await sql.rows(
        "SELECT device FROM readings WHERE device = 'vault' OR value = 4711 OR metric = 'temp'"
        " UNION SELECT id FROM devices UNION SELECT device FROM series"
    )
    assert {row[0] for row in found} == {"pump-1", "b", "a-much-longer-name:01"}


@pytest.mark.parametrize(
    ("statement", "changed", "reason", "remedy"),
    [
        ("SELECT repeat('x', 1000000000)", {}, "SQL_MEMORY", "SQL_MEMORY_BYTES"),
        ("FROM readings a, readings b", {"result_rows": 5}, "SQL_RESULT_TOO_LARGE", "SQL_RESULT_ROWS"),
        ("FROM readings", {"result_bytes": 2000}, "SQL_RESULT_TOO_LARGE", "SQL_RESULT_BYTES"),
        ("SELECT sum(value) FROM readings", {"scanned_rows": 900}, "SQL_ROWS", "SQL_SCANNED_ROWS"),
    ],
)
async def test_limits_name_the_remedy(
    sql: Sql, statement: str, changed: dict[str, int], reason: str, remedy: str
) -> None:
    error = await sql.refused(statement, replace(LIMITS, **changed))  # type: ignore[arg-type]
    assert isinstance(error, InvalidArgument)
    assert error.reason == reason
    assert f"TIDEWIRE_STORAGE_{remedy}" in error.message
    assert sql.outcomes[-1][0] == reason


async def test_a_string_of_10_gb_is_refused(sql: Sql) -> None:
    """By the engine, which knows no string of that size, or by its memory."""
    error = await sql.refused("SELECT repeat(repeat('x', 100000), 100000)")
    assert error.reason in ("SQL_INVALID", "SQL_MEMORY")


async def test_an_endless_statement_is_ended(sql: Sql) -> None:
    endless = "WITH RECURSIVE t AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM t) SELECT count(*) FROM t"
    error = await sql.refused(endless, replace(LIMITS, seconds=0.2))
    assert (error.reason, "narrow the time range" in error.message) == ("SQL_TIMEOUT", True)


async def test_no_more_than_may_run_at_once_and_leaving_ends_one(sql: Sql) -> None:
    run_sql = sql.use(replace(LIMITS, statements_per_tenant=1))
    async with aclosing(run_sql.run(sql.acme.uid, "SELECT * FROM range(900000)")) as parts:
        assert await anext(parts)
        with pytest.raises(QuotaExceeded) as caught:
            _ = [part async for part in run_sql.run(sql.acme.uid, "SELECT 1")]
        assert (caught.value.reason, caught.value.retry_delay_seconds) == ("SQL_BUSY", 1.0)
    assert sql.none_left()
    assert sql.outcomes == [("cancelled", 0)]
    assert [part async for part in run_sql.run(sql.acme.uid, "SELECT 1")]


async def test_a_process_that_dies_is_told_and_a_cancelled_call_leaves_none(sql: Sql) -> None:
    running = asyncio.create_task(sql.table("SELECT count(*) FROM range(1000000000) a, range(1000000000) b"))
    await until(lambda: bool(sql.processes))
    sql.processes[-1].kill()
    with pytest.raises(Unavailable) as caught:
        await running
    assert caught.value.reason == "SQL_PROCESS_ENDED"
    assert "SIGKILL" in caught.value.message

    cancelled = asyncio.create_task(
        sql.table("SELECT count(*) FROM range(1000000000) a, range(1000000000) b")
    )
    await until(lambda: len(sql.processes) == 2)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert sql.none_left()


async def test_behind_the_walls_nothing_can_be_opened_started_or_told(tmp_path: Path) -> None:
    """What code that has escaped from DuckDB would meet."""
    probe = tmp_path / "probe.py"
    probe.write_text(_PROBE)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", str(probe), str(os.getpid())),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env={},
    )
    told, _ = await child.communicate()
    assert told.decode().split() == ["refused"] * 9 + ["alive"]


async def test_threads_that_start_late_take_nothing_of_the_statements_memory() -> None:
    """DuckDB starts some whatever it is told; each would have a heap of its own, of 64 MiB of addresses at least."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", _GROWTH), stdout=asyncio.subprocess.PIPE, env={}
    )
    told, _ = await child.communicate()
    threads, grown_bytes = map(int, told.split())
    assert grown_bytes < 60 << 20, f"{threads} threads"


_GROWTH = """
import os, threading
from pathlib import Path
from tidewire_storage.sqlbox import jail
jail.one_heap()
def size():
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
go = threading.Event()
threads = [threading.Thread(target=lambda: (go.wait(), bytes(1000), [object() for _ in range(1000)])) for _ in range(4)]
for thread in threads:
    thread.start()
before = size()
go.set()
for thread in threads:
    thread.join()
print(len(threads), max(0, size() - before))
"""


_PROBE = """
import ctypes, mmap, os, signal, socket, sys, threading
from tidewire_storage.sqlbox import jail
jail.die_with(int(sys.argv[1]))
jail.lock(64 << 20, 60)
def attempt(do):
    try:
        do()
    except (OSError, RuntimeError, MemoryError):
        print("refused")
    else:
        print("done")
attempt(lambda: open("/etc/passwd"))
attempt(lambda: open("/tmp/tidewire-probe", "w"))
attempt(lambda: os.listdir("/"))
attempt(lambda: socket.socket())
attempt(os.fork)
attempt(lambda: os.execv("/bin/true", ["true"]))
attempt(lambda: os.kill(int(sys.argv[1]), 0))
attempt(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC))
attempt(lambda: bytearray(1 << 30))
print("alive", flush=True)
os._exit(0)
"""
