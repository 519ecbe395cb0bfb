"""A real server with the toy service."""

from collections.abc import AsyncIterator, Callable

import pytest
from grpc import aio

from tidewire_kit.grpc import Guard, Server, ServerSettings, TlsFiles, service_handler
from tidewire_kit.observability.metrics import RpcMetrics, new_registry
from tidewire_testkit.directory import World
from tidewire_testkit.toy_service import ACCESS, DESCRIPTOR, RAW, Toy


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
def guard(world: World) -> Guard:
    return Guard(world.verifier, RpcMetrics(new_registry()))


@pytest.fixture
async def make_server(toy: Toy, guard: Guard) -> AsyncIterator[Callable[..., Server]]:
    made: list[Server] = []

    def make(settings: ServerSettings | None = None, tls: TlsFiles | None = None) -> Server:
        server = Server(settings or ServerSettings(), tls, guard)
        server.add(service_handler(DESCRIPTOR, toy, ACCESS, guard, raw=RAW))
        made.append(server)
        return server

    yield make
    for server in made:
        await server.stop(0)


@pytest.fixture
async def server(make_server: Callable[..., Server]) -> Server:
    server = make_server()
    await server.start()
    return server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[aio.Channel]:
    async with aio.insecure_channel(server.address) as channel:
        yield channel
