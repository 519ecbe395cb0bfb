"""`tidewire import` against the real platform: killed in the middle it resumes, and no row is there twice."""

import asyncio
import json
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tidewire_testkit.whole.platform import UpProcess, running, until
from tidewire_testkit.whole.readback import count_readings, settled_ledger

pytestmark = [pytest.mark.platform, pytest.mark.timeout(180)]

ROWS = 700_000
READINGS_PER_SECOND = 200_000


def write_file(path: Path) -> None:
    """A row a second up to now, and three more lines: one that cannot be read, one far ahead, and a good one."""
    end = datetime.now(UTC).replace(microsecond=0)
    with path.open("w") as file:
        file.write("time,flow (l/s),on\n")
        for row in range(ROWS):
            file.write(f"{end - timedelta(seconds=ROWS - row):%Y-%m-%dT%H:%M:%SZ},{row % 1000},1\n")
        file.write(f"{end:%Y-%m-%dT%H:%M:%SZ},broken,1\n")
        file.write(f"{end + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ},5,1\n")
        file.write(f"{end + timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ},6,1\n")


async def killed_on_its_way(up: UpProcess, state: Path, arguments: tuple[str, ...]) -> None:
    """Begins an import and kills it as soon as it has noted some progress."""
    process = await asyncio.create_subprocess_exec(
        *up.command_line(*arguments),
        env=up.environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )

    async def begun() -> bool:
        assert process.returncode is None, "it ended before it could be killed"
        return any(json.loads(path.read_text())["rows"] for path in state.rglob("*.json"))

    await until(begun, "some of the file is imported", 60)
    process.send_signal(signal.SIGKILL)
    await process.wait()


# On one backend: it is the command that is tried.
@pytest.mark.embedded
async def test_an_import_that_was_killed_resumes_and_names_refused_rows_by_line(data_dir: Path) -> None:
    state, file = data_dir.parent / "state", data_dir.parent / "plant.csv"
    write_file(file)
    async with running(data_dir, environ={"XDG_STATE_HOME": str(state)}) as up:
        access = await up.create_tenant("importer", readings_per_second=READINGS_PER_SECOND)
        arguments = ("import", str(file), "--tenant", "importer", "--output", "json")
        await killed_on_its_way(up, state, arguments)
        result = await up.command(*arguments, seconds=90)
        assert result.status == 4, result.err
        said = result_json(result.out)
        assert said["resumed_rows"] > 0
        assert said["refused_by_reason"] == {"CLOCK_SKEW": 2}
        assert sorted((one["line"], one["reason"]) for one in said["problems"]) == [
            (ROWS + 2, "UNREADABLE"),
            (ROWS + 3, "CLOCK_SKEW"),
        ]
        expected = 2 * ROWS + 1 + 2  # of the line that cannot be read in full, the other cell is kept

        async def visible() -> bool:
            return await count_readings(up, access, ["plant"], ["flow", "on"]) == expected

        await until(visible, f"{expected} readings are visible", 30)
        again = result_json((await up.command(*arguments)).out)
        assert (again["already_done"], again["rows"]) == (True, 0)
        ledger = await until(lambda: settled_ledger(up), "the ledger is settled")
        assert ledger.difference_readings == 0


async def test_a_naive_time_is_refused_with_the_remedy_that_then_works(up: UpProcess, tmp_path: Path) -> None:
    access = await up.create_tenant("naive")
    file = tmp_path / "naive.csv"
    noon = time.strftime("%Y-%m-%d 12:00", time.gmtime(time.time() - 86_400))
    file.write_text(f"time,temperature (celsius)\n{noon},21.5\n")
    refused = await up.command("import", str(file), "--tenant", "naive")
    assert refused.status == 2
    assert "--timezone" in refused.err
    assert "Traceback" not in refused.err
    result = await up.command("import", str(file), "--tenant", "naive", "--timezone", "UTC", "--yes")
    assert result.status == 0, result.err

    async def visible() -> bool:
        return await count_readings(up, access, ["naive"], ["temperature"]) == 1

    await until(visible, "the reading is visible")


def result_json(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found
