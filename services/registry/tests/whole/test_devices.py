"""Devices over gRPC, with a real log behind the registry."""

import asyncio
import uuid

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.type.latlng_pb2 import LatLng

from tidewire.registry.v1 import registry_pb2 as pb
from tidewire.registry.v1.resources_pb2 import Device, Tenant, TenantQuotas

Code = grpc.StatusCode
ACME = "tenants/acme"


def create(device_id: str, parent: str = "", **fields: object) -> pb.CreateDeviceRequest:
    device = Device(parent=f"{ACME}/devices/{parent}" if parent else "", **fields)
    return pb.CreateDeviceRequest(parent=ACME, device_id=device_id, device=device)


def name(device_id: str) -> str:
    return f"{ACME}/devices/{device_id}"


@pytest.fixture
async def admin(platform):
    client = platform.admin
    await client(pb.CreateTenantRequest(tenant_id="acme"))
    return client


async def test_a_device_from_creation_to_deletion(admin) -> None:
    request = create(
        "AA:01",
        display_name="Pump",
        type="pump",
        labels={"site": "s1"},
        location=LatLng(latitude=1, longitude=2),
    )
    made = await admin(request)
    assert made.name == name("AA:01")
    assert made.state == Device.ENROLLED
    assert await admin(pb.GetDeviceRequest(name=made.name)) == made
    await admin.refuses(request, Code.ALREADY_EXISTS)
    await admin.refuses(pb.GetDeviceRequest(name=name("aa:01")), Code.NOT_FOUND)

    update = pb.UpdateDeviceRequest(
        device=Device(name=made.name, etag=made.etag, type="valve", labels={"a": "b"})
    )
    changed = await admin(update)
    assert (changed.type, dict(changed.labels), changed.display_name) == ("valve", {"a": "b"}, "Pump")
    await admin.refuses(update, Code.ABORTED, "ETAG_MISMATCH")
    again = await admin(pb.UpdateDeviceRequest(device=Device(name=made.name, type="valve")))
    assert again == changed  # nothing changed, so no new revision
    mask = FieldMask(paths=["location", "labels"])
    cleared = await admin(pb.UpdateDeviceRequest(device=Device(name=made.name), update_mask=mask))
    assert not cleared.HasField("location")
    assert not cleared.labels
    assert cleared.type == "valve"

    blocked = await admin(pb.BlockDeviceRequest(name=made.name))
    assert blocked.state == Device.BLOCKED
    assert (await admin(pb.UnblockDeviceRequest(name=made.name))).state == Device.ENROLLED
    await admin.refuses(
        pb.UnblockDeviceRequest(name=made.name), Code.FAILED_PRECONDITION, "DEVICE_NOT_BLOCKED"
    )
    await admin.refuses(pb.DeleteDeviceRequest(name=made.name, etag=made.etag), Code.ABORTED)
    await admin(pb.DeleteDeviceRequest(name=made.name))
    await admin.refuses(pb.GetDeviceRequest(name=made.name), Code.NOT_FOUND)
    reborn = await admin(request)
    assert reborn.uid != made.uid


@pytest.mark.parametrize("start", ["embedded"], indirect=True)  # refused before any store is asked
@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (create("-a"), "device_id"),
        (create("a" * 64), "device_id"),
        (create("a", type="Pump"), "device.type"),
        (create("a", parent="nobody"), "device.parent"),
        (create("a", parent="a"), "device.parent"),
        (create("a", location=LatLng(latitude=91)), "device.location.latitude"),
        (pb.CreateDeviceRequest(parent="acme", device_id="a"), "parent"),
        (
            pb.CreateDeviceRequest(
                parent=ACME, device_id="a", device=Device(parent="tenants/other/devices/b")
            ),
            "device.parent",
        ),
        (pb.ListDevicesRequest(parent=ACME, filter="type = "), "filter"),
        (pb.ListDevicesRequest(parent=ACME, filter="(" * 10_000), "filter"),
        (pb.ListDevicesRequest(parent=ACME, page_size=-5), "page_size"),
        (pb.GetDeviceRequest(name=ACME), "name"),
        (pb.UpdateDeviceRequest(device=Device(), update_mask=FieldMask(paths=["type"])), "device.name"),
        (
            pb.BatchCreateDevicesRequest(parent=ACME, requests=[create("a"), create("b", type="B")]),
            "requests[1].device.type",
        ),
        (
            pb.BatchCreateDevicesRequest(parent=ACME, requests=[create("a"), create("a")]),
            "requests[1].device_id",
        ),
        (
            pb.BatchCreateDevicesRequest(parent=ACME, requests=[create(f"d{i}") for i in range(1001)]),
            "requests",
        ),
        (
            pb.BatchCreateDevicesRequest(
                parent=ACME, requests=[pb.CreateDeviceRequest(parent="tenants/other", device_id="a")]
            ),
            "requests[0].parent",
        ),
        (
            pb.BatchCreateDevicesRequest(
                parent=ACME, requests=[pb.CreateDeviceRequest(device_id="a", validate_only=True)]
            ),
            "requests[0]",
        ),
    ],
)
async def test_bad_requests_name_their_field(admin, request_, field: str) -> None:
    await admin.refuses(request_, Code.INVALID_ARGUMENT, field=field)


async def test_a_batch_is_all_or_none_and_repeatable(admin) -> None:
    await admin(create("d5", type="old"))
    batch = pb.BatchCreateDevicesRequest(
        parent=ACME, requests=[create(f"d{i}", type="new") for i in range(10)], request_id=str(uuid.uuid4())
    )
    text = await admin.refuses(batch, Code.ALREADY_EXISTS)
    assert name("d5") in text
    assert (await admin(pb.ListDevicesRequest(parent=ACME, count_total=True))).total_size == 1
    batch.allow_existing = True
    batch.request_id = str(uuid.uuid4())
    made = await admin(batch)
    assert [device.name for device in made.devices] == [name(f"d{i}") for i in range(10)]
    assert [device.type for device in made.devices] == ["new"] * 5 + ["old"] + ["new"] * 4
    assert await admin(batch) == made
    assert (await admin(pb.BatchCreateDevicesRequest(parent=ACME))).devices == []


async def test_callers_that_repeat_at_once_get_one_device(admin) -> None:
    request = create("d")
    request.request_id = str(uuid.uuid4())
    made = await asyncio.gather(*(admin(request) for _ in range(10)))
    assert len({device.uid for device in made}) == 1


async def test_a_quota_of_devices_holds(admin) -> None:
    update = pb.UpdateTenantRequest(tenant=Tenant(name=ACME, quotas=TenantQuotas(devices=3)))
    await admin(update)
    batch = pb.BatchCreateDevicesRequest(parent=ACME, requests=[create("a"), create("b")])
    await admin(batch)
    over = pb.BatchCreateDevicesRequest(parent=ACME, requests=[create("c"), create("d")])
    text = await admin.refuses(over, Code.RESOURCE_EXHAUSTED, "QUOTA_DEVICES")
    assert "3 devices" in text
    await admin(create("c"))
    dry = create("d")
    dry.validate_only = True
    await admin.refuses(dry, Code.RESOURCE_EXHAUSTED, "QUOTA_DEVICES")


async def test_lists_are_filtered_counted_and_paged(admin) -> None:
    requests = [
        create(f"d{i:03}", type="pump" if i % 2 else "valve", labels={"n": str(i % 3)}) for i in range(30)
    ]
    await admin(pb.BatchCreateDevicesRequest(parent=ACME, requests=requests))
    asked = pb.ListDevicesRequest(
        parent=ACME, filter="type = pump AND labels.n = 1", page_size=2, count_total=True
    )
    seen = []
    while True:
        page = await admin(asked)
        assert page.total_size == 5
        seen += [device.name for device in page.devices]
        if not page.next_page_token:
            break
        asked.page_token = page.next_page_token
    assert seen == [name(f"d{i:03}") for i in range(30) if i % 2 and i % 3 == 1]
    asked.filter = "type = valve"
    await admin.refuses(asked, Code.INVALID_ARGUMENT, field="page_token")


async def test_a_page_stays_below_the_message_limit(admin) -> None:
    labels = {f"k{i}": "x" * 128 for i in range(64)}
    for batch in range(3):
        requests = [create(f"d{batch}-{i:03}", labels=labels) for i in range(300)]
        await admin(pb.BatchCreateDevicesRequest(parent=ACME, requests=requests))
    page = await admin(pb.ListDevicesRequest(parent=ACME, page_size=10_000))
    assert page.ByteSize() < 4 << 20
    assert 100 < len(page.devices) < 900
    rest = await admin(pb.ListDevicesRequest(parent=ACME, page_size=10_000, page_token=page.next_page_token))
    assert page.devices[-1].name < rest.devices[0].name
    too_large = [create(f"e{i}", labels=labels) for i in range(420)]
    text = await admin.refuses(
        pb.BatchCreateDevicesRequest(parent=ACME, requests=too_large),
        Code.INVALID_ARGUMENT,
        field="requests",
    )
    assert "split" in text


async def test_a_tree_is_moved_published_and_protected(platform, admin) -> None:
    tree = [create("leaf", "gw"), create("gw", "site"), create("site"), create("other")]
    made = await admin(pb.BatchCreateDevicesRequest(parent=ACME, requests=tree))
    leaf, gateway, site, other = made.devices
    tenant = await admin(pb.GetTenantRequest(name=ACME))

    async def ancestors(device: Device) -> tuple[list[str], int]:
        change = (await platform.topic())[f"{tenant.uid}/device/{device.uid}"]
        return [uid.hex() for uid in change.device.ancestor_uids], change.revision

    assert await ancestors(leaf) == ([gateway.uid, site.uid], 1)
    await admin.refuses(
        pb.DeleteDeviceRequest(name=site.name), Code.FAILED_PRECONDITION, "DEVICE_HAS_CHILDREN"
    )
    for parent in (leaf.name, gateway.name):
        loop = pb.UpdateDeviceRequest(device=Device(name=gateway.name, parent=parent))
        await admin.refuses(loop, Code.INVALID_ARGUMENT, field="device.parent")

    await admin(pb.UpdateDeviceRequest(device=Device(name=gateway.name, parent=other.name)))
    assert await ancestors(leaf) == ([gateway.uid, other.uid], 2)
    below = await admin(pb.ListDevicesRequest(parent=ACME, filter='ancestor("other")'))
    assert [device.name for device in below.devices] == [gateway.name, leaf.name]
    mask = FieldMask(paths=["parent"])
    await admin(pb.UpdateDeviceRequest(device=Device(name=gateway.name), update_mask=mask))
    assert await ancestors(gateway) == ([], 3)
    assert await ancestors(leaf) == ([gateway.uid], 3)
    await admin(pb.DeleteDeviceRequest(name=site.name))
    await admin(pb.DeleteDeviceRequest(name=leaf.name))
    await admin(pb.DeleteDeviceRequest(name=gateway.name))


async def test_roles_and_tenants_are_kept_apart(platform, admin) -> None:
    await admin(pb.CreateTenantRequest(tenant_id="other"))
    await admin(create("d"))
    reader, operator = await platform.member("acme", "reader"), await platform.member("acme", "operator")
    stranger = await platform.member("other", "tenant-admin")
    assert (await reader(pb.GetDeviceRequest(name=name("d")))).name == name("d")
    await reader.refuses(create("e"), Code.PERMISSION_DENIED, "ROLE")
    await operator(create("e"))
    await operator.refuses(pb.CreateCredentialRequest(parent=name("e")), Code.PERMISSION_DENIED, "ROLE")
    requests = [
        pb.GetDeviceRequest(name=name("d")),
        pb.GetDeviceRequest(name=name("nobody")),
        pb.ListDevicesRequest(parent=ACME),
        pb.ListDevicesRequest(parent="tenants/nobody"),
        pb.DeleteDeviceRequest(name=name("d")),
        create("f"),
        pb.ListCredentialsRequest(parent=name("d")),
        pb.GetTenantUsageRequest(name=ACME),
        pb.CreateTokenRequest(tenant=ACME, subject="x", roles=["reader"]),
    ]
    texts = {await stranger.refuses(request, Code.PERMISSION_DENIED, "OTHER_TENANT") for request in requests}
    assert len(texts) == 1
    await stranger.refuses(pb.ResolveDevicesRequest(), Code.PERMISSION_DENIED, "ROLE")


async def test_services_resolve_devices_by_the_tenants_uid(platform, admin) -> None:
    tenant = await admin(pb.GetTenantRequest(name=ACME))
    tree = pb.BatchCreateDevicesRequest(parent=ACME, requests=[create("gw"), create("d", "gw")])
    gateway, device = (await admin(tree)).devices
    peer = platform.peer
    asked = pb.ResolveDevicesRequest(tenant_uid=tenant.uid, device_ids=["d", "nobody"])
    (found,) = (await peer(asked)).devices
    assert (found.device, found.revision, list(found.ancestor_uids)) == (device, 1, [gateway.uid])
    unknown = pb.ResolveDevicesRequest(tenant_uid=bytes(16).hex(), device_ids=["d"])
    assert not (await peer(unknown)).devices
    await peer.refuses(pb.ResolveDevicesRequest(tenant_uid="acme"), Code.INVALID_ARGUMENT, field="tenant_uid")
    many = pb.ResolveDevicesRequest(tenant_uid=tenant.uid, device_ids=["d"] * 10_001)
    await peer.refuses(many, Code.INVALID_ARGUMENT, field="device_ids")


async def test_many_callers_at_once_leave_what_they_were_told(platform, admin) -> None:
    """Renames and blocks of the same few devices: nobody is refused, and the topic has what was answered last."""
    tenant = await admin(pb.GetTenantRequest(name=ACME))
    await admin(pb.BatchCreateDevicesRequest(parent=ACME, requests=[create(f"d{i}") for i in range(3)]))
    requests = []
    for i in range(60):
        target = name(f"d{i % 3}")
        requests.append(pb.UpdateDeviceRequest(device=Device(name=target, display_name=str(i))))
        requests.append(pb.BlockDeviceRequest(name=target))
    answers = await asyncio.gather(*(admin(request) for request in requests))
    for i in range(3):
        now = await admin(pb.GetDeviceRequest(name=name(f"d{i}")))
        change = (await platform.topic())[f"{tenant.uid}/device/{now.uid}"]
        assert change.device.device == now
        etags = {answer.etag for answer in answers if answer.name == now.name}
        assert now.etag in etags
