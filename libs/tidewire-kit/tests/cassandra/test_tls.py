"""TLS towards a node whose certificate does not hold: what is said, without a Cassandra behind it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tidewire_kit.cassandra import CassandraSettings, connect
from tidewire_kit.errors import FailedPrecondition, Unavailable
from tidewire_testkit.certificates import Authority


@asynccontextmanager
async def listener(cert_file: Path, key_file: Path, client_ca: Path | None = None) -> AsyncIterator[str]:
    """Takes TLS connections and says nothing."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
    context.load_cert_chain(cert_file, key_file)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        except OSError:
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def refusal(settings: CassandraSettings) -> str:
    with pytest.raises(FailedPrecondition) as caught:
        await connect(settings, keyspace=None)
    assert caught.value.reason == "STORE_TLS"
    return caught.value.message


async def test_a_certificate_of_another_authority(tmp_path: Path) -> None:
    cert_file, key_file = Authority("there").issue(tmp_path, "node")
    async with listener(cert_file, key_file) as address:
        message = await refusal(CassandraSettings(address, ca_file=Authority("here").write(tmp_path)))
    assert "TIDEWIRE_CASSANDRA_CA_FILE" in message


async def test_an_expired_certificate(tmp_path: Path) -> None:
    authority = Authority("here")
    cert_file, key_file = authority.issue(tmp_path, "node", expired=True)
    async with listener(cert_file, key_file) as address:
        message = await refusal(CassandraSettings(address, ca_file=authority.write(tmp_path)))
    assert "expired" in message
    assert "renew it" in message
    assert "TIDEWIRE_CASSANDRA_CONTACT_POINTS" in message


async def test_a_certificate_for_another_name(tmp_path: Path) -> None:
    authority = Authority("here")
    cert_file, key_file = authority.issue(tmp_path, "node", addresses=("10.1.2.3",))
    async with listener(cert_file, key_file) as address:
        settings = CassandraSettings(address, ca_file=authority.write(tmp_path))
        assert "TIDEWIRE_CASSANDRA_TLS_SERVER_NAME" in await refusal(settings)


async def test_a_node_that_wants_a_certificate(tmp_path: Path) -> None:
    authority = Authority("here")
    cert_file, key_file = authority.issue(tmp_path, "node")
    ca_file = authority.write(tmp_path)
    async with listener(cert_file, key_file, client_ca=ca_file) as address:
        settings = CassandraSettings(address, ca_file=ca_file, connect_timeout_seconds=1)
        with pytest.raises(Unavailable, match="TIDEWIRE_CASSANDRA_CERT_FILE"):
            await connect(settings, keyspace=None)


async def test_a_certificate_without_its_key(tmp_path: Path) -> None:
    authority = Authority("here")
    cert_file, _ = authority.issue(tmp_path, "client")
    ca_file = authority.write(tmp_path)
    settings = CassandraSettings("127.0.0.1:1", ca_file=ca_file, cert_file=cert_file)
    assert "TIDEWIRE_CASSANDRA_KEY_FILE" in await refusal(settings)
