"""The server's life: listeners, health, drain, TLS with renewal."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tidewire_kit.errors import FailedPrecondition, InvalidArgument
from tidewire_kit.grpc import (
    Guard,
    Health,
    Server,
    ServerSettings,
    TlsFiles,
    TokenFile,
    channel,
    channel_credentials,
)
from tidewire_kit.grpc.server import _options
from tidewire_kit.identity import Role
from tidewire_testkit.certificates import Authority
from tidewire_testkit.directory import World
from tidewire_testkit.polling import until
from tidewire_testkit.toy_service import DESCRIPTOR, STREAM, UNARY, Toy

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def metadata(world: World) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {world.token(world.add_tenant('acme'), Role.OPERATOR)}")]


async def test_port_0_is_a_free_one_and_shown(make_server: Callable[..., Server]) -> None:
    first, second = make_server(), make_server()
    addresses = {await first.start(), await second.start()}
    assert len(addresses) == 2
    assert not any(address.endswith(":0") for address in addresses)


async def test_a_port_in_use_names_address_setting_and_remedy(make_server: Callable[..., Server]) -> None:
    first = make_server()
    port = int((await first.start()).rpartition(":")[2])
    second = make_server(ServerSettings(port=port, port_variable="TIDEWIRE_TOY_PORT"))
    with pytest.raises(FailedPrecondition) as caught:
        await second.start()
    assert caught.value.reason == "ADDRESS_IN_USE"
    assert f"127.0.0.1:{port}" in caught.value.message
    assert "TIDEWIRE_TOY_PORT" in caught.value.message


async def test_an_address_that_is_not_ours_is_named(make_server: Callable[..., Server]) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        await make_server(ServerSettings(host="192.0.2.1", insecure=True)).start()
    assert caught.value.reason == "ADDRESS_UNUSABLE"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_a_listener_on_the_network_needs_tls(guard: Guard, host: str) -> None:
    with pytest.raises(InvalidArgument, match="TIDEWIRE_TLS_CERT_FILE") as caught:
        Server(ServerSettings(host=host), None, guard)
    assert caught.value.field == "TIDEWIRE_HOST"
    assert "TIDEWIRE_INSECURE=true" in caught.value.message


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "localhost"])
async def test_loopback_does_not(make_server: Callable[..., Server], host: str) -> None:
    await make_server(ServerSettings(host=host)).start()


async def test_health_follows_its_checks(server: Server, client: aio.Channel) -> None:
    health = health_pb2_grpc.HealthStub(client)
    why: list[str | None] = [None]

    async def check() -> str | None:
        return why[0]

    async def status(service: str = "") -> int:
        return (await health.Check(health_pb2.HealthCheckRequest(service=service))).status

    assert await status() == SERVING
    server.health.add("log", check)
    why[0] = "the disk is full"
    await server.health.poll()
    assert await status() == NOT_SERVING
    assert await status(DESCRIPTOR.full_name) == NOT_SERVING
    assert server.health.failures == {"log": "the disk is full"}
    why[0] = None
    await server.health.poll()
    assert await status(DESCRIPTOR.full_name) == SERVING
    await server.drain(1)
    assert await status() == NOT_SERVING


async def test_checks_that_raise_or_hang_fail_and_are_polled_by_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tidewire_kit.grpc.health.CHECK_TIMEOUT_SECONDS", 0.01)
    health = Health(poll_seconds=0.01)
    broken = True

    async def raises() -> str | None:
        if broken:
            raise OSError("gone")
        return None

    async def hangs() -> str | None:
        if broken:
            await asyncio.Event().wait()
        return None

    health.add("raises", raises)
    health.add("hangs", hangs)
    await health.start()
    assert health.failures == {"raises": "OSError: gone", "hangs": "no answer within 0.01 s"}
    broken = False
    await until(lambda: health.failures == {})
    await health.close()


async def test_drain_finishes_what_is_in_flight_and_refuses_the_rest(
    server: Server, client: aio.Channel, metadata: list[tuple[str, str]], toy: Toy
) -> None:
    unary = client.unary_unary(UNARY)
    waiting = unary(b"wait", metadata=metadata)
    await until(lambda: toy.calls)
    draining = asyncio.create_task(server.drain(10))
    await until(lambda: server.health.failures)
    with pytest.raises(aio.AioRpcError) as caught:
        await unary(b"x", metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not draining.done()
    toy.go_on.set()
    assert await waiting == b"wait"
    assert await draining


async def test_drain_ends_streams_after_their_acknowledgements(
    server: Server, client: aio.Channel, metadata: list[tuple[str, str]], toy: Toy
) -> None:
    idle, busy = (client.stream_stream(STREAM)(metadata=metadata) for _ in range(2))
    await idle.write(b"1")
    assert await idle.read() == b"1"
    await busy.write(b"wait")
    await until(lambda: toy.waiting == 1)
    draining = asyncio.create_task(server.drain(10))
    with pytest.raises(aio.AioRpcError) as caught:
        await idle.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    toy.go_on.set()
    assert await busy.read() == b"wait"
    with pytest.raises(aio.AioRpcError) as caught:
        await busy.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert await draining
    assert toy.cancelled == 0


async def test_drain_has_an_end(
    server: Server, client: aio.Channel, metadata: list[tuple[str, str]], toy: Toy
) -> None:
    waiting = client.unary_unary(UNARY)(b"wait", metadata=metadata)
    await until(lambda: toy.calls)
    assert not await server.drain(0.05)
    await server.stop(0)
    with pytest.raises(aio.AioRpcError):
        await waiting
    await until(lambda: toy.cancelled == 1)


async def test_reflection_is_there_only_by_setting(make_server: Callable[..., Server]) -> None:
    for wanted in (False, True):
        server = make_server(ServerSettings(reflection=wanted))
        async with aio.insecure_channel(await server.start()) as client:
            stub = reflection_pb2_grpc.ServerReflectionStub(client)
            call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
            if wanted:
                names = {entry.name for entry in (await call.read()).list_services_response.service}
                assert {DESCRIPTOR.full_name, "grpc.health.v1.Health"} <= names
            else:
                with pytest.raises(aio.AioRpcError) as caught:
                    await call.read()
                assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_tls_with_a_certificate_that_is_renewed(
    make_server: Callable[..., Server], metadata: list[tuple[str, str]], tmp_path: Path
) -> None:
    old, new = Authority("old"), Authority("new")
    files = old.issue(tmp_path, "server")
    server = make_server(tls=TlsFiles(*files))
    address = await server.start()

    async def answers(authority: Authority) -> bool:
        ca_file = authority.write(tmp_path)
        async with channel(address, channel_credentials(ca_file), lambda: metadata[0][1][7:]) as client:
            call = client.unary_unary(UNARY)(b"x", timeout=5)
            code = await call.code()
            assert code in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
            return bool(code is grpc.StatusCode.OK)

    assert await answers(old)
    assert not await answers(new)
    files[0].write_bytes(b"half a certif")
    files[0].unlink()  # in the midst of a renewal the old one serves on
    assert await answers(old)
    new.issue(tmp_path, "server")
    assert await answers(new)
    assert not await answers(old)


async def test_tls_with_client_certificates(
    make_server: Callable[..., Server], metadata: list[tuple[str, str]], tmp_path: Path
) -> None:
    ours, theirs = Authority("ours"), Authority("theirs")
    server = make_server(tls=TlsFiles(*ours.issue(tmp_path, "server"), client_ca_file=ours.write(tmp_path)))
    address = await server.start()
    ca_file = ours.write(tmp_path)
    good = channel_credentials(ca_file, *ours.issue(tmp_path, "client"))
    async with channel(address, good, lambda: metadata[0][1][7:]) as client:
        assert await client.unary_unary(UNARY)(b"x", timeout=5) == b"x"
    for bad in (
        channel_credentials(ca_file),
        channel_credentials(ca_file, *theirs.issue(tmp_path, "stranger")),
    ):
        async with channel(address, bad, lambda: metadata[0][1][7:]) as client:
            with pytest.raises(aio.AioRpcError) as caught:
                await client.unary_unary(UNARY)(b"x", timeout=5)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_plain_text_does_not_reach_a_tls_listener(
    make_server: Callable[..., Server], metadata: list[tuple[str, str]], tmp_path: Path
) -> None:
    server = make_server(tls=TlsFiles(*Authority("ours").issue(tmp_path, "server")))
    async with aio.insecure_channel(await server.start()) as client:
        with pytest.raises(aio.AioRpcError) as caught:
            await client.unary_unary(UNARY)(b"x", metadata=metadata, timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_services_token_is_read_again_when_its_file_changes(
    server: Server, world: World, tmp_path: Path, toy: Toy
) -> None:
    path = tmp_path / "service.token"
    first, second = world.add_tenant("first"), world.add_tenant("second")
    path.write_text(world.token(first, Role.OPERATOR) + "\n")
    async with channel(server.address, None, TokenFile(path)) as client:
        unary, stream = client.unary_unary(UNARY), client.unary_stream(STREAM)
        await unary(b"x")
        replacement = tmp_path / "new"
        replacement.write_text(world.token(second, Role.OPERATOR))
        replacement.replace(path)
        await unary(b"x")
        assert [call.caller.tenant for call in toy.calls] == [first.uid, second.uid]
        assert [answer async for answer in stream(b"y")] == [b"y"]


async def test_two_listeners_do_not_share_a_port_with_a_foreign_socket(
    make_server: Callable[..., Server],
) -> None:
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        with pytest.raises(FailedPrecondition, match="in use"):
            await make_server(ServerSettings(port=holder.getsockname()[1])).start()


@pytest.mark.parametrize(
    ("jitter", "age_ms"), [(0.0, 300_000), (1.0, 360_000), (-1.0, 240_000), (9.0, 360_000)]
)
def test_connections_end_at_their_age_give_or_take_a_fifth(jitter: float, age_ms: int) -> None:
    options = dict(_options(ServerSettings(max_connection_age_seconds=300), jitter))
    assert options["grpc.max_connection_age_ms"] == age_ms
    assert options["grpc.so_reuseport"] == 0
