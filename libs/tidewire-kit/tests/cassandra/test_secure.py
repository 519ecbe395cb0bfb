"""A node with TLS, passwords and permissions: what is needed, and what is said when it is missing."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tidewire_kit.cassandra import CassandraSession, CassandraSettings, connect, schema
from tidewire_kit.errors import FailedPrecondition
from tidewire_kit.settings import load
from tidewire_testkit.cassandra import administrator, connected
from tidewire_testkit.certificates import Authority
from tidewire_testkit.servers.cassandra import CassandraCluster

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

TABLE = "CREATE TABLE {}.rows (part blob PRIMARY KEY, value blob)"


@pytest.fixture(scope="module")
def settings() -> Iterator[CassandraSettings]:
    with CassandraCluster(secure=True) as cluster:
        yield replace(load(CassandraSettings, cluster.environ()), keyspace="secured")


@pytest.fixture
async def reader(settings: CassandraSettings, tmp_path: Path) -> CassandraSettings:
    """A user that may read the keyspace and nothing else; made by the administrator."""
    async with administrator(settings) as admin:
        await schema.apply(admin, [])
        await _once(admin, TABLE.format(settings.keyspace))
        await admin.execute_cql("CREATE ROLE IF NOT EXISTS reader WITH PASSWORD = 'secret' AND LOGIN = true")
        await admin.execute_cql(f"GRANT SELECT ON KEYSPACE {settings.keyspace} TO reader")
    (tmp_path / "password").write_text("secret\n")
    return replace(settings, username="reader", password_file=tmp_path / "password")


async def refusal(settings: CassandraSettings) -> FailedPrecondition:
    with pytest.raises(FailedPrecondition) as caught:
        await connect(settings, keyspace=None)
    return caught.value


async def test_a_wrong_password(settings: CassandraSettings, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("swordfish")
    error = await refusal(replace(settings, password_file=tmp_path / "password"))
    assert error.reason == "STORE_AUTHENTICATION"
    assert "TIDEWIRE_CASSANDRA_PASSWORD_FILE" in error.message
    assert "swordfish" not in error.message


async def test_no_user_where_one_is_needed(settings: CassandraSettings) -> None:
    error = await refusal(replace(settings, username="", password_file=None))
    assert error.reason == "STORE_AUTHENTICATION"
    assert "TIDEWIRE_CASSANDRA_USERNAME" in error.message


async def test_an_authority_that_is_not_the_nodes(settings: CassandraSettings, tmp_path: Path) -> None:
    error = await refusal(replace(settings, ca_file=Authority("other").write(tmp_path)))
    assert error.reason == "STORE_TLS"
    assert "TIDEWIRE_CASSANDRA_CA_FILE" in error.message


async def test_a_name_that_the_certificate_does_not_carry(settings: CassandraSettings) -> None:
    error = await refusal(replace(settings, tls_server_name="cassandra.example"))
    assert error.reason == "STORE_TLS"
    assert "TIDEWIRE_CASSANDRA_TLS_SERVER_NAME" in error.message


async def test_a_user_without_permission_is_told_which(reader: CassandraSettings) -> None:
    async with connected(reader) as session:
        assert await session.execute(await session.prepare("SELECT * FROM rows")) == []
        put = await session.prepare("INSERT INTO rows (part, value) VALUES (?, ?)")
        with pytest.raises(FailedPrecondition) as caught:
            await session.execute(put, (b"a", b"b"))
        assert caught.value.reason == "STORE_PERMISSION_MISSING"
        assert "MODIFY" in caught.value.message
        with pytest.raises(FailedPrecondition, match="CREATE"):
            await session.execute_cql("CREATE TABLE more (k int PRIMARY KEY)")


async def _once(session: CassandraSession, cql: str) -> None:
    await session.execute_cql(cql.replace("TABLE", "TABLE IF NOT EXISTS"))
