"""Load with a ledger against a platform that runs elsewhere, from inside a pod; `python -m tidewire_testkit` starts it.

It publishes as the ledger test does, in a tenant of its own, until somebody makes the file STOP or the time is up; then
it compares what is visible with what was acknowledged. Environment: TIDEWIRE_ENDPOINT (`grpc://host:port` of the
registry) and TIDEWIRE_TOKEN (of the platform's administrator).
"""

import asyncio
import json
import os
import socket
import time
from pathlib import Path

from tidewire.registry.v1 import registry_pb2
from tidewire_testkit.whole.load import StreamPublisher, UnaryPublisher
from tidewire_testkit.whole.own_ledger import OwnLedger
from tidewire_testkit.whole.platform import Endpoint, TenantAccess, UpProcess, bearer, until
from tidewire_testkit.whole.readback import read_device, settled_ledger

STOP = "/tmp/stop"
"""Its appearance ends the load."""

_WINDOW_SECONDS = 8.0
"""After so long, and a little more, batches go again whose acknowledgement was thrown away."""

_LOOK_UP_SECONDS = 1.0


class RemotePlatform(UpProcess):
    """The platform behind a registry; the addresses of its other services are what that says, looked up anew."""

    def __init__(self, registry: str, token: str) -> None:
        super().__init__(Path("/tmp/none"))
        self._names: dict[str, str] = {"registry": registry}
        self._token = token
        self._found: dict[str, tuple[float, list[Endpoint]]] = {}

    async def learn(self, access: TenantAccess) -> None:
        """Asks the registry where the services are."""
        request = registry_pb2.GetEndpointsRequest(tenant=access.name)
        answer = await self.registry().GetEndpoints(request, metadata=access.metadata, timeout=10)
        for entry in answer.endpoints:
            self._names[entry.service] = entry.addresses[0]

    def endpoints(self, service: str) -> list[Endpoint]:
        """One per address record of the service's name; those known from before when it has none just now."""
        looked_up, known = self._found.get(service, (-1.0, []))
        if time.monotonic() - looked_up < _LOOK_UP_SECONDS:
            return known
        host, _, port = self._names[service].rpartition(":")
        try:
            records = socket.getaddrinfo(host, int(port), socket.AF_INET, socket.SOCK_STREAM)
        except socket.gaierror:
            records = []
        found = sorted({f"{record[4][0]}:{port}" for record in records})
        known = [Endpoint(address, "", 0) for address in found] or known
        self._found[service] = (time.monotonic(), known)
        return known

    def admin_metadata(self) -> tuple[tuple[str, str], ...]:
        """Call metadata of the platform administrator."""
        return bearer(self._token)


async def keep_ledger(tenant: str, seconds: float) -> int:
    """Publishes and checks; prints a line of JSON at the end. Returns the exit status: 1 when a promise was broken."""
    registry = os.environ["TIDEWIRE_ENDPOINT"].rpartition("://")[2]
    up = RemotePlatform(registry, os.environ["TIDEWIRE_TOKEN"])
    access = await up.create_tenant(tenant)
    await up.learn(access)
    ledger = OwnLedger()
    shape = {"devices": 6, "window_seconds": _WINDOW_SECONDS}
    publishers: list[UnaryPublisher | StreamPublisher] = [
        *(UnaryPublisher(up, access, f"unary{number}", ledger, **shape) for number in range(2)),  # type: ignore[arg-type]
        *(StreamPublisher(up, access, f"stream{number}", ledger, **shape) for number in range(2)),  # type: ignore[arg-type]
    ]
    devices = [device for publisher in publishers for device in publisher.all_devices()]
    await up.create_devices(access, *devices)
    stop, ends = asyncio.Event(), time.monotonic() + seconds
    print("publishing", flush=True)
    async with asyncio.TaskGroup() as tasks:
        for publisher in publishers:
            tasks.create_task(publisher.run(stop))
        while time.monotonic() < ends and not os.path.exists(STOP):  # noqa: ASYNC240 - a look at a tmpfs
            await asyncio.sleep(0.2)
        stop.set()
    settled = await until(lambda: settled_ledger(up), "the log is read and written", 60)
    for device in devices:
        ledger.check_device(device, await read_device(up, access, device))
    if settled.difference_readings:
        ledger.violation(f"the platform's own ledger differs by {settled.difference_readings} readings")
    await up.close_channels()
    result = {
        "acknowledged": ledger.acknowledged_cells(),
        "counts": dict(ledger.counts),
        "violations": ledger.violations,
    }
    print(json.dumps(result), flush=True)
    return 1 if ledger.violations else 0
