"""`tidewire up` as a container runs it: on every address, under a name nobody resolves yet, with a page of health."""

import asyncio
import json
import os
import re
import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tidewire.registry.v1 import registry_pb2
from tidewire_testkit.whole.platform import UpProcess, until

pytestmark = [pytest.mark.platform, pytest.mark.timeout(120)]

ENVIRON = {
    "TIDEWIRE_HOST": "0.0.0.0",
    "TIDEWIRE_INSECURE": "true",
    # As the name of a headless Service, which leads nowhere until the pod is ready.
    "TIDEWIRE_ADVERTISE_HOST": "tidewire.invalid",
    "TIDEWIRE_UP_HEALTH_PORT": "0",
}


def _asked(page: str, path: str) -> tuple[int, dict[str, str]]:
    try:
        with urllib.request.urlopen(page + path, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


async def test_it_serves_before_its_name_is_known_and_says_how_it_is(data_dir: Path) -> None:
    up = UpProcess(data_dir, environ=ENVIRON)
    up.start()
    try:
        await up.wait_serving()
        (address,) = re.findall(r"health +http://0\.0\.0\.0:(\d+)/readyz", up.stdout())
        page = f"http://127.0.0.1:{address}"
        for path in ("/startupz", "/readyz", "/livez"):
            assert await asyncio.to_thread(_asked, page, path) == (200, {})
        answer = await up.registry().GetEndpoints(
            registry_pb2.GetEndpointsRequest(), metadata=up.admin_metadata(), timeout=10
        )
        told = {address.partition(":")[0] for found in answer.endpoints for address in found.addresses}
        assert told == {"tidewire.invalid"}

        storage = [endpoint.pid for endpoint in up.endpoints("storage")]
        for pid in storage:
            os.kill(pid, signal.SIGKILL)

        async def started_again() -> bool:
            ready, _ = await asyncio.to_thread(_asked, page, "/readyz")
            return ready == 200 and {endpoint.pid for endpoint in up.endpoints("storage")}.isdisjoint(storage)

        assert await asyncio.to_thread(_asked, page, "/livez") == (200, {}), "what died is started again here"
        await until(started_again, "storage is back, and the page says so", 30)
    finally:
        assert await up.stop() == 0
