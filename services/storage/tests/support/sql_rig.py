"""RunSql over a rig: a tenant with readings, another with a secret, and what a test wants to know of processes."""

import io
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tidewire_kit import topics
from tidewire_kit.errors import TidewireError
from tidewire_storage.adapters import sql_process
from tidewire_storage.adapters.sql_process import ChildProcess
from tidewire_storage.application.directories import Directories
from tidewire_storage.application.names import Names
from tidewire_storage.application.run_sql import RunSql, SqlLimits
from tidewire_storage.application.sql_tables import ScanBounds, SqlTables
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
