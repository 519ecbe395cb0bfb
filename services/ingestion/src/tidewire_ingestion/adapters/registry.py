"""Asks the registry over gRPC for devices that the directory has not heard of."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import grpc
from grpc import aio

from tidewire.registry.v1.registry_pb2 import ResolveDevicesRequest
from tidewire.registry.v1.registry_pb2_grpc import RegistryServiceStub
from tidewire_kit.directory import Directory
from tidewire_kit.errors import Unavailable
from tidewire_kit.grpc import from_rpc_error
from tidewire_kit.ids import TenantId, uid_hex

if TYPE_CHECKING:  # exists for type checkers only
    from tidewire.registry.v1.registry_pb2_grpc import RegistryServiceAsyncStub


class RegistryResolver:
    """`DeviceResolver` by `ResolveDevices`."""

    def __init__(self, directory: Directory, connect: Callable[[], aio.Channel], seconds: float) -> None:
        """`connect` makes the channel; called at the first question and again after the registry did not answer."""
        self._directory = directory
        self._connect = connect
        self._seconds = seconds
        self._channel: aio.Channel | None = None

    async def resolve(self, tenant: TenantId, device_ids: Sequence[str]) -> None:
        """See the port."""
        if self._channel is None:
            self._channel = self._connect()
        stub: RegistryServiceAsyncStub = RegistryServiceStub(self._channel)
        request = ResolveDevicesRequest(tenant_uid=uid_hex(tenant), device_ids=device_ids)
        try:
            response = await stub.ResolveDevices(request, timeout=self._seconds)
        except aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                await self.close()  # it may have come back elsewhere
            # Whatever it was, it is between us and the registry: the publisher can only try again.
            why = f"cannot be asked for devices not seen before ({from_rpc_error(error, 'registry').reason})"
            raise Unavailable("registry", why, reason="REGISTRY_UNAVAILABLE") from error
        self._directory.add_resolved(tenant, response.devices)

    async def close(self) -> None:
        """Lets the connection go; the next question makes another."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(None)
