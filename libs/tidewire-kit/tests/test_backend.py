"""The choice of the backend: what is opened, what must be given, and what an embedded process does not pay for."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from tidewire_kit import backend, topics
from tidewire_kit.datadir import open_data_dir
from tidewire_kit.errors import InvalidArgument
from tidewire_kit.log.embedded import EmbeddedLog
from tidewire_kit.service import ServiceContext, ServiceParts, run
from tidewire_kit.settings import CommonSettings, load


@dataclass(frozen=True, slots=True)
class ToySettings:
    PREFIX: ClassVar[str] = "TIDEWIRE_TOY_"
    port: int = 0
    metrics_port: int = 0


def build(ctx: ServiceContext[ToySettings]) -> ServiceParts:
    raise AssertionError("not reached")


def partitions(environ: dict[str, str]) -> int:
    common = load(CommonSettings, environ)
    (telemetry,) = [spec for spec in backend.topic_specs(common, environ) if spec.name == topics.TELEMETRY]
    return telemetry.partitions


def test_one_machine_gets_the_log_of_its_data_directory(tmp_path: Path) -> None:
    common = load(CommonSettings, {"TIDEWIRE_DATA_DIR": str(tmp_path)})

    log = backend.open_log(common, {}, open_data_dir(common.data_dir), None)

    assert isinstance(log, EmbeddedLog)
    assert list(backend.settings_classes(common)) == []


def test_each_backend_has_its_own_number_of_partitions() -> None:
    distributed = {"TIDEWIRE_BACKEND": "distributed"}

    assert partitions({}) == 4
    assert partitions({"TIDEWIRE_PARTITIONS": "7", "TIDEWIRE_KAFKA_PARTITIONS": "9"}) == 7
    assert partitions(distributed) == 48
    assert partitions({**distributed, "TIDEWIRE_PARTITIONS": "7", "TIDEWIRE_KAFKA_PARTITIONS": "9"}) == 9


def test_an_embedded_process_imports_no_driver() -> None:
    modules = "tidewire_registry.main, tidewire_ingestion.main, tidewire_storage.main"
    program = f"import sys, {modules}; print(sorted({{'confluent_kafka', 'cassandra'}} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"TIDEWIRE_BACKEND": "kafka"}, "TIDEWIRE_BACKEND"),
        ({"TIDEWIRE_BACKEND": "distributed"}, "TIDEWIRE_SERVICE_TOKEN_FILE: is not set"),
        (
            {"TIDEWIRE_BACKEND": "distributed", "TIDEWIRE_SERVICE_TOKEN_FILE": "/nowhere/token"},
            "TIDEWIRE_SERVICE_TOKEN_FILE: /nowhere/token cannot be read (No such file",
        ),
        ({"TIDEWIRE_BACKEND": "distributed", "TIDEWIRE_KAFKA_PARTITIONS": "0"}, "TIDEWIRE_KAFKA_PARTITIONS"),
        (
            {"TIDEWIRE_BACKEND": "distributed", "TIDEWIRE_CASSANDRA_REPLICATION_FACTOR": "three"},
            "TIDEWIRE_CASSANDRA_REPLICATION_FACTOR",
        ),
    ],
)
def test_what_the_distributed_backend_needs_is_refused_by_name(
    environ: dict[str, str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("toy", ToySettings, build, environ) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_a_token_file_that_can_be_read_is_enough(tmp_path: Path) -> None:
    file = tmp_path / "service.token"
    file.write_text("token\n")
    environ = {"TIDEWIRE_BACKEND": "distributed", "TIDEWIRE_SERVICE_TOKEN_FILE": str(file)}

    backend.check_settings(load(CommonSettings, environ), environ)
    with pytest.raises(InvalidArgument, match="TIDEWIRE_SIGNING_KEY_FILE"):
        backend.check_given("TIDEWIRE_SIGNING_KEY_FILE", None, "the platform's signing key")
