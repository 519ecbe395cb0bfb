"""Credentials, tokens and endpoints over gRPC; tokens that must not pass."""

import time
import uuid

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tidewire.registry.v1 import registry_pb2 as pb
from tidewire.registry.v1.resources_pb2 import Credential, Device
from tidewire.storage.v1 import storage_pb2, storage_pb2_grpc
from tidewire_kit.clock import SystemClock
from tidewire_kit.datadir import DataDir
from tidewire_kit.endpoints import Endpoint, add_endpoint
from tidewire_kit.identity import Role
from tidewire_kit.ids import TenantId
from tidewire_kit.log.embedded import EmbeddedLog
from tidewire_kit.log.port import MemberProfile
from tidewire_registry.bootstrap import read_signer
from tidewire_testkit.polling import until
from tidewire_testkit.tokens import (
    device_token,
    mac_over_public_key,
    new_device_key,
    new_signer,
    public_pem,
    signed,
    unsigned,
    user_token,
)

Code = grpc.StatusCode
ACME = "tenants/acme"
DEVICE = "tenants/acme/devices/d"


@pytest.fixture
async def admin(platform):
    client = platform.admin
    await client(pb.CreateTenantRequest(tenant_id="acme"))
    await client(pb.CreateDeviceRequest(parent=ACME, device_id="d"))
    return client


def register(key, **fields) -> pb.CreateCredentialRequest:
    return pb.CreateCredentialRequest(
        parent=DEVICE, credential=Credential(public_key_pem=public_pem(key), **fields)
    )


@pytest.mark.parametrize(("algorithm", "kind"), [("EdDSA", Credential.ED25519), ("ES256", Credential.ES256)])
async def test_a_device_with_a_credential_is_active_and_known(
    platform, admin, algorithm: str, kind: int
) -> None:
    key = new_device_key(algorithm)
    made = await admin(register(key))
    assert made.algorithm == kind
    assert made.public_key_pem == public_pem(key)
    assert (await admin(pb.GetDeviceRequest(name=DEVICE))).state == Device.ACTIVE
    credential_id = made.name.rpartition("/")[2]
    device = platform.client(device_token(key, bytes.fromhex(credential_id), "d", SystemClock()))
    assert (await device(pb.GetEndpointsRequest())).endpoints
    await device.refuses(pb.GetDeviceRequest(name=DEVICE), Code.PERMISSION_DENIED, "ROLE")
    usage = await admin(pb.GetTenantUsageRequest(name=ACME))
    assert (usage.devices, usage.credentials) == (1, 1)

    await admin(pb.BlockDeviceRequest(name=DEVICE))
    await device.refuses(pb.GetEndpointsRequest(), Code.UNAUTHENTICATED, "DEVICE_BLOCKED")
    assert (await admin(pb.UnblockDeviceRequest(name=DEVICE))).state == Device.ACTIVE
    assert (await device(pb.GetEndpointsRequest())).endpoints
    await admin(pb.DeleteCredentialRequest(name=made.name))
    await device.refuses(pb.GetEndpointsRequest(), Code.UNAUTHENTICATED)
    await admin.refuses(pb.DeleteCredentialRequest(name=made.name), Code.NOT_FOUND)


async def test_several_credentials_are_listed_and_go_with_their_device(platform, admin) -> None:
    names = sorted([(await admin(register(new_device_key()))).name for _ in range(5)])
    listed, token = [], ""
    while True:
        page = await admin(pb.ListCredentialsRequest(parent=DEVICE, page_size=2, page_token=token))
        listed += [credential.name for credential in page.credentials]
        token = page.next_page_token
        if not token:
            break
    assert listed == names
    for _ in range(11):
        await admin(register(new_device_key()))
    await admin.refuses(register(new_device_key()), Code.FAILED_PRECONDITION, "TOO_MANY_CREDENTIALS")
    await admin(pb.DeleteDeviceRequest(name=DEVICE))
    graves = [change for key, change in (await platform.topic()).items() if "/credential/" in key]
    assert len(graves) == 16
    assert all(change.deleted and change.revision == 2 for change in graves)
    await admin.refuses(pb.ListCredentialsRequest(parent=DEVICE), Code.NOT_FOUND)


async def test_a_credentials_expiry_and_request_id(admin) -> None:
    past = Timestamp(seconds=int(time.time()) - 1)
    field = "credential.expire_time"
    await admin.refuses(register(new_device_key(), expire_time=past), Code.INVALID_ARGUMENT, field=field)
    wild = Timestamp(seconds=2**60)
    await admin.refuses(register(new_device_key(), expire_time=wild), Code.INVALID_ARGUMENT, field=field)
    future = Timestamp(seconds=int(time.time()) + 3600)
    request = register(new_device_key(), expire_time=future)
    request.request_id = str(uuid.uuid4())
    made = await admin(request)
    assert made.expire_time == future
    assert await admin(request) == made
    assert len((await admin(pb.ListCredentialsRequest(parent=DEVICE))).credentials) == 1


async def test_a_private_key_is_refused_and_not_echoed(admin) -> None:
    key = new_device_key()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    request = pb.CreateCredentialRequest(parent=DEVICE, credential=Credential(public_key_pem=pem))
    text = await admin.refuses(
        request, Code.INVALID_ARGUMENT, "PRIVATE_KEY_REFUSED", "credential.public_key_pem"
    )
    assert pem.splitlines()[1] not in text


# Tokens


async def test_a_tenant_administrator_makes_tokens_of_the_own_tenant_and_lesser_roles(
    platform, admin
) -> None:
    tenant_admin = await platform.member("acme", "tenant-admin")
    for role in ("reader", "operator", "tenant-admin"):
        request = pb.CreateTokenRequest(tenant=ACME, subject="x", roles=[role], ttl=Duration(seconds=60))
        made = await tenant_admin(request)
        assert abs(made.expire_time.seconds - time.time() - 60) < 30
        client = platform.client(made.token)
        assert (await client(pb.GetTenantRequest(name=ACME))).name == ACME
    for role in ("platform-admin", "service"):
        request = pb.CreateTokenRequest(tenant=ACME, subject="x", roles=["reader", role])
        await tenant_admin.refuses(request, Code.PERMISSION_DENIED, "ROLE_NOT_YOURS")
    plain = pb.CreateTokenRequest(subject="x", roles=["reader"])
    await tenant_admin.refuses(plain, Code.INVALID_ARGUMENT, field="tenant")


async def test_a_platform_administrator_makes_any_token(platform, admin) -> None:
    for role in ("platform-admin", "service"):
        made = await admin(pb.CreateTokenRequest(subject="x", roles=[role]))
        assert abs(made.expire_time.seconds - time.time() - 86_400) < 60
        assert (await platform.client(made.token)(pb.GetEndpointsRequest())).endpoints


@pytest.mark.parametrize("start", ["embedded"], indirect=True)  # refused before any store is asked
@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.CreateTokenRequest(tenant=ACME, subject="x"), "roles"),
        (pb.CreateTokenRequest(tenant=ACME, subject="x", roles=["device"]), "roles"),
        (pb.CreateTokenRequest(tenant=ACME, subject="x", roles=["root"]), "roles"),
        (pb.CreateTokenRequest(tenant=ACME, subject="x", roles=["platform-admin"]), "roles"),
        (pb.CreateTokenRequest(subject="x", roles=["reader"]), "tenant"),
        (pb.CreateTokenRequest(tenant=ACME, roles=["reader"]), "subject"),
        (pb.CreateTokenRequest(tenant=ACME, subject="x" * 129, roles=["reader"]), "subject"),
        (pb.CreateTokenRequest(tenant=ACME, subject="x", roles=["reader"], ttl=Duration(seconds=59)), "ttl"),
        (
            pb.CreateTokenRequest(
                tenant=ACME, subject="x", roles=["reader"], ttl=Duration(seconds=366 * 86400)
            ),
            "ttl",
        ),
    ],
)
async def test_bad_tokens_are_not_made(admin, request_, field: str) -> None:
    await admin.refuses(request_, Code.INVALID_ARGUMENT, field=field)


async def test_bad_tokens_are_refused(platform, admin) -> None:
    clock = SystemClock()
    signer = read_signer(DataDir(platform.root).signing_key_file, clock)
    tenant = TenantId(bytes.fromhex((await admin(pb.GetTenantRequest(name=ACME))).uid))
    now = int(time.time())
    claims = {
        "iss": "tidewire",
        "aud": "tidewire",
        "sub": "x",
        "roles": ["platform-admin"],
        "iat": now,
        "exp": now + 600,
    }
    stranger_key = ec.generate_private_key(ec.SECP256R1())
    tokens = {
        "": "TOKEN_MISSING",
        "rubbish": "TOKEN_MALFORMED",
        unsigned(signer.key_id, claims): "TOKEN_ALGORITHM",
        mac_over_public_key(signer.public_key_pem, signer.key_id, claims): "TOKEN_ALGORITHM",
        signed(stranger_key, signer.key_id, claims): "TOKEN_BAD_SIGNATURE",
        user_token(new_signer(clock), None, Role.PLATFORM_ADMIN): "TOKEN_UNKNOWN_KEY",
        user_token(signer, None, Role.PLATFORM_ADMIN, ttl_seconds=-5): "TOKEN_EXPIRED",
        user_token(signer, TenantId(bytes(16)), Role.READER): "TENANT_UNKNOWN",
    }
    for token, reason in tokens.items():
        await platform.client(token).refuses(pb.ListTenantsRequest(), Code.UNAUTHENTICATED, reason)
    good = platform.client(user_token(signer, tenant, Role.READER))
    assert (await good(pb.GetTenantRequest(name=ACME))).name == ACME


# Endpoints and usage


async def test_endpoints_name_the_services_that_run(platform, admin) -> None:
    add_endpoint(DataDir(platform.root), "ingestion", Endpoint("127.0.0.1:1234", "", 1))
    answer = await admin(pb.GetEndpointsRequest())
    assert {endpoint.service: list(endpoint.addresses) for endpoint in answer.endpoints} == {
        "registry": [platform.service.address],
        "ingestion": ["127.0.0.1:1234"],
    }
    reader = await platform.member("acme", "reader")
    assert await reader(pb.GetEndpointsRequest(tenant=ACME)) == answer
    await reader.refuses(pb.GetEndpointsRequest(tenant="tenants/other"), Code.PERMISSION_DENIED)
    await admin.refuses(pb.GetEndpointsRequest(tenant="tenants/other"), Code.NOT_FOUND)


async def test_usage_asks_storage_with_the_service_token(platform, admin) -> None:
    uid = (await admin(pb.GetTenantRequest(name=ACME))).uid
    tokens: list[str] = []

    class Storage(storage_pb2_grpc.StorageServiceServicer):
        async def GetStorageUsage(self, request, context):
            tokens.append(dict(context.invocation_metadata())["authorization"])
            assert request.tenant == ACME
            usage = storage_pb2.StorageUsage(
                tenant_uid=uid, accepted_readings=9, stored_readings=8, stored_bytes=7
            )
            return storage_pb2.GetStorageUsageResponse(usages=[usage])

    server = grpc.aio.server()
    storage_pb2_grpc.add_StorageServiceServicer_to_server(Storage(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    neighbour = EmbeddedLog(platform.root)
    await neighbour.start()
    try:
        # Where the registry looks: in the data directory, or among the members of the log.
        add_endpoint(DataDir(platform.root), "storage", Endpoint(f"127.0.0.1:{port}", "", 1))
        await neighbour.announce(MemberProfile("storage", {"grpc": f"127.0.0.1:{port}"}))

        async def measured() -> pb.TenantUsage | None:
            usage = await admin(pb.GetTenantUsageRequest(name=ACME))
            return usage if usage.HasField("measure_time") else None

        usage = await until(measured)
        assert usage is not None
        assert (usage.accepted_readings, usage.stored_readings, usage.stored_bytes) == (9, 8, 7)
        service_token = DataDir(platform.root).service_token_file.read_text().strip()
        assert tokens[0] == f"Bearer {service_token}"
    finally:
        await server.stop(0)
        await neighbour.close()
    assert not (await admin(pb.GetTenantUsageRequest(name=ACME))).HasField("measure_time")
