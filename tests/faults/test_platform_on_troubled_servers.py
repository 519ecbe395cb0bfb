"""The whole platform on servers of its own: secured ones, wrong keys to them, and servers that hang while it runs."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from tidewire_testkit.certificates import Authority
from tidewire_testkit.servers.cassandra import CassandraCluster
from tidewire_testkit.servers.kafka import QUICK_FAILOVER, KafkaCluster
from tidewire_testkit.whole.backend import EmbeddedBackend, OwnServersBackend, use
from tidewire_testkit.whole.platform import Endpoint, UpProcess, running, until
from tidewire_testkit.whole.readback import publish, wait_visible

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300, func_only=True)]

EXPECTED_ERRORS = ("consumer", "flush", "publish", "sweep", "commit", "owner", "housekeeping")


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaCluster]:
    with KafkaCluster(secure=True, settings=QUICK_FAILOVER) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def cassandra() -> Iterator[CassandraCluster]:
    with CassandraCluster(secure=True) as cluster:
        yield cluster


@pytest.fixture
def secured(kafka: KafkaCluster, cassandra: CassandraCluster) -> Iterator[OwnServersBackend]:
    backend = OwnServersBackend(kafka.environ() | cassandra.environ())
    use(backend)
    yield backend
    use(EmbeddedBackend())


@pytest.fixture
def foreign_authority(tmp_path: Path) -> Path:
    return Authority("somebody-else").write(tmp_path)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def health_of(endpoint: Endpoint) -> dict[str, str]:
    """Check → why it fails, by the process's own words."""
    try:
        with urllib.request.urlopen(f"http://{endpoint.metrics_address}/healthz", timeout=5) as answer:
            return dict(json.loads(answer.read()))
    except urllib.error.HTTPError as error:
        with error:
            return dict(json.loads(error.read()))


async def reasons(up: UpProcess, service: str) -> str:
    """Why the service's first process does not serve; "" when it does."""
    [endpoint] = up.endpoints(service)
    failures = health_of(endpoint)
    return "" if await up.is_serving(endpoint.address) else json.dumps(failures)


async def wait_all_serving(up: UpProcess) -> None:
    async def all_serving() -> bool:
        return not any([await reasons(up, service) for service in up.processes])

    await until(all_serving, "all serve again by themselves", 40)


@pytest.mark.usefixtures("secured")
async def test_it_serves_over_tls_with_passwords_and_waits_for_servers_that_hang(
    data_dir: Path, kafka: KafkaCluster, cassandra: CassandraCluster
) -> None:
    async with running(data_dir, expected_errors=EXPECTED_ERRORS) as up:
        examined = await up.command("doctor", "--data-dir", str(data_dir), "--output", "json")
        assert examined.json()["well"]
        for service in up.processes:
            pid = up.endpoints(service)[0].pid
            assert kafka.PASSWORD not in Path(f"/proc/{pid}/environ").read_text()
        access = await up.create_tenant("secured")
        await up.create_devices(access, "sensor")
        now = time.time_ns() // 1000
        rows = {now: {"level": 1.0}}
        await publish(up, access, "sensor", rows)
        await wait_visible(up, access, "sensor", rows)

        cassandra.suspend()
        try:

            async def storage_says_so() -> bool:
                return "cassandra" in (await reasons(up, "storage")).lower()

            await until(storage_says_so, "storage says that Cassandra does not answer", 40)
            # What Kafka has is acknowledged all the while: the log is what makes a reading durable.
            rows |= {now + 1: {"level": 2.0}}
            assert (await publish(up, access, "sensor", {now + 1: {"level": 2.0}})).accepted_readings == 1
        finally:
            cassandra.resume()
        await wait_all_serving(up)
        await wait_visible(up, access, "sensor", rows, 30)

        kafka.suspend()
        try:

            async def ingestion_says_so() -> bool:
                return "log" in await reasons(up, "ingestion")

            await until(ingestion_says_so, "ingestion says that the log does not answer", 40)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await publish(up, access, "sensor", {now + 2: {"level": 3.0}})
            assert caught.value.code() in {
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.DEADLINE_EXCEEDED,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
            }
        finally:
            kafka.resume()
        await wait_all_serving(up)

        async def taken() -> bool:
            answer = await publish(up, access, "sensor", {now + 3: {"level": 4.0}})
            return bool(answer.accepted_readings == 1)

        await until(taken, "readings are taken again", 30)


@pytest.mark.parametrize(
    ("variable", "content"),
    [
        ("TIDEWIRE_KAFKA_SASL_PASSWORD_FILE", "wrong"),
        ("TIDEWIRE_CASSANDRA_PASSWORD_FILE", "wrong"),
        ("TIDEWIRE_KAFKA_CA_FILE", ""),
        ("TIDEWIRE_CASSANDRA_CA_FILE", ""),
    ],
)
@pytest.mark.usefixtures("secured")
async def test_a_wrong_password_or_authority_is_refused_naming_the_setting(
    tmp_path: Path, data_dir: Path, foreign_authority: Path, variable: str, content: str
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text(content or foreign_authority.read_text())
    up = UpProcess(data_dir, environ={variable: str(wrong)})
    up.start()

    async def ended() -> bool:
        return up.status is not None

    try:
        await until(ended, "the start is refused", 60)
    finally:
        await up.ensure_ended()
    assert up.status != 0
    assert variable.rpartition("_FILE")[0] in up.stderr()
    assert "Traceback" not in up.stderr()
    assert content == "" or f" {content}" not in up.stderr()
