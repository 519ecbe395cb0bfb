"""What a process says at its start against a real node when a setting is wrong."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from tidewire_kit.cassandra import CassandraSettings, connect
from tidewire_kit.errors import FailedPrecondition, Unavailable
from tidewire_testkit.certificates import Authority

pytestmark = pytest.mark.servers


@pytest.fixture
def settings(cassandra_contact_points: str) -> CassandraSettings:
    return CassandraSettings(contact_points=cassandra_contact_points)


async def refused(settings: CassandraSettings, keyspace: str | None = None) -> FailedPrecondition:
    with pytest.raises(FailedPrecondition) as caught:
        await connect(settings, keyspace=keyspace)
    return caught.value


async def test_a_missing_keyspace(settings: CassandraSettings) -> None:
    error = await refused(settings, "tidewire_nobody_has_this")
    assert error.reason == "STORE_KEYSPACE_MISSING"
    assert "tidewire schema apply" in error.message
    assert "TIDEWIRE_CASSANDRA_KEYSPACE" in error.message


async def test_a_wrong_datacenter(settings: CassandraSettings) -> None:
    session = await connect(settings, keyspace=None)
    there = session.datacenter
    await session.close()
    error = await refused(replace(settings, datacenter=there.upper() + "x"))
    assert error.reason == "STORE_DATACENTER"
    assert there in error.message
    assert "TIDEWIRE_CASSANDRA_DATACENTER" in error.message
    session = await connect(replace(settings, datacenter=there), keyspace=None)
    assert (session.datacenter, session.nodes) == (there, 1)
    await session.close()


async def test_a_port_where_nobody_listens(settings: CassandraSettings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Unavailable) as caught:
        await connect(replace(settings, contact_points=f"127.0.0.1:{port}"), keyspace=None)
    assert "Connection refused" in caught.value.message
    assert "TIDEWIRE_CASSANDRA_CONTACT_POINTS" in caught.value.message


async def test_a_server_that_says_nothing(settings: CassandraSettings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = replace(
            settings,
            contact_points=f"127.0.0.1:{server.getsockname()[1]}",
            connect_timeout_seconds=2,
        )
        with pytest.raises(Unavailable, match="TIDEWIRE_CASSANDRA_CONTACT_POINTS"):
            await connect(silent, keyspace=None)


async def test_a_host_that_nobody_knows(settings: CassandraSettings) -> None:
    error = await refused(replace(settings, contact_points="cassandra.invalid:9042"))
    assert error.reason == "STORE_UNRESOLVABLE"
    assert "cassandra.invalid" in error.message


async def test_tls_towards_a_port_without(settings: CassandraSettings, tmp_path: Path) -> None:
    ca_file = Authority("here").write(tmp_path)
    error = await refused(replace(settings, ca_file=ca_file, connect_timeout_seconds=4))
    assert error.reason == "STORE_TLS"
    assert "TIDEWIRE_CASSANDRA_CONTACT_POINTS" in error.message


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"username": "tidewire"}, "TIDEWIRE_CASSANDRA_PASSWORD_FILE"),
        ({"username": "tidewire", "password_file": Path("/nowhere")}, "TIDEWIRE_CASSANDRA_PASSWORD_FILE"),
        ({"ca_file": Path("/nowhere")}, "TIDEWIRE_CASSANDRA_CA_FILE"),
        ({"cert_file": Path("/nowhere")}, "TIDEWIRE_CASSANDRA_CA_FILE"),
    ],
)
async def test_files_that_are_not_there(
    settings: CassandraSettings, changes: dict[str, str], named: str
) -> None:
    assert named in (await refused(replace(settings, **changes))).message
