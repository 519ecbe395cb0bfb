"""`topic`, `schema` and `doctor` as a user runs them against a Kafka and a Cassandra: what they do, say and return."""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tidewire_kit import topics
from tidewire_testkit.whole.backend import DistributedBackend
from tidewire_testkit.whole.platform import TIDEWIRE

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def answer(self) -> Any:
        return json.loads(self.out)


class Commands:
    """Runs `tidewire` with the settings of one platform."""

    def __init__(self, settings: Mapping[str, str], home: Path) -> None:
        self.settings = settings
        self._environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("TIDEWIRE_")},
            "XDG_DATA_HOME": str(home),
            "XDG_CONFIG_HOME": str(home),
            **settings,
        }

    def run(self, *words: str, **settings: str) -> Ended:
        """Runs it; `settings` by their variables."""
        done = subprocess.run(
            [str(TIDEWIRE), *words],
            env={**self._environ, **settings},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def commands(kafka_servers: str, cassandra_contact_points: str, tmp_path: Path) -> Iterator[Commands]:
    backend = DistributedBackend(kafka_servers, cassandra_contact_points, partitions=3)
    yield Commands(backend.environ(tmp_path / uuid.uuid4().hex), tmp_path)
    backend.release(tmp_path)


def actions(ended: Ended, key: str) -> set[str]:
    assert ended.status == 0, ended.err
    return {row["action"] for row in ended.answer[key]}


def test_topics_are_planned_made_and_then_as_they_shall_be(commands: Commands) -> None:
    assert actions(commands.run("topic", "plan", "--output", "json"), "topics") == {"create"}
    made = commands.run("topic", "apply", "--output", "json")
    assert actions(made, "topics") == {"create"}
    assert made.answer["applied"]
    assert actions(commands.run("topic", "plan", "--output", "json"), "topics") == {"none"}
    again = commands.run("topic", "apply")
    assert again.status == 0
    assert "Nothing to do" in again.out


def test_a_topic_of_another_shape_is_refused_with_the_remedy(commands: Commands) -> None:
    assert commands.run("topic", "apply").status == 0

    refused = commands.run("topic", "apply", "--output", "json", TIDEWIRE_KAFKA_PARTITIONS="5")

    assert refused.status == 4
    refusals = [row for row in refused.answer["topics"] if row["action"] == "refuse"]
    assert (refused.answer["refusals"], refused.answer["applied"]) == (len(refusals), False)
    assert len(refusals) == 2
    for name in (topics.TELEMETRY, topics.EVENTS):
        assert any(row["topic"].endswith(name) for row in refusals)
    assert all("TIDEWIRE_KAFKA_PARTITIONS=3" in row["details"][0] for row in refusals)


def test_more_copies_than_brokers_are_refused_before_anything_is_made(commands: Commands) -> None:
    refused = commands.run("topic", "apply", TIDEWIRE_KAFKA_REPLICATION_FACTOR="16")

    assert refused.status == 4
    assert "TIDEWIRE_KAFKA_REPLICATION_FACTOR" in refused.out
    assert actions(commands.run("topic", "plan", "--output", "json"), "topics") == {"create"}


def test_the_schema_is_planned_made_and_then_as_it_shall_be(commands: Commands) -> None:
    planned = commands.run("schema", "plan", "--output", "json")
    assert actions(planned, "steps") == {"apply"}
    assert planned.answer["create_keyspace"]
    assert {row["component"] for row in planned.answer["steps"]} == {"registry", "storage"}
    made = commands.run("schema", "apply")
    assert made.status == 0, made.err
    assert commands.settings["TIDEWIRE_CASSANDRA_KEYSPACE"] in made.out
    after = commands.run("schema", "plan", "--output", "json")
    assert actions(after, "steps") == {"none"}
    assert not after.answer["create_keyspace"]
    assert "Nothing to do" in commands.run("schema", "apply").out


def test_a_keyspace_with_more_copies_than_nodes_is_refused(commands: Commands) -> None:
    refused = commands.run("schema", "apply", TIDEWIRE_CASSANDRA_REPLICATION_FACTOR="9")

    assert refused.status == 4
    assert "TIDEWIRE_CASSANDRA_REPLICATION_FACTOR" in refused.err or "replication_factor" in refused.err


def test_servers_that_are_not_there_are_named_by_their_setting(commands: Commands) -> None:
    quick = {"TIDEWIRE_KAFKA_CONNECT_TIMEOUT_SECONDS": "1", "TIDEWIRE_CASSANDRA_CONNECT_TIMEOUT_SECONDS": "2"}
    nowhere = {
        "TIDEWIRE_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "TIDEWIRE_CASSANDRA_CONTACT_POINTS": "127.0.0.1:1",
        **quick,
    }

    on_kafka = commands.run("topic", "plan", **nowhere)
    on_cassandra = commands.run("schema", "plan", **nowhere)
    examined = commands.run("doctor", "--output", "json", **nowhere)

    assert (on_kafka.status, on_cassandra.status, examined.status) == (3, 3, 1)
    assert "TIDEWIRE_KAFKA_BOOTSTRAP_SERVERS" in on_kafka.err
    assert "TIDEWIRE_CASSANDRA_CONTACT_POINTS" in on_cassandra.err
    assert len(on_kafka.err.splitlines()) == len(on_cassandra.err.splitlines()) == 1
    assert {finding["check"] for finding in examined.answer["findings"]} == {"kafka", "cassandra"}
    assert examined.answer["wrong"] == 2


def test_the_doctor_finds_what_is_missing_and_then_that_it_is_there(commands: Commands) -> None:
    before = commands.run("doctor", "--output", "json")
    assert before.status == 1
    missing = {finding["check"] for finding in before.answer["findings"] if finding["state"] == "wrong"}
    assert missing == {"topic", "schema"}
    assert all("apply" in f["remedy"] for f in before.answer["findings"] if f["state"] == "wrong")
    assert commands.run("topic", "apply").status == 0
    assert commands.run("schema", "apply").status == 0

    after = commands.run("doctor", "--output", "json")

    by_check: dict[str, set[str]] = {}
    for finding in after.answer["findings"]:
        by_check.setdefault(finding["check"], set()).add(finding["state"])
    assert by_check.pop("service") == {"wrong"}, "no service runs"
    assert by_check.pop("copies") == {"warning"}, "of every record and row there is one copy"
    assert by_check == {check: {"ok"} for check in ("kafka", "topic", "clock", "cassandra", "schema", "lag")}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"TIDEWIRE_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"}, "TIDEWIRE_KAFKA_SASL_USERNAME"),
        ({"TIDEWIRE_CASSANDRA_KEYSPACE": "not-a-keyspace"}, "TIDEWIRE_CASSANDRA_KEYSPACE"),
        ({"TIDEWIRE_KAFKA_PARTITIONS": "none"}, "TIDEWIRE_KAFKA_PARTITIONS"),
        ({"TIDEWIRE_SERVICE_TOKEN_FILE": "/nowhere"}, "TIDEWIRE_SERVICE_TOKEN_FILE"),
        ({"TIDEWIRE_SIGNING_KEY_FILE": "/nowhere"}, "TIDEWIRE_SIGNING_KEY_FILE"),
    ],
)
def test_up_refuses_a_wrong_setting_by_its_name(
    commands: Commands, tmp_path: Path, settings: dict[str, str], says: str
) -> None:
    ended = commands.run("up", "--data-dir", str(tmp_path / "data"), "--free-ports", **settings)

    assert ended.status != 0
    assert says in ended.err
