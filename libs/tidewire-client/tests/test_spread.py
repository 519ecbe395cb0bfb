"""Connections end at their age, and the SDK spreads over the addresses that a name then has: nothing is lost by it."""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from tidewire.ingestion.v1 import ingestion_pb2, ingestion_pb2_grpc
from tidewire.type.v1 import telemetry_pb2
from tidewire_client import AsyncConnection, AsyncTelemetryPublisher, connect
from tidewire_kit.clock import SystemClock
from tidewire_kit.grpc import Call, Guard, Server, ServerSettings, service_handler
from tidewire_kit.identity import Role
from tidewire_kit.observability.metrics import RpcMetrics, new_registry
from tidewire_testkit.directory import World
from tidewire_testkit.dns import Names, names
from tidewire_testkit.polling import until

SERVICE = ingestion_pb2.DESCRIPTOR.services_by_name["IngestionService"]
ACCESS = dict.fromkeys((method.name for method in SERVICE.methods), frozenset({Role.OPERATOR}))
AGE_SECONDS = 1.0  # the least that TIDEWIRE_MAX_CONNECTION_AGE_SECONDS may be


class Pod:
    """A process of ingestion as far as connections go: the kit's server, with a service that accepts everything."""

    def __init__(self, world: World, address: str, port: int) -> None:
        self.address = address
        self.readings = 0
        self.streams = 0
        self.batches: Counter[str] = Counter()
        guard = Guard(world.verifier, RpcMetrics(new_registry()))
        self.server = Server(
            ServerSettings(host=address, port=port, max_connection_age_seconds=AGE_SECONDS), None, guard
        )
        self.server.add(service_handler(SERVICE, self, ACCESS, guard))

    def _take(self, batch: telemetry_pb2.TelemetryBatch) -> ingestion_pb2.PublishTelemetryResponse:
        readings = sum(len(frame.values) for frame in batch.frames)
        self.batches[batch.batch_id] += 1
        self.readings += readings
        return ingestion_pb2.PublishTelemetryResponse(
            batch_id=batch.batch_id, sequence=batch.sequence, accepted_readings=readings
        )

    async def PublishTelemetry(
        self, batch: telemetry_pb2.TelemetryBatch, call: Call
    ) -> ingestion_pb2.PublishTelemetryResponse:
        return self._take(batch)

    async def PublishEvents(
        self, request: ingestion_pb2.PublishEventsRequest, call: Call
    ) -> ingestion_pb2.PublishEventsResponse:
        return ingestion_pb2.PublishEventsResponse()

    async def StreamTelemetry(
        self, batches: AsyncIterator[telemetry_pb2.TelemetryBatch], call: Call
    ) -> AsyncIterator[ingestion_pb2.PublishTelemetryResponse]:
        self.streams += 1
        async for batch in batches:
            yield self._take(batch)


class Load:
    """Publishers on connections of their own: streams, and unary calls that may not fail even once."""

    def __init__(self, endpoint: str, token: str) -> None:
        self._endpoint, self._token = endpoint, token
        self.publishers: list[AsyncTelemetryPublisher] = []
        self.sent = 0
        self.calls: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def running(self, streams: int) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            stop = asyncio.Event()
            tasks = []
            for _ in range(streams):
                connection = await stack.enter_async_context(self._connection())
                publisher = AsyncTelemetryPublisher(connection, linger_seconds=0.005, retry_seconds=5)
                self.publishers.append(await stack.enter_async_context(publisher))
                tasks.append(asyncio.create_task(self._publish(publisher, stop)))
            connection = await stack.enter_async_context(self._connection())
            tasks.append(asyncio.create_task(self._call(connection, stop)))
            try:
                yield
            finally:
                stop.set()
                await asyncio.gather(*tasks)

    def _connection(self) -> AsyncConnection:
        addresses = {"ingestion": self._endpoint}
        # TLS is off although the name is not this machine's: it is said so.
        return AsyncConnection(
            f"grpc://{self._endpoint}", token=self._token, tenant="acme", addresses=addresses, retry_seconds=0
        )

    async def _publish(self, publisher: AsyncTelemetryPublisher, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await publisher.add("pump", None, {"level": 1.0})
            self.sent += 1
            await asyncio.sleep(0.01)
        await publisher.flush()

    async def _call(self, connection: AsyncConnection, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await connection.call(
                "ingestion",
                lambda c: ingestion_pb2_grpc.IngestionServiceStub(c).PublishTelemetry,
                telemetry_pb2.TelemetryBatch(batch_id="unary"),
            )
            self.calls["ok"] += 1
            await asyncio.sleep(0.01)

    def check(self, pods: list[Pod]) -> None:
        """Every reading was acknowledged, no batch was sent twice, and nobody noticed anything."""
        assert sum(publisher.totals.accepted for publisher in self.publishers) == self.sent
        assert sum(pod.readings for pod in pods) == self.sent
        assert [publisher.trouble for publisher in self.publishers] == [None] * len(self.publishers)
        assert sum(publisher.totals.resent_batches for publisher in self.publishers) == 0
        taken = sum((pod.batches for pod in pods), Counter[str]())
        assert taken.pop("unary") == self.calls["ok"]
        assert set(taken.values()) == {1}


@pytest.fixture
def world() -> World:
    return World(SystemClock())


@pytest.fixture
async def dns(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Names]:
    """Names are looked up at the test's own server."""
    async with names() as server:
        plain = connect.target_of

        def target_of(*arguments: object, **options: object) -> str:
            target: str = plain(*arguments, **options)  # type: ignore[arg-type]
            return target.replace("dns:///", f"dns://127.0.0.1:{server.port}/")

        monkeypatch.setattr(connect, "target_of", target_of)
        yield server


@pytest.fixture
async def start_pod(world: World, dns: Names) -> AsyncIterator[Callable[[str], object]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))
        port = probe.getsockname()[1]
    started: list[Pod] = []

    async def start(address: str) -> Pod:
        pod = Pod(world, address, port)
        await pod.server.start()
        dns.addresses.append(address)
        started.append(pod)
        return pod

    start.port = port  # type: ignore[attr-defined]
    yield start
    for pod in started:
        await pod.server.stop(0)


async def test_streams_and_calls_live_through_the_ages_of_their_connections(world, start_pod) -> None:
    pod = await start_pod("127.0.0.2")
    load = Load(f"tw.test:{start_pod.port}", world.token(world.add_tenant("acme"), Role.OPERATOR))
    async with load.running(streams=2):
        await until(lambda: pod.streams >= 8, seconds=30, message="each stream was opened four times")
    load.check([pod])


async def test_a_new_pod_gets_its_share(world, dns, start_pod) -> None:
    first = await start_pod("127.0.0.2")
    load = Load(f"tw.test:{start_pod.port}", world.token(world.add_tenant("acme"), Role.OPERATOR))
    async with load.running(streams=6):
        await until(lambda: first.readings > 100, message="the first pod works")
        second = await start_pod("127.0.0.3")

        marks: list[tuple[int, int]] = [(first.readings, second.readings)]

        def shared() -> bool:
            """Of the last 200 readings or more each pod has had 30 %."""
            old, new = first.readings - marks[0][0], second.readings - marks[0][1]
            if old + new < 200:
                return False
            marks[0] = (first.readings, second.readings)
            return min(old, new) >= 0.3 * (old + new)

        await until(shared, seconds=30, message="both pods have their share")
    load.check([first, second])


def test_a_grpc_channel_option_lets_names_be_looked_up_soon() -> None:
    options = dict(connect._OPTIONS)
    assert options["grpc.dns_min_time_between_resolutions_ms"] <= 5_000
    assert "round_robin" in str(options["grpc.service_config"])
