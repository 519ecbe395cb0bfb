"""A process that cannot use the cluster says within ten seconds why, and which setting mends it."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tidewire_kit import settings as kit_settings
from tidewire_kit.errors import FailedPrecondition, InvalidArgument, TidewireError, Unavailable
from tidewire_kit.log.kafka import KafkaLog, KafkaSettings
from tidewire_testkit.certificates import Authority
from tidewire_testkit.servers.kafka import KafkaCluster

pytestmark = [
    pytest.mark.servers,
    pytest.mark.timeout(60, func_only=True),
]  # the broker takes its time to start


@pytest.fixture(scope="module")
def secure_cluster() -> Iterator[KafkaCluster]:
    with KafkaCluster(secure=True) as cluster:
        yield cluster


@pytest.fixture
def by_password(secure_cluster: KafkaCluster) -> KafkaSettings:
    return kit_settings.load(KafkaSettings, secure_cluster.environ())


@pytest.fixture
def by_certificate(secure_cluster: KafkaCluster) -> KafkaSettings:
    return kit_settings.load(KafkaSettings, secure_cluster.environ(mtls=True))


async def refusal(settings: KafkaSettings) -> TidewireError:
    """How `start` fails."""
    log = KafkaLog(settings)
    begun = time.monotonic()
    with pytest.raises(TidewireError) as refused:
        await log.start()
    await log.close()
    assert time.monotonic() - begun < settings.connect_timeout_seconds + 5
    return refused.value


async def test_a_password_opens_the_cluster(by_password: KafkaSettings) -> None:
    log = KafkaLog(replace(by_password, topic_prefix="password."))
    await log.start()
    await log.close()


async def test_a_certificate_opens_the_cluster(by_certificate: KafkaSettings) -> None:
    log = KafkaLog(replace(by_certificate, topic_prefix="certificate."))
    await log.start()
    await log.close()


async def test_a_wrong_password_is_named_and_not_shown(by_password: KafkaSettings, tmp_path: Path) -> None:
    wrong = tmp_path / "password"
    wrong.write_text("open-sesame\n")
    refused = await refusal(replace(by_password, sasl_password_file=wrong))
    assert isinstance(refused, FailedPrecondition)
    assert refused.reason == "KAFKA_AUTHENTICATION"
    assert "TIDEWIRE_KAFKA_SASL_PASSWORD_FILE" in refused.message
    assert "open-sesame" not in refused.message


async def test_a_wrong_authority_is_named(by_password: KafkaSettings, tmp_path: Path) -> None:
    refused = await refusal(replace(by_password, ca_file=Authority("stranger").write(tmp_path)))
    assert isinstance(refused, FailedPrecondition)
    assert refused.reason == "KAFKA_TLS"
    assert "TIDEWIRE_KAFKA_CA_FILE" in refused.message


async def test_a_strangers_certificate_is_named(by_certificate: KafkaSettings, tmp_path: Path) -> None:
    certificate, key = Authority("stranger").issue(tmp_path, "client")
    refused = await refusal(replace(by_certificate, cert_file=certificate, key_file=key))
    assert isinstance(refused, FailedPrecondition)
    assert refused.reason == "KAFKA_TLS"
    assert "TIDEWIRE_KAFKA_CERT_FILE" in refused.message


async def test_tls_to_a_plain_port_is_named(kafka_servers: str, by_password: KafkaSettings) -> None:
    refused = await refusal(replace(by_password, bootstrap_servers=kafka_servers))
    assert isinstance(refused, FailedPrecondition)
    assert "TIDEWIRE_KAFKA_SECURITY_PROTOCOL" in refused.message


async def test_plain_to_a_tls_port_is_named(secure_cluster: KafkaCluster) -> None:
    refused = await refusal(
        KafkaSettings(bootstrap_servers=secure_cluster.bootstrap_servers, connect_timeout_seconds=4)
    )
    assert isinstance(refused, FailedPrecondition)
    assert "speaks TLS" in refused.message
    assert "TIDEWIRE_KAFKA_SECURITY_PROTOCOL" in refused.message


async def test_an_expired_certificate_is_named(by_password: KafkaSettings, tmp_path: Path) -> None:
    authority = Authority("late")
    ca_file = authority.write(tmp_path)
    certificate, key = authority.issue(tmp_path, "server", expired=True)
    with TlsListener(certificate, key) as address:
        refused = await refusal(replace(by_password, bootstrap_servers=address, ca_file=ca_file))
    assert isinstance(refused, FailedPrecondition)
    assert refused.reason == "KAFKA_TLS"
    assert "expired" in refused.message


async def test_a_host_that_does_not_resolve_is_named() -> None:
    refused = await refusal(
        KafkaSettings(bootstrap_servers="kafka.nowhere.invalid:9092", connect_timeout_seconds=2)
    )
    assert isinstance(refused, Unavailable)
    assert refused.reason == "KAFKA_UNREACHABLE"
    assert "TIDEWIRE_KAFKA_BOOTSTRAP_SERVERS=kafka.nowhere.invalid:9092" in refused.message
    assert "resolved" in refused.message


async def test_a_port_where_nothing_listens_is_named() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        refused = await refusal(KafkaSettings(bootstrap_servers=address, connect_timeout_seconds=2))
    assert isinstance(refused, Unavailable)
    assert f"nothing listens at TIDEWIRE_KAFKA_BOOTSTRAP_SERVERS={address}" in refused.message


@pytest.mark.parametrize("name", ["ca_file", "sasl_password_file"])
async def test_a_file_that_is_missing_is_named(by_password: KafkaSettings, tmp_path: Path, name: str) -> None:
    refused = await refusal(replace(by_password, **{name: tmp_path / "missing"}))
    assert isinstance(refused, FailedPrecondition)
    assert f"TIDEWIRE_KAFKA_{name.upper()}" in refused.message


async def test_an_empty_password_is_named(by_password: KafkaSettings, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("\n")
    refused = await refusal(replace(by_password, sasl_password_file=tmp_path / "password"))
    assert "TIDEWIRE_KAFKA_SASL_PASSWORD_FILE" in refused.message


async def test_half_a_certificate_is_named(by_certificate: KafkaSettings) -> None:
    refused = await refusal(replace(by_certificate, key_file=None))
    assert isinstance(refused, InvalidArgument)
    assert refused.field == "TIDEWIRE_KAFKA_KEY_FILE"


class TlsListener:
    """A port that shows a certificate and knows nothing else."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> str:
        self._thread.start()
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                try:
                    self._context.wrap_socket(connection, server_side=True).close()
                except OSError:
                    continue
