"""Names, uids, resource names and partitions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewire_kit import ids
from tidewire_kit.errors import InvalidArgument


@pytest.mark.parametrize("name", ["a", "acme", "a-b", "a" * 40, "a1-2"])
def test_tenant_names_that_are_valid(name: str) -> None:
    assert ids.check_tenant_name(name) == name


@pytest.mark.parametrize("name", ["", "A", "1a", "a-", "-a", "a" * 41, "a_b", "a\n", "ä", "a b"])
def test_tenant_names_that_are_not(name: str) -> None:
    with pytest.raises(InvalidArgument, match="tenant_id"):
        ids.check_tenant_name(name)


@pytest.mark.parametrize("name", ["A4:CF:12:00:00:01", "x", "0", "pump.1_a-B", "a" * 63])
def test_device_names_that_are_valid(name: str) -> None:
    assert ids.check_device_name(name) == name


@pytest.mark.parametrize("name", ["", ".a", "a/b", "a b", "a" * 64, "a\n", "-x", "é"])
def test_device_names_that_are_not(name: str) -> None:
    with pytest.raises(InvalidArgument, match="device_id"):
        ids.check_device_name(name)


@pytest.mark.parametrize("name", ["", "Temperature", "1a", "a-b", "a" * 64, "a\n"])
def test_metrics_that_are_not(name: str) -> None:
    with pytest.raises(InvalidArgument, match="metric"):
        ids.check_metric(name)


def test_labels() -> None:
    ids.check_label("site.room", "x" * 128)
    with pytest.raises(InvalidArgument):
        ids.check_label("Site", "x")
    with pytest.raises(InvalidArgument, match=r"labels\.site"):
        ids.check_label("site", "x" * 129)


def test_resource_names_there_and_back() -> None:
    uid = ids.new_uid()
    assert ids.parse_tenant_name(ids.tenant_name("acme")) == "acme"
    assert ids.parse_device_name(ids.device_name("acme", "p:1")) == ("acme", "p:1")
    name = ids.credential_name("acme", "p:1", uid.hex())
    assert ids.parse_credential_name(name) == ("acme", "p:1", uid)


@pytest.mark.parametrize(
    "name", ["", "tenants", "tenants/", "tenant/a", "tenants/a/devices", "tenants/a/devices/b/c"]
)
def test_other_names_are_refused_by_field(name: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        ids.parse_device_name(name, field="device.name")
    assert caught.value.field == "device.name"


def test_an_error_shows_a_long_name_shortened() -> None:
    with pytest.raises(InvalidArgument) as caught:
        ids.check_device_name("x" * 10_000)
    assert len(caught.value.message) < 300


@given(st.binary(min_size=16, max_size=16))
def test_uids_there_and_back(uid: bytes) -> None:
    assert ids.parse_uid(ids.uid_hex(uid)) == uid


@pytest.mark.parametrize("text", ["", "00", "G" * 32, "A" * 32, "0" * 33])
def test_other_uids_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        ids.parse_uid(text)


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16), st.integers(1, 1024))
def test_a_partition_is_in_range_and_stays(tenant: bytes, device: bytes, partitions: int) -> None:
    first = ids.partition_of(tenant, device, partitions)
    assert 0 <= first < partitions
    assert ids.partition_of(bytes(tenant), bytes(device), partitions) == first


def test_partitions_are_those_of_the_stored_data() -> None:
    """Golden values: if they change, records already written are looked for in the wrong partition."""
    tenant, other = bytes(range(16)), bytes(range(16, 32))
    assert [ids.partition_of(tenant, other, n) for n in (16, 48, 1024)] == GOLDEN
    assert ids.partition_of(other, tenant, 1024) != GOLDEN[2]


GOLDEN = [5, 37, 5]
