import time
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

import grpc
import jwt
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from google.rpc import code_pb2

import tidewire_client
from tidewire_client import (
    AdminClient,
    AsyncAdminClient,
    AsyncConnection,
    AsyncDevicePublisher,
    AsyncQueryClient,
    Connection,
    DeviceKey,
    FileToken,
    InvalidArgument,
    NotFound,
    QueryClient,
    TelemetryPublisher,
    Unavailable,
    generate_private_key,
    load_private_key,
    public_key_pem,
    save_private_key,
)
from tidewire_client.connect import is_loopback, split_endpoint, target_of
from tidewire_client.errors import ResourceExhausted
from tidewire_client.status import from_status
from tidewire_client.times import to_duration, to_timestamp, to_unix_us
from tidewire_client.unreachable import unreachable


def test_every_exported_name_is_there():
    assert sorted(tidewire_client.__all__) == tidewire_client.__all__
    assert all(hasattr(tidewire_client, name) for name in tidewire_client.__all__)


def test_an_error_carries_what_the_details_say(rich_status):
    status = rich_status(
        code_pb2.RESOURCE_EXHAUSTED,
        "QUOTA_TENANT",
        "too many readings",
        retry_seconds=1.5,
        field_name="frames",
    )
    error = from_status(status)
    assert isinstance(error, ResourceExhausted)
    assert (error.reason, error.field, error.retry_delay_seconds) == ("QUOTA_TENANT", "frames", 1.5)
    assert error.metadata["limit"] == "7"
    assert error.from_platform


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("127.0.0.1:7001", ("127.0.0.1:7001", None)),
        ("grpcs://tidewire.example:443", ("tidewire.example:443", True)),
        ("grpc://registry:7001", ("registry:7001", False)),
        ("[::1]:7001", ("[::1]:7001", None)),
    ],
)
def test_endpoints(endpoint, expected):
    assert split_endpoint(endpoint) == expected


@pytest.mark.parametrize("endpoint", ["", "host", "host:", ":1", "ftp://a:1", "http://a:1/x", "a:b"])
def test_what_is_no_endpoint_is_refused(endpoint):
    with pytest.raises(InvalidArgument, match="write host:port"):
        split_endpoint(endpoint)


def test_targets_are_balanced_where_grpc_can():
    assert target_of(("10.0.0.1:1", "10.0.0.2:1")) == "ipv4:10.0.0.1:1,10.0.0.2:1"
    assert target_of(("[::1]:1",)) == "ipv6:[::1]:1"
    assert [target_of(("a:1", "b:1"), turn) for turn in (0, 1, 2)] == [
        "dns:///a:1",
        "dns:///b:1",
        "dns:///a:1",
    ]
    assert [target_of(("10.0.0.1:1", "10.0.0.2:1"), turn, tls=True) for turn in (0, 1)] == [
        "ipv4:10.0.0.1:1",
        "ipv4:10.0.0.2:1",
    ]


def test_tls_is_used_unless_the_host_is_this_machine():
    assert is_loopback("127.0.0.1:7001")
    assert is_loopback("localhost:7001")
    assert is_loopback("[::1]:7001")
    assert not is_loopback("tidewire.example:7001")
    local = AsyncConnection("127.0.0.1:7001")
    assert not local.uses_tls(loopback=True)
    assert local.uses_tls(
        loopback=False
    )  # a token never crosses a network in the clear unless that is asked for
    assert not AsyncConnection("grpc://tidewire.example:7001").uses_tls(loopback=False)
    assert AsyncConnection("grpcs://127.0.0.1:7001").uses_tls(loopback=True)
    assert AsyncConnection("127.0.0.1:7001", ca_file="ca.pem").uses_tls(loopback=True)


@pytest.fixture
def certificate(tmp_path):
    """(key, certificate) of `localhost`, PEM, and the file of the latter."""
    key = generate_private_key("es256")
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "ca.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    save_private_key(key, tmp_path / "tls.key")
    return (tmp_path / "tls.key").read_bytes(), path.read_bytes(), path


async def test_tls_with_a_ca_file(platform, certificate):
    key, chain, path = certificate
    platform.registry_server.tls = grpc.ssl_server_credentials([(key, chain)])
    await platform.registry_server.stop()
    port = (await platform.registry_server.start()).rpartition(":")[2]
    platform.registry.devices = ["d"]
    async with AsyncConnection(f"127.0.0.1:{port}", token="t", ca_file=path, tenant="demo") as connection:
        assert [device.name async for device in AsyncAdminClient(connection).list_devices()] == [
            "tenants/demo/devices/d"
        ]
    for endpoint, told in (
        (f"grpcs://127.0.0.1:{port}", "TLS handshake failed, as no known authority .* TIDEWIRE_CA_FILE"),
        (f"grpc://127.0.0.1:{port}", rf"ended the connection at once\. .* grpcs://127\.0\.0\.1:{port}"),
    ):
        async with AsyncConnection(endpoint, token="t", retry_seconds=0) as connection:
            with pytest.raises(Unavailable, match=told):
                await connection.tenant()
    async with AsyncConnection(f"127.0.0.1:{port}", token="t", ca_file="/none.pem") as connection:
        with pytest.raises(InvalidArgument, match=r"CA file /none.pem cannot be read"):
            await connection.tenant()


async def test_tls_with_a_server_that_has_none(platform, certificate):
    *_, path = certificate
    address = platform.endpoint
    for endpoint in (f"grpcs://{address}", address):
        async with AsyncConnection(endpoint, token="t", ca_file=path, retry_seconds=0) as connection:
            with pytest.raises(Unavailable, match="serves no TLS") as caught:
                await connection.tenant()
            assert f"grpc://{address}" in caught.value.remedy


@pytest.mark.parametrize(
    ("details", "told"),
    [
        (
            "last error: UNAVAILABLE: Failed parsing HTTP/2 (Trying to connect an http1.x server (HTTP status 405))",
            "does not speak gRPC",
        ),
        (
            "errors resolving none.example:7001: [field:hostname lookup error:address lookup failed]",
            "not known",
        ),
        (
            "last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote host: Connection refused",
            "refused",
        ),
        (
            "Custom verification check failed with error: UNAUTHENTICATED: Hostname Verification Check failed.",
            "name",
        ),
        ("CERTIFICATE_VERIFY_FAILED: certificate has expired: OK", "expired"),
        (
            "connections to all backends failing; last error: UNAVAILABLE: ipv4:127.0.0.1:1: Connection reset by peer",
            "grpcs://127.0.0.1:7001",
        ),
        ("recvmsg: Connection reset by peer", "cannot reach the registry: connection reset"),
        ("Socket closed", "cannot reach the registry: Socket closed"),
        ("", "no reason given"),
    ],
)
def test_what_grpc_says_of_connections_becomes_brief(details, told):
    assert told in str(unreachable("the registry", "127.0.0.1:7001", details))


def test_times_need_a_zone():
    assert to_unix_us(datetime(2026, 1, 1, tzinfo=UTC)) == 1_767_225_600_000_000
    assert to_unix_us(np.datetime64("1970-01-01T00:00:01.5")) == 1_500_000
    assert to_unix_us(np.int64(7)) == 7
    with pytest.raises(InvalidArgument, match=r"start .* has no time zone"):
        to_unix_us(datetime(2026, 1, 1), "start")  # noqa: DTZ001
    with pytest.raises(InvalidArgument, match="must be an aware datetime"):
        to_unix_us(True)
    stamp = to_timestamp(-1)
    assert (stamp.seconds, stamp.nanos) == (-1, 999_999_000)
    with pytest.raises(InvalidArgument, match="every"):
        to_duration(0, "every")
    assert to_duration(timedelta(milliseconds=1500)).nanos == 500_000_000


@pytest.mark.parametrize(("algorithm", "header"), [("ed25519", "EdDSA"), ("es256", "ES256")])
def test_a_device_signs_its_own_short_tokens_and_renews_them(tmp_path, monkeypatch, algorithm, header):
    key = generate_private_key(algorithm)
    path = tmp_path / "keys" / "device.pem"
    save_private_key(key, path)
    assert path.stat().st_mode & 0o777 == 0o600
    identity = DeviceKey("tenants/demo/devices/d-1", "tenants/demo/devices/d-1/credentials/ab12", path)
    token = identity.token()
    assert jwt.get_unverified_header(token) == {"alg": header, "kid": "ab12", "typ": "JWT"}
    claims = jwt.decode(token, public_key_pem(load_private_key(path)), [header], audience="tidewire")
    assert (claims["iss"], claims["sub"]) == ("d-1", "d-1")
    assert claims["exp"] - claims["iat"] <= 3600
    assert identity.token() is token
    later = time.time() + 3000
    monkeypatch.setattr("tidewire_client.tokens.time.time", lambda: later)
    assert identity.token() != token
    with pytest.raises(InvalidArgument, match="left as it is"):
        save_private_key(key, path)


def test_what_is_no_key_is_refused(tmp_path):
    path = tmp_path / "x.pem"
    path.write_text("nonsense")
    with pytest.raises(InvalidArgument, match="not a PEM private key"):
        load_private_key(path)
    with pytest.raises(InvalidArgument, match="cannot be read"):
        load_private_key(tmp_path / "none.pem")


def test_a_token_file_is_read_again_when_it_changes(tmp_path):
    path = tmp_path / "token"
    source = FileToken(path)
    with pytest.raises(InvalidArgument, match="cannot be read"):
        source.token()
    path.write_text("one\n")
    assert source.token() == "one"
    path.write_text("another\n")
    assert source.token() == "another"
    assert "another" not in repr(source)


async def test_lists_go_through_all_pages(platform):
    platform.registry.devices = [f"d{n}" for n in range(5)]
    async with AsyncConnection(platform.endpoint, token="t") as connection:
        found = [device.name async for device in AsyncAdminClient(connection).list_devices()]
    assert found == [f"tenants/demo/devices/d{n}" for n in range(5)]


async def test_a_creation_is_retried_with_the_same_request_id(platform, rich_status):
    platform.registry.failures.append(
        rich_status(code_pb2.UNAVAILABLE, "UNAVAILABLE", "not now", retry_seconds=0.01)
    )
    async with AsyncConnection(platform.endpoint, token="t", tenant="demo") as connection:
        device = await AsyncAdminClient(connection).create_device("d")
    assert device.name == "tenants/demo/devices/d"
    first, second = platform.registry.request_ids
    assert first == second


async def test_what_is_refused_is_not_retried(platform, rich_status):
    platform.registry.failures.append(rich_status(code_pb2.NOT_FOUND, "NOT_FOUND", "there is no tenant demo"))
    async with AsyncConnection(platform.endpoint, token="t", tenant="demo") as connection:
        with pytest.raises(NotFound, match="no tenant demo"):
            await AsyncAdminClient(connection).create_device("d")
    assert len(platform.registry.request_ids) == 1


async def test_many_devices_go_a_thousand_at_a_time(platform):
    names = [f"d{n}" for n in range(2500)]
    async with AsyncConnection(platform.endpoint, token="t", tenant="demo") as connection:
        made = await AsyncAdminClient(connection).batch_create_devices(names)
    assert [device.name.rpartition("/")[2] for device in made] == names
    assert len(platform.registry.request_ids) == 3


async def test_the_tenant_is_found_when_there_is_one(platform):
    async with AsyncConnection(platform.endpoint, token="t") as connection:
        assert await connection.tenant() == "demo"
    platform.registry.tenants = ["a", "b"]
    async with AsyncConnection(platform.endpoint, token="t") as connection:
        with pytest.raises(InvalidArgument, match=r"several tenants \(a, b\)"):
            await connection.tenant()


async def test_nobody_there_is_said_with_the_address():
    async with AsyncConnection("127.0.0.1:1", token="t", tenant="demo", retry_seconds=0) as connection:
        with pytest.raises(Unavailable, match=r"cannot reach registry at 127.0.0.1:1: connection refused"):
            await AsyncAdminClient(connection).get_device("d")


async def test_a_service_that_does_not_run_is_named(platform):
    async with AsyncConnection(platform.endpoint, token="t", tenant="demo", retry_seconds=0) as connection:
        with pytest.raises(Unavailable, match="no running storage"):
            await AsyncQueryClient(connection).latest()


async def test_series_come_as_columns_also_over_a_break(platform):
    storage = await platform.serve_storage()
    storage.break_once = True
    async with AsyncConnection(platform.endpoint, token="t", tenant="demo") as connection:
        table = await AsyncQueryClient(connection).read_series("d")
    assert table.time_unix_us.tolist() == list(range(10))
    assert table.metrics == ("a", "b")
    assert table["a"].tolist() == list(range(10))
    np.testing.assert_array_equal(table["b"], [np.nan] * 5 + [5, 6, 7, 8, 9])
    assert table.readings == 15
    with pytest.raises(KeyError):
        table["c"]


async def test_latest_and_aggregates(platform):
    await platform.serve_storage()
    async with AsyncConnection(platform.endpoint, token="t", tenant="demo") as connection:
        query = AsyncQueryClient(connection)
        assert [one.device for one in await query.latest()] == ["d0", "d1", "d2", "d3", "d4", "d5"]
        assert len(await query.latest(limit=2)) == 2
        (one,) = await query.aggregate("d", "a", ["min", "max"], every=timedelta(minutes=1))
        assert {name: values.tolist() for name, values in one.columns.items()} == {
            "min": [1, 2],
            "max": [1, 2],
        }
        with pytest.raises(InvalidArgument, match="no function 'median'"):
            await query.aggregate("d", "a", "median")


async def test_a_device_publishes_as_itself(platform):
    async with AsyncDevicePublisher(platform.endpoint, "d-1", "ab12", generate_private_key()) as publisher:
        await publisher.add(None, {"a": 1.0})
        await publisher.add_columns([1, 2], ["a"], [1.0, 2.0])
    assert publisher.totals.accepted == 3
    (seen,) = platform.ingestion.seen
    assert list(seen.batch.devices) == ["d-1"]
    assert jwt.get_unverified_header(seen.token)["kid"] == "ab12"


async def test_blocking_clients_do_the_same(platform):
    import asyncio

    await platform.serve_storage()

    def work():
        with Connection(platform.endpoint, token="t", tenant="demo") as connection:
            admin = AdminClient(connection)
            assert admin.create_device("d").name == "tenants/demo/devices/d"
            assert [device.name for device in admin.list_devices()] == ["tenants/demo/devices/d"]
            with TelemetryPublisher(connection, batch_readings=10) as publisher:
                for n in range(25):
                    publisher.add("d", n + 1, {"a": float(n)})
                publisher.add_columns("d", [100], ["a"], [1.0])
                assert publisher.flush().accepted == 26
            assert len(QueryClient(connection).read_series("d")) == 10
            with pytest.raises(InvalidArgument):
                publisher.add("", None, {"a": 1.0})

    await asyncio.to_thread(work)
