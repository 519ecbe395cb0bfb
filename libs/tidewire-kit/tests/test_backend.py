"""The choice of the backend: what is opened, what must be given, and what an embedded process does not pay for."""

import contextlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from tidewire_kit import backend, topics
from tidewire_kit.clock import SystemClock
from tidewire_kit.datadir import open_data_dir
from tidewire_kit.errors import InvalidArgument, Unavailable
from tidewire_kit.grpc import service_handler
from tidewire_kit.identity import Role
from tidewire_kit.ids import TenantId, new_uid
from tidewire_kit.log.embedded import EmbeddedLog
from tidewire_kit.service import ServiceContext, ServiceParts, run, running_service
from tidewire_kit.settings import CommonSettings, load
from tidewire_testkit.directory import TestTenant, heartbeat_change, key_change, tenant_change
from tidewire_testkit.polling import until
from tidewire_testkit.tokens import new_signer, user_token
from tidewire_testkit.toy_service import ACCESS, DESCRIPTOR, RAW, UNARY, Toy


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
    assert partitions(distributed) == 12
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


async def test_calls_to_a_service_take_turns_among_its_processes_that_the_log_knows(tmp_path: Path) -> None:
    clock = SystemClock()
    signer, tenant = new_signer(clock), TestTenant(TenantId(new_uid()), "acme")
    token = tmp_path / "token"
    token.write_text(user_token(signer, tenant.uid, Role.OPERATOR))
    shared = tmp_path / "log"
    toys = [Toy(), Toy()]
    contexts: list[ServiceContext[ToySettings]] = []

    def serving(toy: Toy) -> Callable[[ServiceContext[ToySettings]], ServiceParts]:
        def build(ctx: ServiceContext[ToySettings]) -> ServiceParts:
            contexts.append(ctx)
            return ServiceParts([service_handler(DESCRIPTOR, toy, ACCESS, ctx.guard, raw=RAW)])

        return build

    async with contextlib.AsyncExitStack() as stack:
        services = []
        for number, toy in enumerate(toys):
            # Each has a data directory of its own, as on another machine; what stands for Kafka is shared.
            log = EmbeddedLog(open_data_dir(shared).root)
            await log.start()
            stack.push_async_callback(log.close)
            common = CommonSettings(
                data_dir=tmp_path / f"data{number}", backend="distributed", service_token_file=token
            )
            running = running_service("toy", ToySettings(), common, serving(toy), log=log)
            services.append(await stack.enter_async_context(running))
        changes = [key_change(signer), tenant_change(tenant), heartbeat_change(clock)]
        keys = [b"-/key/k", b"t/tenant/t", b"-/heartbeat/registry"]
        await services[0].log.put(
            topics.REGISTRY,
            [(key, change.SerializeToString()) for key, change in zip(keys, changes, strict=True)],
        )
        await until(lambda: all(service.directory.fresh for service in services))
        await until(lambda: len(services[1].log.members("toy")) == 2)
        for _ in range(4):
            channel = contexts[1].channel_to("toy")
            assert await channel.unary_unary(UNARY)(b"x", timeout=10) == b"x"
            await channel.close()
        assert [len(toy.calls) for toy in toys] == [2, 2]
        # A registry that listens where ours would may be somebody else's.
        for absent in ("storage", "registry"):
            with pytest.raises(Unavailable, match=absent):
                contexts[1].channel_to(absent)
