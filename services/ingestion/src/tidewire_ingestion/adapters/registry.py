"""Asks the registry over gRPC for devices that the directory has not heard of."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from grpc import aio

from tidewire.registry.v1.registry_pb2 import ResolveDevicesRequest
from tidewire.registry.v1.registry_pb2_grpc import RegistryServiceStub
from tidewire_kit.directory import Directory
from tidewire_kit.errors import TidewireError, Unavailable
from tidewire_kit.grpc import from_rpc_error
from tidewire_kit.ids import TenantId, uid_hex

if TYPE_CHECKING:  # exists for type checkers only
    from tidewire.registry.v1.registry_pb2_grpc import RegistryServiceAsyncStub


class RegistryResolver:
    """`DeviceResolver` by `ResolveDevices`."""

    def __init__(self, directory: Directory, connect: Callable[[], aio.Channel], seconds: float) -> None:
        """`connect` makes the channel, or raises Unavailable; called at the first question and after a failed one."""
        self._directory = directory
        self._connect = connect
        self._seconds = seconds
        self._channel: aio.Channel | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def resolve(self, tenant: TenantId, device_ids: Sequence[str]) -> None:
        """See the port."""
        request = ResolveDevicesRequest(tenant_uid=uid_hex(tenant), device_ids=device_ids)
        try:
            channel = self._channel = self._channel or self._connect()
        except Unavailable as error:
            raise _not_asked(error) from error
        try:
            stub: RegistryServiceAsyncStub = RegistryServiceStub(channel)
            response = await stub.ResolveDevices(request, timeout=self._seconds)
        except aio.AioRpcError as error:
            self._leave(channel)  # another process may answer, at another address
            raise _not_asked(from_rpc_error(error, "registry")) from error
        self._directory.add_resolved(tenant, response.devices)

    def _leave(self, channel: aio.Channel) -> None:
        """Lets the next question make another channel, and closes this one when the questions of others on it end."""
        if self._channel is channel:
            self._channel = None
            task = asyncio.ensure_future(channel.close(self._seconds))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """Closes the connection."""
        if self._channel is not None:
            self._leave(self._channel)
        await asyncio.gather(*self._leaving)


def _not_asked(error: TidewireError) -> Unavailable:
    """Whatever it was, it is between us and the registry: the publisher can only try again."""
    why = f"cannot be asked for devices not seen before ({error.reason})"
    return Unavailable("registry", why, reason="REGISTRY_UNAVAILABLE")
