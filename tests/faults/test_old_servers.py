"""Servers of releases that Tidewire does not support are refused at the start, by their setting and with what to do."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidewire_kit import settings
from tidewire_kit.cassandra import CassandraSettings, connect
from tidewire_kit.errors import FailedPrecondition
from tidewire_kit.log.kafka import KafkaLog, KafkaSettings
from tidewire_testkit.servers.old import OldCassandra, OldKafka
from tidewire_testkit.whole.platform import TIDEWIRE

# The time limit is for the tests themselves: the first one may have to fetch a server.
pytestmark = [pytest.mark.faults, pytest.mark.timeout(60, func_only=True)]

KAFKA = "TIDEWIRE_KAFKA_BOOTSTRAP_SERVERS"
CASSANDRA = "TIDEWIRE_CASSANDRA_CONTACT_POINTS"


@pytest.fixture(scope="module")
def kafka() -> Iterator[dict[str, str]]:
    with OldKafka() as broker:
        yield {
            KAFKA: broker.bootstrap_servers,
            "TIDEWIRE_KAFKA_REPLICATION_FACTOR": "1",
            "TIDEWIRE_KAFKA_MIN_INSYNC_REPLICAS": "1",
        }


@pytest.fixture(scope="module")
def cassandra() -> Iterator[dict[str, str]]:
    with OldCassandra() as cluster:
        yield cluster.environ()


def run(home: Path, environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    mine = {key: value for key, value in os.environ.items() if not key.startswith("TIDEWIRE_")}
    homes = {"XDG_DATA_HOME": str(home), "XDG_CONFIG_HOME": str(home), "TIDEWIRE_BACKEND": "distributed"}
    done = subprocess.run(
        [str(TIDEWIRE), *words], env=mine | homes | environ, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    return done


async def test_a_process_refuses_a_broker_of_kafka_2(kafka: dict[str, str]) -> None:
    log = KafkaLog(settings.load(KafkaSettings, kafka))
    with pytest.raises(FailedPrecondition, match="older than Kafka 3") as refused:
        await log.start()
    await log.close()
    assert refused.value.reason == "KAFKA_TOO_OLD"
    assert KAFKA in refused.value.message


async def test_a_process_refuses_a_node_of_cassandra_4(cassandra: dict[str, str]) -> None:
    with pytest.raises(FailedPrecondition, match=r"Cassandra 4\.1\.\d+.*5\.0 or newer") as refused:
        await connect(settings.load(CassandraSettings, cassandra), keyspace=None)
    assert refused.value.reason == "STORE_TOO_OLD"
    assert CASSANDRA in refused.value.message


def test_commands_refuse_a_broker_of_kafka_2(kafka: dict[str, str], tmp_path: Path) -> None:
    applied = run(tmp_path, kafka, "topic", "apply")
    assert applied.returncode != 0
    assert "older than Kafka 3" in applied.stderr
    assert KAFKA in applied.stderr


def test_commands_refuse_a_node_of_cassandra_4(cassandra: dict[str, str], tmp_path: Path) -> None:
    applied = run(tmp_path, cassandra, "schema", "apply")
    assert applied.returncode != 0
    assert "5.0 or newer" in applied.stderr
    assert CASSANDRA in applied.stderr


def test_the_doctor_says_that_both_are_too_old(
    kafka: dict[str, str], cassandra: dict[str, str], tmp_path: Path
) -> None:
    examined = run(tmp_path, kafka | cassandra, "doctor")
    assert examined.returncode == 1
    assert "older than 3.0" in examined.stdout
    assert "5.0 or newer" in examined.stdout
