"""A small service for tests of servers and clients: the ingestion API's shape with a behaviour of its own.

service_handler(DESCRIPTOR, Toy(), ACCESS, guard, raw=RAW)
"""

import asyncio
from collections.abc import AsyncIterator

from tidewire.ingestion.v1 import ingestion_pb2
from tidewire_kit.errors import InvalidArgument
from tidewire_kit.grpc import Access, Call
from tidewire_kit.identity import Role

DESCRIPTOR = ingestion_pb2.DESCRIPTOR.services_by_name["IngestionService"]
ACCESS: Access = {method.name: frozenset({Role.OPERATOR}) for method in DESCRIPTOR.methods}
RAW = [method.name for method in DESCRIPTOR.methods]
UNARY = "/tidewire.ingestion.v1.IngestionService/PublishTelemetry"
STREAM = "/tidewire.ingestion.v1.IngestionService/StreamTelemetry"


class Toy:
    """Answers each request with itself; `wait`, `bug`, `invalid` and `tenant` do as they say."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        """The unary calls that came in."""
        self.go_on = asyncio.Event()
        """Ends every `wait`."""
        self.waiting = 0
        """Requests `wait` that have come in."""
        self.cancelled = 0
        self.acknowledged: list[bytes] = []
        """What streams were answered."""

    async def PublishTelemetry(self, request: bytes, call: Call) -> bytes:
        """Unary."""
        self.calls.append(call)
        match request:
            case b"bug":
                raise ZeroDivisionError("a secret of the inside")
            case b"invalid":
                raise InvalidArgument("frames[0]", "has no rows")
            case b"tenant":
                return call.tenant
            case b"wait":
                await self._wait()
            case _:
                pass
        return request

    async def PublishEvents(self, request: bytes, call: Call) -> bytes:
        """Unary; the plainest."""
        return request

    async def StreamTelemetry(self, requests: AsyncIterator[bytes], call: Call) -> AsyncIterator[bytes]:
        """Streamed both ways."""
        async for request in requests:
            if request == b"wait":
                await self._wait()
            call.check()
            self.acknowledged.append(request)
            yield request

    async def _wait(self) -> None:
        self.waiting += 1
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
