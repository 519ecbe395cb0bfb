"""RunSql: limits, and attempts to get out or at others' data."""

import asyncio
import os
import sys
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from sql_rig import LIMITS, Sql

from tidewire_kit.errors import InvalidArgument, QuotaExceeded, Unavailable
from tidewire_storage.adapters.sql_process import ChildProcess
from tidewire_storage.application.names import Names
from tidewire_storage.application.run_sql import ProcessEnded, RunSql, SqlLimits
from tidewire_storage.application.sql_tables import SqlTables
from tidewire_storage.sqlbox.child import database
from tidewire_testkit.polling import until

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
@pytest.mark.thorough
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


@pytest.mark.thorough
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
