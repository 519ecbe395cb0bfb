"""Connections end at their age, so that new processes get their share; no call and no stream is lost by it."""

import asyncio
from collections.abc import Callable

import grpc
import pytest
from grpc import aio

from tidewire_kit.grpc import Call, Server, ServerSettings
from tidewire_kit.grpc.guard import STREAM_AGE_KEY
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
        await stream.done_writing()
        assert await stream.read() is aio.EOF
        assert await stream.code() is grpc.StatusCode.OK


async def test_a_stream_is_told_its_age_and_outlives_its_connection_s(
    make_server: Callable[..., Server], metadata: list[tuple[str, str]]
) -> None:
    # Without grace of their own, streams would be cut when the connection's age is over.
    server = make_server(ServerSettings(max_connection_age_seconds=0.5, connection_age_grace_seconds=0.2))
    async with aio.insecure_channel(await server.start()) as client:
        for _ in range(3):
            stream = client.stream_stream(STREAM)(metadata=metadata)
            loop = asyncio.get_running_loop()
            age = float(dict(await stream.initial_metadata())[STREAM_AGE_KEY])  # type: ignore[call-overload]
            assert 0.55 <= age <= 0.625
            ends = loop.time() + age
            while loop.time() < ends:
                await stream.write(b"x")
                assert await stream.read() == b"x"
                await asyncio.sleep(0.01)
            await stream.done_writing()
            assert await stream.read() is aio.EOF
            assert await stream.code() is grpc.StatusCode.OK


async def test_a_stream_that_nobody_ends_is_ended_without_an_error(
    make_server: Callable[..., Server], metadata: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidewire_kit.grpc.guard.STREAM_END_SECONDS", 0.1)
    server = make_server(ServerSettings(max_connection_age_seconds=0.1))
    async with aio.insecure_channel(await server.start()) as client:
        stream = client.stream_stream(STREAM)(metadata=metadata)
        await stream.write(b"x")
        assert await stream.read() == b"x"
        assert await stream.read() is aio.EOF
        assert await stream.code() is grpc.StatusCode.OK
