"""The code in docs/how-to runs as it stands, against a running platform."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tidewire_client import AsyncConnection, AsyncQueryClient
from tidewire_testkit.whole.platform import UpProcess, until

pytestmark = [pytest.mark.platform, pytest.mark.timeout(120)]

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/send-readings.md"


async def test_the_programs_of_the_page_publish_and_read(up: UpProcess, tmp_path: Path) -> None:
    access = await up.create_tenant("how-to")
    environment = {
        **os.environ,
        "TIDEWIRE_ENDPOINT": up.address("registry"),
        "TIDEWIRE_TOKEN": access.token,
    }

    async def run(program: str) -> str:
        file = tmp_path / "program.py"
        file.write_text(program.replace('"demo"', '"how-to"'))
        command = [sys.executable, str(file)]
        done = await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    as_user, as_device, read_back = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    await run(as_user)
    await run(as_device)
    async with AsyncConnection(up.address("registry"), token=access.token) as connection:
        query = AsyncQueryClient(connection)

        async def both() -> bool:
            return len(await query.latest(["sensor-1", "sensor-2"], ["temperature"])) == 2

        await until(both, "both devices' readings are visible")

    printed = await run(read_back)

    assert "sensor-1 temperature 21.5\nsensor-2 temperature 19.8\n" in printed
    assert printed.endswith("[21.5]\n")
