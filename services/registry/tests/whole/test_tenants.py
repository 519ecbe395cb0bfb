"""Tenants over gRPC, with a real log behind the registry."""

import uuid

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from tidewire.registry.v1 import registry_pb2 as pb
from tidewire.registry.v1.registry_pb2 import DESCRIPTOR
from tidewire.registry.v1.resources_pb2 import Device, Tenant, TenantQuotas, TenantRetention
from tidewire_registry.access import ACCESS
from tidewire_testkit.access_table import walk_access_table
from tidewire_testkit.polling import until

Code = grpc.StatusCode


async def test_every_rpc_is_in_the_access_table() -> None:
    await walk_access_table(DESCRIPTOR.services_by_name["RegistryService"], ACCESS)


async def test_a_tenant_from_creation_to_deletion(platform) -> None:
    admin = platform.admin
    tenant = Tenant(
        display_name="Acme",
        labels={"tier": "gold"},
        quotas=TenantQuotas(devices=7),
        retention=TenantRetention(raw_duration=Duration(seconds=7200)),
    )
    made = await admin(pb.CreateTenantRequest(tenant_id="acme", tenant=tenant))
    assert made.name == "tenants/acme"
    assert made.state == Tenant.ACTIVE
    assert len(bytes.fromhex(made.uid)) == 16
    assert made.retention.raw_duration.seconds == 7200
    assert await admin(pb.GetTenantRequest(name="tenants/acme")) == made

    changed = await admin(
        pb.UpdateTenantRequest(
            tenant=Tenant(
                name=made.name, etag=made.etag, display_name="Acme 2", quotas=TenantQuotas(devices=9)
            ),
            update_mask=FieldMask(paths=["display_name", "quotas.devices", "retention"]),
        )
    )
    assert (changed.display_name, changed.quotas.devices) == ("Acme 2", 9)
    assert changed.labels == made.labels
    assert not changed.HasField("retention")
    assert changed.etag != made.etag
    stale = pb.UpdateTenantRequest(tenant=Tenant(name=made.name, etag=made.etag, display_name="late"))
    await admin.refuses(stale, Code.ABORTED, "ETAG_MISMATCH")

    blocked = await admin(pb.BlockTenantRequest(name=made.name))
    assert blocked.state == Tenant.BLOCKED
    assert await admin(pb.BlockTenantRequest(name=made.name)) == blocked
    assert (await admin(pb.UnblockTenantRequest(name=made.name))).state == Tenant.ACTIVE
    await admin.refuses(
        pb.UnblockTenantRequest(name=made.name), Code.FAILED_PRECONDITION, "TENANT_NOT_BLOCKED"
    )

    await admin.refuses(pb.DeleteTenantRequest(name=made.name, etag=made.etag), Code.ABORTED)
    await admin(pb.DeleteTenantRequest(name=made.name))
    await admin.refuses(pb.GetTenantRequest(name=made.name), Code.NOT_FOUND)
    await admin.refuses(pb.DeleteTenantRequest(name=made.name), Code.NOT_FOUND)


@pytest.mark.parametrize("start", ["embedded"], indirect=True)  # refused before any store is asked
@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.CreateTenantRequest(tenant_id="Acme"), "tenant_id"),
        (pb.CreateTenantRequest(tenant_id=""), "tenant_id"),
        (pb.CreateTenantRequest(tenant_id="a" * 41), "tenant_id"),
        (pb.CreateTenantRequest(tenant_id="a", request_id="1"), "request_id"),
        (pb.CreateTenantRequest(tenant_id="a", tenant=Tenant(labels={"A": ""})), "tenant.labels"),
        (
            pb.CreateTenantRequest(tenant_id="a", tenant=Tenant(quotas=TenantQuotas(devices=-1))),
            "tenant.quotas.devices",
        ),
        (pb.GetTenantRequest(name="acme"), "name"),
        (pb.GetTenantRequest(name="tenants/acme/devices/d"), "name"),
        (pb.ListTenantsRequest(page_size=-1), "page_size"),
        (pb.ListTenantsRequest(page_token="x"), "page_token"),
        (pb.UpdateTenantRequest(tenant=Tenant(name="acme")), "tenant.name"),
    ],
)
async def test_bad_requests_name_their_field(platform, request_, field: str) -> None:
    await platform.admin.refuses(request_, Code.INVALID_ARGUMENT, field=field)


async def test_validate_only_changes_nothing(platform) -> None:
    admin = platform.admin
    asked = await admin(pb.CreateTenantRequest(tenant_id="acme", validate_only=True))
    assert asked.name == "tenants/acme"
    await admin.refuses(pb.GetTenantRequest(name="tenants/acme"), Code.NOT_FOUND)
    made = await admin(pb.CreateTenantRequest(tenant_id="acme"))
    await admin.refuses(pb.CreateTenantRequest(tenant_id="acme", validate_only=True), Code.ALREADY_EXISTS)
    update = pb.UpdateTenantRequest(tenant=Tenant(name=made.name, display_name="x"), validate_only=True)
    assert (await admin(update)).display_name == "x"
    assert await admin(pb.GetTenantRequest(name=made.name)) == made


async def test_a_request_id_makes_creation_safe_to_repeat(platform) -> None:
    admin = platform.admin
    request = pb.CreateTenantRequest(tenant_id="acme", request_id=str(uuid.uuid4()))
    made = await admin(request)
    assert await admin(request) == made
    other = pb.CreateTenantRequest(tenant_id="other", request_id=request.request_id)
    await admin.refuses(other, Code.INVALID_ARGUMENT, "REQUEST_ID_REUSED", "request_id")
    await admin.refuses(pb.CreateTenantRequest(tenant_id="acme"), Code.ALREADY_EXISTS)


async def test_lists_are_paged_and_members_see_their_own_tenant_only(platform) -> None:
    admin = platform.admin
    for id_ in ("c", "a", "b"):
        await admin(pb.CreateTenantRequest(tenant_id=id_))
    first = await admin(pb.ListTenantsRequest(page_size=2))
    assert [tenant.name for tenant in first.tenants] == ["tenants/a", "tenants/b"]
    second = await admin(pb.ListTenantsRequest(page_size=2, page_token=first.next_page_token))
    assert [tenant.name for tenant in second.tenants] == ["tenants/c"]
    assert second.next_page_token == ""

    reader = await platform.member("b", "reader")
    own = await reader(pb.ListTenantsRequest())
    assert [tenant.name for tenant in own.tenants] == ["tenants/b"]
    await reader.refuses(
        pb.ListTenantsRequest(page_token=first.next_page_token),
        Code.INVALID_ARGUMENT,
        field="page_token",
    )
    assert (await reader(pb.GetTenantRequest(name="tenants/b"))).name == "tenants/b"
    texts = {
        await reader.refuses(
            pb.GetTenantRequest(name=f"tenants/{id_}"), Code.PERMISSION_DENIED, "OTHER_TENANT"
        )
        for id_ in ("a", "nobody")
    }
    assert len(texts) == 1  # nothing tells a tenant that exists from one that does not
    await reader.refuses(pb.CreateTenantRequest(tenant_id="d"), Code.PERMISSION_DENIED)
    tenant_admin = await platform.member("b", "tenant-admin")
    await tenant_admin.refuses(pb.BlockTenantRequest(name="tenants/b"), Code.PERMISSION_DENIED)


async def test_a_blocked_tenants_tokens_are_refused_until_it_is_unblocked(platform) -> None:
    admin = platform.admin
    await admin(pb.CreateTenantRequest(tenant_id="acme"))
    reader = await platform.member("acme", "reader")
    await admin(pb.BlockTenantRequest(name="tenants/acme"))
    get = pb.GetTenantRequest(name="tenants/acme")
    await reader.refuses(get, Code.UNAUTHENTICATED, "TENANT_BLOCKED")
    token = pb.CreateTokenRequest(tenant="tenants/acme", subject="x", roles=["reader"])
    await admin.refuses(token, Code.FAILED_PRECONDITION, "TENANT_BLOCKED")
    await admin(pb.UnblockTenantRequest(name="tenants/acme"))
    assert (await reader(get)).state == Tenant.ACTIVE


async def test_a_tenant_created_again_sees_nothing_of_the_old_one(platform) -> None:
    admin = platform.admin
    old = await admin(pb.CreateTenantRequest(tenant_id="acme"))
    await admin(pb.CreateDeviceRequest(parent=old.name, device_id="d", device=Device(type="pump")))
    before = await platform.member("acme", "tenant-admin")
    await admin(pb.DeleteTenantRequest(name=old.name))
    new = await admin(pb.CreateTenantRequest(tenant_id="acme"))
    assert new.uid != old.uid
    listed = await admin(pb.ListDevicesRequest(parent=new.name, count_total=True))
    assert not listed.devices
    assert listed.total_size == 0
    await before.refuses(pb.ListDevicesRequest(parent=new.name), Code.UNAUTHENTICATED)
    made = await admin(pb.CreateDeviceRequest(parent=new.name, device_id="d"))
    assert made.type == ""

    async def purged() -> bool:
        keys = await platform.topic()
        return not any(key.startswith(old.uid) and "/device/" in key for key in keys)

    await until(purged, message="the old tenant's devices are gone from the topic")
    topic = await platform.topic()
    assert topic[f"{old.uid}/tenant/{old.uid}"].deleted
    assert not topic[f"{new.uid}/tenant/{new.uid}"].deleted
    assert f"{new.uid}/device/{made.uid}" in topic


async def test_usage_without_storage_counts_what_the_registry_knows(platform) -> None:
    admin = platform.admin
    await admin(pb.CreateTenantRequest(tenant_id="acme", tenant=Tenant(quotas=TenantQuotas(devices=5))))
    await admin(pb.CreateDeviceRequest(parent="tenants/acme", device_id="d"))
    usage = await admin(pb.GetTenantUsageRequest(name="tenants/acme"))
    assert (usage.devices, usage.credentials, usage.quotas.devices) == (1, 0, 5)
    assert (usage.accepted_readings, usage.stored_bytes) == (0, 0)
    assert not usage.HasField("measure_time")
