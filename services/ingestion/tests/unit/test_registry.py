"""The adapter that asks the registry, on a real server whose answers the test decides."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import pytest
from grpc import aio

from tidewire.registry.v1 import registry_pb2, registry_pb2_grpc
from tidewire_ingestion.adapters.registry import RegistryResolver
from tidewire_kit.directory import Directory
from tidewire_kit.errors import Unavailable
from tidewire_kit.ids import TenantId, new_uid, uid_hex
from tidewire_testkit.polling import until

REFUSED, WAITING = TenantId(new_uid()), TenantId(new_uid())


class Registry(registry_pb2_grpc.RegistryServiceServicer):
    """Refuses the caller for one tenant, and keeps the question for the other until told to go on."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go_on = asyncio.Event()

    async def ResolveDevices(self, request: Any, context: Any) -> Any:
        self.asked.append(request.tenant_uid)
        if request.tenant_uid == uid_hex(REFUSED):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
        await self.go_on.wait()
        return registry_pb2.ResolveDevicesResponse()


class Answers:
    """Stands for the directory: the tenants for which an answer came."""

    def __init__(self) -> None:
        self.tenants: list[TenantId] = []

    def add_resolved(self, tenant: TenantId, devices: Any) -> None:
        self.tenants.append(tenant)


@pytest.fixture
async def registry() -> AsyncIterator[tuple[Registry, str]]:
    registry, server = Registry(), aio.server()
    registry_pb2_grpc.add_RegistryServiceServicer_to_server(registry, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield registry, f"127.0.0.1:{port}"
    await server.stop(0)


async def test_a_question_that_fails_leaves_the_connection_but_disturbs_no_other(
    registry: tuple[Registry, str],
) -> None:
    server, address = registry
    made: list[aio.Channel] = []

    def connect() -> aio.Channel:
        made.append(aio.insecure_channel(address))
        return made[-1]

    answers = Answers()
    resolver = RegistryResolver(cast(Directory, answers), connect, 20)
    try:
        other = asyncio.ensure_future(resolver.resolve(WAITING, ["pump"]))
        await until(lambda: server.asked == [uid_hex(WAITING)])
        for _ in range(2):
            with pytest.raises(Unavailable) as caught:
                await resolver.resolve(REFUSED, ["pump"])
            assert caught.value.reason == "REGISTRY_UNAVAILABLE"
        assert len(made) == 2, "the first was left, and the second question had another"
        server.go_on.set()
        await other
        assert answers.tenants == [WAITING]
    finally:
        await resolver.close()


async def test_a_registry_that_nobody_knows_is_unavailable() -> None:
    def connect() -> aio.Channel:
        raise Unavailable("registry", "is not running here; try again shortly")

    resolver = RegistryResolver(cast(Directory, Answers()), connect, 1)
    with pytest.raises(Unavailable) as caught:
        await resolver.resolve(REFUSED, ["pump"])
    assert caught.value.reason == "REGISTRY_UNAVAILABLE"
    await resolver.close()
