"""Update masks, pages, request ids, public keys: what the edge makes of requests."""

import uuid

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.type.latlng_pb2 import LatLng

from tidewire.registry.v1 import registry_pb2, resources_pb2
from tidewire_kit.errors import InvalidArgument
from tidewire_registry.application.devices import CLEAR, DeviceChanges
from tidewire_registry.application.public_keys import read_public_key
from tidewire_registry.application.tenants import TenantChanges
from tidewire_registry.conversions.masks import device_changes, tenant_changes
from tidewire_registry.conversions.paging import page_size, page_start, page_token
from tidewire_registry.conversions.requests import request_key
from tidewire_registry.domain.credentials import Algorithm
from tidewire_registry.domain.devices import Location

DEVICE = resources_pb2.Device(
    name="tenants/acme/devices/d",
    type="pump",
    labels={"a": "1"},
    parent="tenants/acme/devices/gw",
    location=LatLng(latitude=1, longitude=2),
    etag="x",
)


def test_without_a_mask_the_populated_fields_change() -> None:
    expected = DeviceChanges(type="pump", labels={"a": "1"}, parent_id="gw", location=Location(1, 2))
    assert device_changes(DEVICE, None, "acme") == expected
    assert device_changes(resources_pb2.Device(), None, "acme") == DeviceChanges()


def test_a_mask_empties_what_is_not_populated() -> None:
    mask = FieldMask(paths=["display_name", "parent", "location", "labels", "state", "etag", "name"])
    changes = device_changes(resources_pb2.Device(type="pump"), mask, "acme")
    assert changes == DeviceChanges(display_name="", labels={}, parent_id="", location=CLEAR)
    every = device_changes(resources_pb2.Device(), FieldMask(paths=["*"]), "acme")
    assert every == DeviceChanges("", "", {}, "", CLEAR)


@pytest.mark.parametrize("paths", [["colour"], ["labels.a.b"], ["*", "type"]])
def test_unknown_paths_are_refused(paths: list[str]) -> None:
    with pytest.raises(InvalidArgument, match="update_mask"):
        device_changes(DEVICE, FieldMask(paths=paths), "acme")


def test_a_parent_in_another_tenant_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="another tenant"):
        device_changes(DEVICE, None, "other")


def test_quotas_and_retention_change_one_by_one() -> None:
    tenant = resources_pb2.Tenant(
        quotas=resources_pb2.TenantQuotas(devices=5),
        retention=resources_pb2.TenantRetention(raw_duration=Duration(seconds=7200)),
    )
    assert tenant_changes(tenant, None) == TenantChanges(
        quotas={"devices": 5}, retention={"raw_us": 7_200_000_000}
    )
    mask = FieldMask(paths=["quotas.readings_per_second", "retention.raw_duration"])
    assert tenant_changes(resources_pb2.Tenant(), mask) == TenantChanges(
        quotas={"readings_per_second": 0}, retention={"raw_us": None}
    )
    whole = tenant_changes(tenant, FieldMask(paths=["quotas"]))
    assert whole.quotas["devices"] == 5
    assert len(whole.quotas) == 7


def test_page_sizes() -> None:
    assert [page_size(n, 1000) for n in (0, 7, 1000, 5000)] == [100, 7, 1000, 1000]
    with pytest.raises(InvalidArgument, match="page_size"):
        page_size(-1, 1000)


def test_a_page_token_belongs_to_its_list() -> None:
    token = page_token("dévice-é", "devices", "uid", "type=a")
    assert page_start(token, "devices", "uid", "type=a") == "dévice-é"
    assert page_start("", "devices") == ""
    for arguments in (("devices", "uid", "type=b"), ("devices", "other", "type=a"), ("tenants",)):
        with pytest.raises(InvalidArgument, match="page_token"):
            page_start(token, *arguments)


@pytest.mark.parametrize("token", ["!", "AAAA", "é", "A" * 10_000, page_token("", "x")])
def test_other_page_tokens_are_refused(token: str) -> None:
    with pytest.raises(InvalidArgument, match="page_token"):
        page_start(token, "x")


def test_request_keys_tell_requests_apart() -> None:
    id_ = str(uuid.uuid4())
    one = request_key(registry_pb2.CreateDeviceRequest(device_id="a"), id_)
    assert one == request_key(registry_pb2.CreateDeviceRequest(device_id="a"), id_.upper())
    assert one != request_key(registry_pb2.CreateDeviceRequest(device_id="b"), id_)
    assert request_key(registry_pb2.CreateDeviceRequest(), "") is None
    for bad in ("1", "not-a-uuid", id_ + "0", "{" + id_ + "}"):
        with pytest.raises(InvalidArgument, match="request_id"):
            request_key(registry_pb2.CreateDeviceRequest(), bad)


def public(key: "ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey") -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def test_public_keys_are_read() -> None:
    edwards, nist = ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())
    assert read_public_key(f"\n{public(edwards)}\n") == (public(edwards), Algorithm.ED25519)
    assert read_public_key(public(nist)) == (public(nist), Algorithm.ES256)


def test_a_private_key_is_refused_without_an_echo() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    for text in (pem, public(key) + pem):
        with pytest.raises(InvalidArgument) as caught:
            read_public_key(text)
        assert caught.value.reason == "PRIVATE_KEY_REFUSED"
        assert "PRIVATE key" in caught.value.why
        assert pem.splitlines()[1] not in str(vars(caught.value))


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "rubbish",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        public(ec.generate_private_key(ec.SECP384R1())),
        ed448.Ed448PrivateKey.generate()
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        .decode(),
        rsa.generate_private_key(65537, 2048)
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        .decode(),
        public(ed25519.Ed25519PrivateKey.generate()) * 2,
        "x" * 100_000,
    ],
)
def test_other_keys_are_refused(pem: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read_public_key(pem)
    assert caught.value.field == "credential.public_key_pem"
    assert "openssl" in caught.value.why
    assert len(caught.value.message) < 400
