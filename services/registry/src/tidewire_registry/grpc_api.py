"""The servicer of RegistryService: parse the request, call the use case, render its outcome. Made by main.

Every RPC finds the tenant first: the caller's own, or for platform administrators the one that the name says. So a
foreign tenant is PERMISSION_DENIED before anything is looked up, whether it exists or not.
"""

from dataclasses import dataclass

from google.protobuf.empty_pb2 import Empty

from tidewire.registry.v1 import registry_pb2 as pb
from tidewire.registry.v1 import resources_pb2
from tidewire_kit.errors import InvalidArgument
from tidewire_kit.grpc import Call
from tidewire_kit.identity import Role
from tidewire_kit.ids import (
    TenantId,
    parse_credential_name,
    parse_device_name,
    parse_tenant_name,
    parse_uid,
)
from tidewire_registry.application.credentials import Credentials
from tidewire_registry.application.device_creation import DeviceCreation
from tidewire_registry.application.devices import Devices
from tidewire_registry.application.tenants import Tenants
from tidewire_registry.application.tokens import Tokens, check_grant
from tidewire_registry.conversions.masks import device_changes, tenant_changes
from tidewire_registry.conversions.paging import MAX_RESPONSE_BYTES, page_size, page_start, page_token
from tidewire_registry.conversions.requests import request_key
from tidewire_registry.conversions.resources import (
    credential_to_proto,
    device_to_proto,
    draft_of,
    tenant_to_proto,
    timestamp,
    unix_us,
    usage_to_proto,
)
from tidewire_registry.ports import Endpoints

_MAX_RESOLVED = 10_000
_MAX_BATCH_BYTES = 3_700_000


@dataclass(frozen=True, slots=True)
class UseCases:
    """What the servicer calls."""

    tenants: Tenants
    devices: Devices
    device_creation: DeviceCreation
    credentials: Credentials
    tokens: Tokens
    endpoints: Endpoints


class RegistryServicer:
    """One method per RPC; what each promises is written in the proto."""

    def __init__(self, use_cases: UseCases) -> None:
        self._tenants = use_cases.tenants
        self._devices = use_cases.devices
        self._creation = use_cases.device_creation
        self._credentials = use_cases.credentials
        self._tokens = use_cases.tokens
        self._endpoints = use_cases.endpoints

    # Tenants

    async def CreateTenant(self, request: pb.CreateTenantRequest, call: Call) -> resources_pb2.Tenant:
        """See the proto."""
        changes = tenant_changes(request.tenant, None)
        key = None if request.validate_only else request_key(request, request.request_id)
        return tenant_to_proto(
            await self._tenants.create(request.tenant_id, changes, key, request.validate_only)
        )

    async def GetTenant(self, request: pb.GetTenantRequest, call: Call) -> resources_pb2.Tenant:
        """See the proto."""
        return tenant_to_proto(await self._tenants.get(*await self._tenant(call, request.name)))

    async def ListTenants(self, request: pb.ListTenantsRequest, call: Call) -> pb.ListTenantsResponse:
        """See the proto."""
        size = page_size(request.page_size, 1_000)
        scope = "" if Role.PLATFORM_ADMIN in call.caller.roles else call.tenant.hex()
        after = page_start(request.page_token, "tenants", scope)
        if scope:
            own = await self._tenants.get(call.tenant, call.caller.tenant_id)
            return pb.ListTenantsResponse(tenants=[] if after else [tenant_to_proto(own)])
        page = await self._tenants.list(after, size)
        response = pb.ListTenantsResponse(tenants=[tenant_to_proto(tenant) for tenant in page.items])
        if page.more:
            response.next_page_token = page_token(page.items[-1].id, "tenants", scope)
        return response

    async def UpdateTenant(self, request: pb.UpdateTenantRequest, call: Call) -> resources_pb2.Tenant:
        """See the proto."""
        tenant, tenant_id = await self._tenant(call, request.tenant.name, "tenant.name")
        mask = request.update_mask if request.HasField("update_mask") else None
        changes = tenant_changes(request.tenant, mask)
        return tenant_to_proto(
            await self._tenants.update(tenant, tenant_id, changes, request.tenant.etag, request.validate_only)
        )

    async def DeleteTenant(self, request: pb.DeleteTenantRequest, call: Call) -> Empty:
        """See the proto."""
        await self._tenants.delete(*await self._tenant(call, request.name), request.etag)
        return Empty()

    async def BlockTenant(self, request: pb.BlockTenantRequest, call: Call) -> resources_pb2.Tenant:
        """See the proto."""
        return tenant_to_proto(await self._tenants.block(*await self._tenant(call, request.name)))

    async def UnblockTenant(self, request: pb.UnblockTenantRequest, call: Call) -> resources_pb2.Tenant:
        """See the proto."""
        return tenant_to_proto(await self._tenants.unblock(*await self._tenant(call, request.name)))

    async def GetTenantUsage(self, request: pb.GetTenantUsageRequest, call: Call) -> pb.TenantUsage:
        """See the proto."""
        return usage_to_proto(await self._tenants.usage(*await self._tenant(call, request.name)))

    # Devices

    async def CreateDevice(self, request: pb.CreateDeviceRequest, call: Call) -> resources_pb2.Device:
        """See the proto."""
        tenant, tenant_id = await self._tenant(call, request.parent, "parent")
        draft = draft_of(request.device, request.device_id, tenant_id)
        key = None if request.validate_only else request_key(request, request.request_id)
        (device,) = await self._creation.create(
            tenant, tenant_id, [draft], key, validate_only=request.validate_only
        )
        return device_to_proto(device, tenant_id)

    async def BatchCreateDevices(
        self, request: pb.BatchCreateDevicesRequest, call: Call
    ) -> pb.BatchCreateDevicesResponse:
        """See the proto."""
        tenant, tenant_id = await self._tenant(call, request.parent, "parent")
        if request.ByteSize() > _MAX_BATCH_BYTES:  # the answer is a little larger, and has the same limit
            raise InvalidArgument(
                "requests", f"are more than {_MAX_BATCH_BYTES} bytes together; split the batch"
            )
        drafts = []
        for i, one in enumerate(request.requests):
            if one.parent and one.parent != request.parent:
                raise InvalidArgument(f"requests[{i}].parent", f"is not {request.parent}; leave it empty")
            if one.validate_only or one.request_id:
                why = "has validate_only or request_id; the batch as a whole has a request_id"
                raise InvalidArgument(f"requests[{i}]", why)
            drafts.append(draft_of(one.device, one.device_id, tenant_id, f"requests[{i}].device"))
        devices = await self._creation.create(
            tenant, tenant_id, drafts, request_key(request, request.request_id), request.allow_existing
        )
        return pb.BatchCreateDevicesResponse(devices=[device_to_proto(d, tenant_id) for d in devices])

    async def GetDevice(self, request: pb.GetDeviceRequest, call: Call) -> resources_pb2.Device:
        """See the proto."""
        tenant, tenant_id, device_id = await self._device(call, request.name)
        return device_to_proto(await self._devices.get(tenant, tenant_id, device_id), tenant_id)

    async def ListDevices(self, request: pb.ListDevicesRequest, call: Call) -> pb.ListDevicesResponse:
        """See the proto."""
        tenant, tenant_id = await self._tenant(call, request.parent, "parent")
        size = page_size(request.page_size, 10_000)
        arguments = ("devices", tenant.hex(), request.filter)
        after = page_start(request.page_token, *arguments)
        page, total = await self._devices.list(
            tenant, tenant_id, request.filter, after, size, request.count_total
        )
        response = pb.ListDevicesResponse(total_size=total)
        more, size_bytes, last = page.more, 0, ""
        for device in page.items:
            message = device_to_proto(device, tenant_id)
            size_bytes += message.ByteSize() + 8
            if size_bytes > MAX_RESPONSE_BYTES and last:
                more = True
                break
            response.devices.append(message)
            last = device.id
        if more:
            response.next_page_token = page_token(last, *arguments)
        return response

    async def UpdateDevice(self, request: pb.UpdateDeviceRequest, call: Call) -> resources_pb2.Device:
        """See the proto."""
        tenant, tenant_id, device_id = await self._device(call, request.device.name, "device.name")
        mask = request.update_mask if request.HasField("update_mask") else None
        changes = device_changes(request.device, mask, tenant_id)
        device = await self._devices.update(
            tenant, tenant_id, device_id, changes, request.device.etag, request.validate_only
        )
        return device_to_proto(device, tenant_id)

    async def DeleteDevice(self, request: pb.DeleteDeviceRequest, call: Call) -> Empty:
        """See the proto."""
        await self._devices.delete(*await self._device(call, request.name), request.etag)
        return Empty()

    async def BlockDevice(self, request: pb.BlockDeviceRequest, call: Call) -> resources_pb2.Device:
        """See the proto."""
        tenant, tenant_id, device_id = await self._device(call, request.name)
        return device_to_proto(await self._devices.block(tenant, tenant_id, device_id), tenant_id)

    async def UnblockDevice(self, request: pb.UnblockDeviceRequest, call: Call) -> resources_pb2.Device:
        """See the proto."""
        tenant, tenant_id, device_id = await self._device(call, request.name)
        return device_to_proto(await self._devices.unblock(tenant, tenant_id, device_id), tenant_id)

    async def ResolveDevices(
        self, request: pb.ResolveDevicesRequest, call: Call
    ) -> pb.ResolveDevicesResponse:
        """See the proto. Services name the tenant by its uid."""
        tenant = TenantId(parse_uid(request.tenant_uid, field="tenant_uid"))
        if len(request.device_ids) > _MAX_RESOLVED:
            raise InvalidArgument(
                "device_ids", f"has {len(request.device_ids)} ids; give at most {_MAX_RESOLVED}"
            )
        response = pb.ResolveDevicesResponse()
        tenant_id = await self._tenants.id_of(tenant)
        if tenant_id is None:
            return response
        for device in await self._devices.resolve(tenant, list(request.device_ids)):
            response.devices.add(
                device=device_to_proto(device, tenant_id),
                revision=device.revision,
                ancestor_uids=[uid.hex() for uid in device.ancestors],
            )
        return response

    # Credentials, tokens, endpoints

    async def CreateCredential(
        self, request: pb.CreateCredentialRequest, call: Call
    ) -> resources_pb2.Credential:
        """See the proto."""
        tenant, tenant_id, device_id = await self._device(call, request.parent, "parent")
        given = request.credential
        expires_us = (
            unix_us(given.expire_time, "credential.expire_time") if given.HasField("expire_time") else None
        )
        key = request_key(request, request.request_id)
        credential = await self._credentials.create(
            tenant, tenant_id, device_id, given.public_key_pem, expires_us, key
        )
        return credential_to_proto(credential, tenant_id)

    async def ListCredentials(
        self, request: pb.ListCredentialsRequest, call: Call
    ) -> pb.ListCredentialsResponse:
        """See the proto."""
        tenant, tenant_id, device_id = await self._device(call, request.parent, "parent")
        arguments = ("credentials", tenant.hex(), device_id)
        after = page_start(request.page_token, *arguments)
        size = page_size(request.page_size, 1_000)
        page = await self._credentials.list(tenant, tenant_id, device_id, after, size)
        return pb.ListCredentialsResponse(
            credentials=[credential_to_proto(credential, tenant_id) for credential in page.items],
            next_page_token=page_token(page.items[-1].id, *arguments) if page.more else "",
        )

    async def DeleteCredential(self, request: pb.DeleteCredentialRequest, call: Call) -> Empty:
        """See the proto."""
        tenant_id, device_id, uid = parse_credential_name(request.name)
        tenant, _ = await self._tenant(call, f"tenants/{tenant_id}")
        await self._credentials.delete(tenant, tenant_id, device_id, uid)
        return Empty()

    async def CreateToken(self, request: pb.CreateTokenRequest, call: Call) -> pb.CreateTokenResponse:
        """See the proto."""
        is_platform_admin = Role.PLATFORM_ADMIN in call.caller.roles
        check_grant(is_platform_admin, bool(request.tenant), list(request.roles))
        tenant, tenant_id = None, ""
        if request.tenant:
            tenant, tenant_id = await self._tenant(call, request.tenant, "tenant")
        ttl = request.ttl.seconds if request.HasField("ttl") else None
        token, expires_us = await self._tokens.create(
            tenant, tenant_id, request.subject, list(request.roles), ttl
        )
        return pb.CreateTokenResponse(token=token, expire_time=timestamp(expires_us))

    async def GetEndpoints(self, request: pb.GetEndpointsRequest, call: Call) -> pb.GetEndpointsResponse:
        """See the proto. All tenants share the services of an embedded platform."""
        if request.tenant and Role.SERVICE not in call.caller.roles:
            await self._tenant(call, request.tenant, "tenant")
        response = pb.GetEndpointsResponse()
        for service, addresses in sorted(self._endpoints.addresses().items()):
            response.endpoints.add(service=service, addresses=addresses)
        return response

    # Whose

    async def _tenant(self, call: Call, name: str, field: str = "name") -> tuple[TenantId, str]:
        """(uid, id) of the tenant of a resource name. PermissionDenied, or for platform administrators NotFound."""
        tenant_id = parse_tenant_name(name, field=field)
        if Role.PLATFORM_ADMIN in call.caller.roles and tenant_id != call.caller.tenant_id:
            return (await self._tenants.find(tenant_id)).uid, tenant_id
        return call.tenant_for(name), tenant_id

    async def _device(self, call: Call, name: str, field: str = "name") -> tuple[TenantId, str, str]:
        tenant_id, device_id = parse_device_name(name, field=field)
        tenant, _ = await self._tenant(call, f"tenants/{tenant_id}", field)
        return tenant, tenant_id, device_id
