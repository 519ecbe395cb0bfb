"""The test of a service's access table, generated from its descriptor.

Each RPC is called with each role, and without a token, over a real server: who is in the table comes in, everybody
else is refused before the servicer is asked. A service's test is two lines:

    async def test_access() -> None:
        await walk_access_table(DESCRIPTOR, ACCESS)
"""

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc import aio

from tidewire_kit.clock import SystemClock
from tidewire_kit.errors import NotFound
from tidewire_kit.grpc import Access, Call, Guard, Server, ServerSettings, service_handler
from tidewire_kit.identity import USER_ROLES, Role
from tidewire_kit.observability.metrics import RpcMetrics, new_registry
from tidewire_testkit.directory import World


class _Inside:
    """A servicer of any shape that says only that a call came through."""

    def __getattr__(self, name: str) -> object:
        if not name[0].isupper():
            raise AttributeError(name)

        async def come_in(request: object, call: Call) -> None:
            raise NotFound(call.method)

        return come_in


async def walk_access_table(descriptor: ServiceDescriptor, access: Access) -> None:
    """AssertionError naming RPC and role where the server does not do as the table says."""
    world = World(SystemClock())
    tenant = world.add_tenant("acme")
    credential = world.add_credential(world.add_device(tenant, "pump"))
    tokens: dict[Role, str] = {role: world.token(tenant, role) for role in USER_ROLES}
    tokens[Role.DEVICE] = world.device_token(credential)
    guard = Guard(world.verifier, RpcMetrics(new_registry()))
    server = Server(ServerSettings(), None, guard)
    server.add(service_handler(descriptor, _Inside(), access, guard))
    async with aio.insecure_channel(await server.start()) as channel:
        try:
            for method in descriptor.methods:
                path = f"/{descriptor.full_name}/{method.name}"
                assert await _code(channel, path) is grpc.StatusCode.UNAUTHENTICATED, (
                    f"{method.name} without a token"
                )
                for role, token in tokens.items():
                    allowed = role in access[method.name]
                    expected = grpc.StatusCode.NOT_FOUND if allowed else grpc.StatusCode.PERMISSION_DENIED
                    got = await _code(channel, path, token)
                    assert got is expected, f"{method.name} by {role}: {got.name}, expected {expected.name}"
        finally:
            await server.stop(0)


async def _code(channel: aio.Channel, path: str, token: str = "") -> grpc.StatusCode:
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    # A unary request with streamed answers is, on the wire, what every kind of RPC accepts for its first message.
    method: aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(path)
    return await method(b"", metadata=metadata, timeout=30).code()
