"""Connections end at their age, so that new processes get their share; no call and no stream is lost by it."""

from collections.abc import Callable

import pytest
from grpc import aio

from tidewire_kit.grpc import Call, Server, ServerSettings
from tidewire_kit.identity import Role
from tidewire_testkit.directory import World
from tidewire_testkit.polling import until
from tidewire_testkit.toy_service import STREAM, UNARY, Toy


@pytest.fixture
def metadata(world: World) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {world.token(world.add_tenant('acme'), Role.OPERATOR)}")]


async def test_a_client_moves_to_a_new_connection_and_loses_nothing(
    make_server: Callable[..., Server],
    metadata: list[tuple[str, str]],
    toy: Toy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peers: set[str] = set()

    async def note_connection(request: bytes, call: Call) -> bytes:
        peers.add(call.context.peer())
        return request

    monkeypatch.setattr(toy, "PublishTelemetry", note_connection)
    server = make_server(ServerSettings(max_connection_age_seconds=0.2, connection_age_grace_seconds=20))
    async with aio.insecure_channel(await server.start()) as client:
        stream = client.stream_stream(STREAM)(metadata=metadata)
        await stream.write(b"before")
        assert await stream.read() == b"before"
        unary = client.unary_unary(UNARY)

        async def moved() -> bool:
            assert await unary(b"x", metadata=metadata, timeout=10) == b"x"
            return len(peers) >= 3

        await until(moved, message="calls come over new connections")
        await stream.write(b"after")
        assert await stream.read() == b"after", "the old connection's stream has its grace"
        await stream.done_writing()
        assert await stream.read() is aio.EOF


async def test_a_stream_longer_than_age_and_grace_is_ended_and_may_be_opened_again(
    make_server: Callable[..., Server], metadata: list[tuple[str, str]]
) -> None:
    server = make_server(ServerSettings(max_connection_age_seconds=0.1, connection_age_grace_seconds=0.1))
    async with aio.insecure_channel(await server.start()) as client:
        method = client.stream_stream(STREAM)
        for _ in range(2):
            stream = method(metadata=metadata, wait_for_ready=True)
            await stream.write(b"1")
            assert await stream.read() == b"1"
            with pytest.raises(aio.AioRpcError):
                await stream.read()
