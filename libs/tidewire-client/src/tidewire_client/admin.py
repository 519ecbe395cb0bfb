"""Administration: tenants, devices, credentials and tokens.

Methods take ids or resource names, answer with the API's own messages (`tidewire.registry.v1`) and are safe to call
again: creations carry a request id, so that a retry after a lost answer finds its own work. Lists are iterators over
all pages.
"""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc.aio
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.type.latlng_pb2 import LatLng

from tidewire.registry.v1 import registry_pb2 as rpc
from tidewire.registry.v1.registry_pb2_grpc import RegistryServiceStub
from tidewire.registry.v1.resources_pb2 import (
    Credential,
    Device,
    Tenant,
    TenantQuotas,
    TenantRetention,
)
from tidewire_client.connect import REGISTRY, AsyncConnection
from tidewire_client.errors import InvalidArgument, NotFound
from tidewire_client.names import credential_name, device_name, tenant_name
from tidewire_client.times import Moment, to_duration, to_timestamp

if TYPE_CHECKING:
    from tidewire.registry.v1.registry_pb2_grpc import RegistryServiceAsyncStub

BATCH_CREATE_LIMIT = 1000
QUOTAS = tuple(field.name for field in TenantQuotas.DESCRIPTOR.fields)


def _request_id() -> str:
    return str(uuid.uuid4())


def new_device(
    *,
    display_name: str = "",
    type: str = "",  # noqa: A002 - the API's name for it
    labels: Mapping[str, str] | None = None,
    parent: str = "",
    location: tuple[float, float] | None = None,
) -> Device:
    """A device message; `parent` is a resource name, `location` (latitude, longitude) in degrees."""
    where = LatLng(latitude=location[0], longitude=location[1]) if location else None
    return Device(display_name=display_name, type=type, labels=labels or {}, parent=parent, location=where)


class AsyncAdminClient:
    """Manages what the registry keeps. Raises TidewireError; see `tidewire_client.errors`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection

    async def _call[Response](
        self,
        method: Callable[["RegistryServiceAsyncStub"], Callable[..., Awaitable[Response]]],
        request: Message,
    ) -> Response:
        def on(channel: grpc.aio.Channel) -> Callable[..., Awaitable[Response]]:
            return method(RegistryServiceStub(channel))

        return await self.connection.call(REGISTRY, on, request)

    async def _tenant(self, tenant: str) -> str:
        return tenant_name(tenant or await self.connection.tenant())

    async def _device(self, device: str, tenant: str = "") -> str:
        return device if device.startswith("tenants/") else device_name(await self._tenant(tenant), device)

    # Tenants

    async def create_tenant(
        self,
        tenant_id: str,
        *,
        display_name: str = "",
        labels: Mapping[str, str] | None = None,
        quotas: Mapping[str, int] | None = None,
        raw_retention: timedelta | None = None,
        rollup_retention: timedelta | None = None,
        validate_only: bool = False,
    ) -> Tenant:
        """Creates a tenant; `quotas` by the field names of `TenantQuotas`. Raises AlreadyExists."""
        tenant = Tenant(
            display_name=display_name,
            labels=labels or {},
            quotas=_quotas(quotas or {}),
            retention=TenantRetention(
                raw_duration=to_duration(raw_retention, "raw_retention") if raw_retention else None,
                rollup_duration=to_duration(rollup_retention, "rollup_retention")
                if rollup_retention
                else None,
            ),
        )
        request = rpc.CreateTenantRequest(
            tenant=tenant, tenant_id=tenant_id, request_id=_request_id(), validate_only=validate_only
        )
        return await self._call(lambda stub: stub.CreateTenant, request)

    async def get_tenant(self, tenant: str = "") -> Tenant:
        """Gets a tenant; "": the connection's. Raises NotFound."""
        request = rpc.GetTenantRequest(name=await self._tenant(tenant))
        return await self._call(lambda stub: stub.GetTenant, request)

    async def list_tenants(self, *, page_size: int = 0) -> AsyncIterator[Tenant]:
        """Tenants by name; who is no platform administrator sees the own only."""
        token = ""
        while True:
            page = await self._call(
                lambda stub: stub.ListTenants, rpc.ListTenantsRequest(page_size=page_size, page_token=token)
            )
            for tenant in page.tenants:
                yield tenant
            if not (token := page.next_page_token):
                return

    async def update_tenant(
        self, tenant: Tenant, update_mask: Sequence[str] = (), *, validate_only: bool = False
    ) -> Tenant:
        """Changes the fields named in `update_mask` (none: the populated ones). Raises NotFound, Conflict."""
        request = rpc.UpdateTenantRequest(
            tenant=tenant,
            update_mask=FieldMask(paths=update_mask) if update_mask else None,
            validate_only=validate_only,
        )
        return await self._call(lambda stub: stub.UpdateTenant, request)

    async def delete_tenant(self, tenant: str, *, etag: str = "") -> None:
        """Deletes a tenant with all its data. Raises NotFound, Conflict."""
        request = rpc.DeleteTenantRequest(name=tenant_name(tenant), etag=etag)
        await self._call(lambda stub: stub.DeleteTenant, request)

    async def block_tenant(self, tenant: str) -> Tenant:
        """Blocks a tenant: nothing is taken in or served within 10 seconds."""
        request = rpc.BlockTenantRequest(name=tenant_name(tenant))
        return await self._call(lambda stub: stub.BlockTenant, request)

    async def unblock_tenant(self, tenant: str) -> Tenant:
        """Ends a tenant's block."""
        request = rpc.UnblockTenantRequest(name=tenant_name(tenant))
        return await self._call(lambda stub: stub.UnblockTenant, request)

    async def get_tenant_usage(self, tenant: str = "") -> rpc.TenantUsage:
        """What a tenant uses of its quotas; "": the connection's."""
        request = rpc.GetTenantUsageRequest(name=await self._tenant(tenant))
        return await self._call(lambda stub: stub.GetTenantUsage, request)

    # Devices

    async def create_device(
        self, device_id: str, device: Device | None = None, *, tenant: str = "", validate_only: bool = False
    ) -> Device:
        """Creates a device; see `new_device`. Raises AlreadyExists, ResourceExhausted (too many devices)."""
        request = rpc.CreateDeviceRequest(
            parent=await self._tenant(tenant),
            device_id=device_id,
            device=device or Device(),
            request_id=_request_id(),
            validate_only=validate_only,
        )
        return await self._call(lambda stub: stub.CreateDevice, request)

    async def batch_create_devices(
        self, devices: Mapping[str, Device] | Iterable[str], *, tenant: str = "", allow_existing: bool = False
    ) -> list[Device]:
        """Creates any number of devices, 1,000 a request, each request all or none.

        Args:
            devices: device id → device, or ids alone.
            allow_existing: leaves those that exist as they are, instead of raising AlreadyExists.

        Returns the devices in the order given.
        """
        given = devices if isinstance(devices, Mapping) else {device_id: Device() for device_id in devices}
        parent = await self._tenant(tenant)
        requests = [
            rpc.CreateDeviceRequest(device_id=device_id, device=device) for device_id, device in given.items()
        ]
        created: list[Device] = []
        for start in range(0, len(requests), BATCH_CREATE_LIMIT):
            request = rpc.BatchCreateDevicesRequest(
                parent=parent,
                requests=requests[start : start + BATCH_CREATE_LIMIT],
                request_id=_request_id(),
                allow_existing=allow_existing,
            )
            created.extend((await self._call(lambda stub: stub.BatchCreateDevices, request)).devices)
        return created

    async def get_device(self, device: str, *, tenant: str = "") -> Device:
        """Gets a device. Raises NotFound."""
        request = rpc.GetDeviceRequest(name=await self._device(device, tenant))
        return await self._call(lambda stub: stub.GetDevice, request)

    async def list_devices(
        self,
        *,
        filter: str = "",  # noqa: A002 - the API's name for it
        tenant: str = "",
        page_size: int = 1000,
    ) -> AsyncIterator[Device]:
        """Devices by name, all or those that a filter admits, such as `type = "pump" AND labels.site = "a"`."""
        parent, token = await self._tenant(tenant), ""
        while True:
            page = await self._call(
                lambda stub: stub.ListDevices,
                rpc.ListDevicesRequest(parent=parent, page_size=page_size, page_token=token, filter=filter),
            )
            for device in page.devices:
                yield device
            if not (token := page.next_page_token):
                return

    async def count_devices(self, *, filter: str = "", tenant: str = "") -> int:  # noqa: A002
        """How many devices a filter admits."""
        request = rpc.ListDevicesRequest(
            parent=await self._tenant(tenant), page_size=1, filter=filter, count_total=True
        )
        return (await self._call(lambda stub: stub.ListDevices, request)).total_size

    async def update_device(
        self, device: Device, update_mask: Sequence[str] = (), *, validate_only: bool = False
    ) -> Device:
        """Changes the fields named in `update_mask` (none: the populated ones). Raises NotFound, Conflict."""
        request = rpc.UpdateDeviceRequest(
            device=device,
            update_mask=FieldMask(paths=update_mask) if update_mask else None,
            validate_only=validate_only,
        )
        return await self._call(lambda stub: stub.UpdateDevice, request)

    async def delete_device(self, device: str, *, tenant: str = "", etag: str = "") -> None:
        """Deletes a device with its data. Raises NotFound, Conflict, FailedPrecondition while it is a parent."""
        request = rpc.DeleteDeviceRequest(name=await self._device(device, tenant), etag=etag)
        await self._call(lambda stub: stub.DeleteDevice, request)

    async def block_device(self, device: str, *, tenant: str = "") -> Device:
        """Blocks a device: its telemetry is refused within 10 seconds."""
        request = rpc.BlockDeviceRequest(name=await self._device(device, tenant))
        return await self._call(lambda stub: stub.BlockDevice, request)

    async def unblock_device(self, device: str, *, tenant: str = "") -> Device:
        """Ends a device's block."""
        request = rpc.UnblockDeviceRequest(name=await self._device(device, tenant))
        return await self._call(lambda stub: stub.UnblockDevice, request)

    # Credentials and tokens

    async def create_credential(
        self, device: str, public_key_pem: str, *, expire_time: Moment | None = None, tenant: str = ""
    ) -> Credential:
        """Registers a device's public key (PEM). The id at the end of its name is the `kid` of the device's tokens."""
        request = rpc.CreateCredentialRequest(
            parent=await self._device(device, tenant),
            credential=Credential(
                public_key_pem=public_key_pem,
                expire_time=to_timestamp(expire_time, "expire_time") if expire_time is not None else None,
            ),
            request_id=_request_id(),
        )
        return await self._call(lambda stub: stub.CreateCredential, request)

    async def list_credentials(self, device: str, *, tenant: str = "") -> AsyncIterator[Credential]:
        """A device's credentials by name."""
        parent, token = await self._device(device, tenant), ""
        while True:
            page = await self._call(
                lambda stub: stub.ListCredentials, rpc.ListCredentialsRequest(parent=parent, page_token=token)
            )
            for credential in page.credentials:
                yield credential
            if not (token := page.next_page_token):
                return

    async def delete_credential(self, device: str, credential: str = "", *, tenant: str = "") -> None:
        """Deletes a credential, by device and id or by resource name alone. Raises NotFound."""
        name = device
        if credential:
            name = credential_name(await self._tenant(tenant), device, credential)
        await self._call(lambda stub: stub.DeleteCredential, rpc.DeleteCredentialRequest(name=name))

    async def create_token(
        self, subject: str, roles: Sequence[str], *, tenant: str = "", ttl: timedelta | None = None
    ) -> rpc.CreateTokenResponse:
        """Makes a token for a user or service.

        Args:
            subject: who it is for, as logs show it.
            roles: `platform-admin`, `tenant-admin`, `operator`, `reader` or `service`.
            tenant: whose; "": none, for a platform administrator or a service.
            ttl: how long it holds, from a minute to 365 days; None: 24 hours.
        """
        request = rpc.CreateTokenRequest(
            tenant=tenant_name(tenant) if tenant else "",
            subject=subject,
            roles=roles,
            ttl=to_duration(ttl, "ttl") if ttl else None,
        )
        return await self._call(lambda stub: stub.CreateToken, request)

    async def get_endpoints(self) -> dict[str, tuple[str, ...]]:
        """Addresses of the services, by service."""
        return await self.connection.services()

    async def ensure_devices(self, device_ids: Iterable[str], *, tenant: str = "") -> int:
        """Creates those of the devices that do not exist. Returns how many there are to be now."""
        return len(await self.batch_create_devices(device_ids, tenant=tenant, allow_existing=True))

    async def ensure_tenant(self, tenant_id: str, *, display_name: str = "") -> Tenant:
        """Gets a tenant, and creates it if there is none."""
        try:
            return await self.get_tenant(tenant_id)
        except NotFound:
            return await self.create_tenant(tenant_id, display_name=display_name)


def _quotas(quotas: Mapping[str, int]) -> TenantQuotas | None:
    unknown = sorted(set(quotas) - set(QUOTAS))
    if unknown:
        raise InvalidArgument(
            f"there is no quota '{unknown[0]}'; quotas are {', '.join(QUOTAS)}", field="quotas"
        )
    message = TenantQuotas()
    for name, limit in quotas.items():
        setattr(message, name, limit)
    return message if quotas else None
