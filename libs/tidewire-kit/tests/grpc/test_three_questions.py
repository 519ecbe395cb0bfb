"""Ready, started, alive: three questions to one process, with answers of their own."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tidewire_kit.grpc import service_handler
from tidewire_kit.log.embedded.meta_thread import MetaThread
from tidewire_kit.log.kafka.worker import Worker
from tidewire_kit.service import RunningService, ServiceContext, ServiceParts, running_service
from tidewire_kit.settings import CommonSettings
from tidewire_testkit.polling import until
from tidewire_testkit.toy_service import ACCESS, DESCRIPTOR, RAW, Toy

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass(frozen=True)
class ToySettings:
    PREFIX: ClassVar[str] = "TIDEWIRE_TOY_"
    port: int = 0
    metrics_port: int = 0


class World:
    """What the toy depends on: a broker outside, a task inside."""

    def __init__(self) -> None:
        self.broker: str | None = None
        self.ended: str | None = None

    async def check(self) -> str | None:
        return self.broker

    def lifeline(self) -> str | None:
        return self.ended


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def service(world: World, tmp_path: Path) -> AsyncIterator[RunningService]:
    def build(ctx: ServiceContext[ToySettings]) -> ServiceParts:
        return ServiceParts(
            handlers=[service_handler(DESCRIPTOR, Toy(), ACCESS, ctx.guard, raw=RAW)],
            checks={"broker": world.check},
            lifelines={"worker": world.lifeline},
        )

    async with running_service("toy", ToySettings(), CommonSettings(data_dir=tmp_path), build) as running:
        yield running


async def _asked(service: RunningService) -> tuple[list[int], list[int]]:
    """Answers to ready, startup and liveness: by gRPC, and as the status of the pages."""
    async with aio.insecure_channel(service.address) as client:
        stub = health_pb2_grpc.HealthStub(client)
        by_grpc = [
            (await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)).status
            for name in ("", "startup", "liveness")
        ]
    pages = [f"http://{service.metrics_address}{path}" for path in ("/readyz", "/startupz", "/livez")]
    return by_grpc, [await asyncio.to_thread(_status, page) for page in pages]


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


async def test_what_a_process_depends_on_makes_it_unready_and_never_dead(
    service: RunningService, world: World
) -> None:
    assert await _asked(service) == ([SERVING] * 3, [200] * 3)
    world.broker = "no broker answers"
    await service.server.health.poll()
    assert await _asked(service) == ([NOT_SERVING, SERVING, SERVING], [503, 200, 200])
    world.broker = None
    await service.server.health.poll()
    assert await _asked(service) == ([SERVING] * 3, [200] * 3)


async def test_what_only_a_restart_heals_makes_it_dead(service: RunningService, world: World) -> None:
    world.ended = "the thread 'worker' ended"
    await service.server.health.poll()
    assert await _asked(service) == ([SERVING, SERVING, NOT_SERVING], [200, 200, 503])
    assert service.server.health.dead == {"worker": "the thread 'worker' ended"}


async def test_a_process_that_drains_is_not_ready_and_alive(service: RunningService) -> None:
    await service.server.health.drain()
    assert await _asked(service) == ([NOT_SERVING, SERVING, SERVING], [503, 200, 200])


@pytest.mark.parametrize("name", ["members", "heartbeats", "log maintenance", "directory", "health"])
async def test_a_task_that_everything_rests_on_is_missed(service: RunningService, name: str) -> None:
    (task,) = (task for task in asyncio.all_tasks() if task.get_name() == name)
    task.cancel()
    await until(task.done)
    await service.server.health.poll()
    (why,) = service.server.health.dead.values()
    assert why == f"the task '{name}' was cancelled"


async def test_a_thread_of_the_log_is_missed(tmp_path: Path) -> None:
    meta = MetaThread(tmp_path / "meta.db")
    assert meta.ended() is None
    meta._queue.put(None)  # it ends, as if it had died: nobody closed it
    await until(lambda: meta.ended() == "the thread 'log-meta' ended")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_kafka_worker_that_died_is_missed_and_one_that_was_stopped_is_not() -> None:
    def die() -> None:
        raise SystemExit

    died, stopped = Worker("died"), Worker("stopped")
    assert died.ended() is None
    died.post(die)
    stopped.stop()
    await until(lambda: died.ended() == "the thread 'died' ended")
    stopped._thread.join()
    assert stopped.ended() is None
