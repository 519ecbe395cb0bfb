"""The wrapper around servicers, over a real server: default deny, errors, limits, deadlines, metrics."""

import asyncio
import dataclasses

import grpc
import pytest
from google.rpc import error_details_pb2 as details
from google.rpc.status_pb2 import Status
from grpc import aio

from tidewire.registry.v1 import registry_pb2
from tidewire_kit.errors import (
    DeadlineExceeded,
    PermissionDenied,
    TidewireError,
    Unauthenticated,
    Unavailable,
)
from tidewire_kit.grpc import (
    MAX_MESSAGE_BYTES,
    Call,
    Guard,
    Server,
    ServerSettings,
    from_rpc_error,
    service_handler,
)
from tidewire_kit.grpc.handler import _Door
from tidewire_kit.grpc.status import DETAILS_KEY, INTERNAL_TEXT
from tidewire_kit.identity import Caller, Role
from tidewire_kit.ids import TenantId, new_uid
from tidewire_testkit.clock import ManualClock
from tidewire_testkit.directory import TestTenant, World, tenant_change
from tidewire_testkit.polling import until
from tidewire_testkit.toy_service import ACCESS, DESCRIPTOR, RAW, STREAM, UNARY, Toy


@pytest.fixture
def tenant(world: World) -> TestTenant:
    return world.add_tenant("acme")


@pytest.fixture
def metadata(world: World, tenant: TestTenant) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {world.token(tenant, Role.OPERATOR)}")]


async def failure(call: aio.UnaryUnaryCall) -> TidewireError:
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value, "toy")


async def test_bytes_go_in_and_out(client: aio.Channel, metadata: list[tuple[str, str]], toy: Toy) -> None:
    assert await client.unary_unary(UNARY)(b"hello", metadata=metadata, timeout=10) == b"hello"
    assert toy.calls[0].caller.tenant_id == "acme"
    assert toy.calls[0].method == "PublishTelemetry"


async def test_no_token_and_a_bad_one_are_unauthenticated(client: aio.Channel) -> None:
    unary = client.unary_unary(UNARY)
    error = await failure(unary(b"x"))
    assert isinstance(error, Unauthenticated)
    assert error.reason == "TOKEN_MISSING"
    assert "authorization: Bearer TOKEN" in error.message
    assert (
        await failure(unary(b"x", metadata=[("authorization", "Bearer a.b.c")]))
    ).reason == "TOKEN_MALFORMED"


async def test_a_tenant_that_is_heard_of_a_moment_later_is_let_in(
    client: aio.Channel, world: World, toy: Toy
) -> None:
    late = TestTenant(TenantId(new_uid()), "late")
    bearer = [("authorization", f"Bearer {world.token(late, Role.OPERATOR)}")]
    call = client.unary_unary(UNARY)(b"x", metadata=bearer, timeout=10)
    asyncio.get_running_loop().call_later(0.05, world.directory.apply, tenant_change(late))
    assert await call == b"x"
    assert toy.calls[0].caller.tenant == late.uid
    unheard = [
        ("authorization", f"Bearer {world.token(TestTenant(TenantId(new_uid()), 'no'), Role.OPERATOR)}")
    ]
    assert (
        await failure(client.unary_unary(UNARY)(b"x", metadata=unheard, timeout=10))
    ).reason == "TENANT_UNKNOWN"


@pytest.mark.parametrize("roles", [[Role.READER], [Role.SERVICE], [Role.TENANT_ADMIN, Role.READER]])
async def test_a_role_that_is_not_in_the_table_is_refused(
    client: aio.Channel, world: World, tenant: TestTenant, toy: Toy, roles: list[Role]
) -> None:
    bearer = [("authorization", f"Bearer {world.token(tenant, *roles)}")]
    error = await failure(client.unary_unary(UNARY)(b"x", metadata=bearer))
    assert isinstance(error, PermissionDenied)
    assert "operator" in error.message
    assert toy.calls == []
    stream = client.stream_stream(STREAM)(metadata=bearer)
    with pytest.raises(aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_an_rpc_without_an_entry_is_found_at_the_start(guard: Guard) -> None:
    some = {"PublishTelemetry": frozenset({Role.OPERATOR})}
    with pytest.raises(TypeError, match="StreamTelemetry"):
        service_handler(DESCRIPTOR, Toy(), some, guard, raw=RAW)
    with pytest.raises(TypeError, match="Publish"):
        service_handler(DESCRIPTOR, Toy(), {**ACCESS, "Publish": frozenset()}, guard, raw=RAW)
    with pytest.raises(TypeError, match="lacks the RPCs PublishEvents, PublishTelemetry"):
        service_handler(DESCRIPTOR, object(), ACCESS, guard)


async def test_an_unknown_method_is_unimplemented_even_with_a_token(
    client: aio.Channel, metadata: list[tuple[str, str]]
) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await client.unary_unary("/tidewire.ingestion.v1.IngestionService/Backdoor")(b"", metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_an_error_of_ours_arrives_with_its_details(
    client: aio.Channel, metadata: list[tuple[str, str]]
) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await client.unary_unary(UNARY)(b"invalid", metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = Status.FromString(dict(caught.value.trailing_metadata())[DETAILS_KEY])  # type: ignore[arg-type]
    bad = details.BadRequest()
    assert status.details[1].Unpack(bad)
    assert bad.field_violations[0].field == "frames[0]"


async def test_a_fault_of_ours_shows_nothing_but_a_trace_id_that_is_in_the_log(
    client: aio.Channel, metadata: list[tuple[str, str]], capfd: pytest.CaptureFixture[str]
) -> None:
    trace = "0123456789abcdef0123456789abcdef"
    traced = [*metadata, ("traceparent", f"00-{trace}-0123456789abcdef-01")]
    with pytest.raises(aio.AioRpcError) as caught:
        await client.unary_unary(UNARY)(b"bug", metadata=traced)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details() == INTERNAL_TEXT
    assert from_rpc_error(caught.value, "toy").metadata["trace_id"] == trace
    printed = "".join(capfd.readouterr())
    assert printed.count("rpc_failed") == 1
    assert trace in printed
    assert "ZeroDivisionError" in printed
    assert metadata[0][1] not in printed


async def test_a_message_over_the_limit_names_it_and_the_remedy(
    client: aio.Channel, metadata: list[tuple[str, str]]
) -> None:
    unary = client.unary_unary(UNARY)
    whole = b"x" * MAX_MESSAGE_BYTES
    with pytest.raises(aio.AioRpcError) as caught:
        await unary(whole + b"x", metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "4 MiB" in caught.value.details()  # type: ignore[operator]
    assert from_rpc_error(caught.value, "toy").reason == "MESSAGE_TOO_LARGE"
    with pytest.raises(aio.AioRpcError) as caught:
        await unary(whole * 3, metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await unary(b"still there", metadata=metadata) == b"still there"


async def test_a_message_over_the_limit_ends_its_stream_only(
    client: aio.Channel, metadata: list[tuple[str, str]]
) -> None:
    bad, good = (client.stream_stream(STREAM)(metadata=metadata) for _ in range(2))
    await good.write(b"1")
    assert await good.read() == b"1"
    await bad.write(b"x" * (MAX_MESSAGE_BYTES + 1))
    with pytest.raises(aio.AioRpcError) as caught:
        await bad.read()
    assert from_rpc_error(caught.value, "toy").reason == "MESSAGE_TOO_LARGE"
    await good.write(b"2")
    assert await good.read() == b"2"
    good.cancel()


async def test_too_short_a_deadline_is_refused_before_anything_is_done(guard: Guard, toy: Toy) -> None:
    class Hurried:
        def time_remaining(self) -> float:
            return 0.004

    door = _Door(DESCRIPTOR.methods_by_name["PublishTelemetry"], frozenset(), guard)
    with pytest.raises(DeadlineExceeded):
        door.enter(Hurried())  # type: ignore[arg-type]


async def test_a_cancelled_call_cancels_its_work(
    client: aio.Channel, metadata: list[tuple[str, str]], toy: Toy, guard: Guard
) -> None:
    call = client.unary_unary(UNARY)(b"wait", metadata=metadata)
    await until(lambda: toy.calls)
    call.cancel()
    await until(lambda: toy.cancelled == 1)
    await until(lambda: guard.in_flight == 0)


async def test_a_block_reaches_an_open_stream(
    client: aio.Channel, world: World, tenant: TestTenant, metadata: list[tuple[str, str]]
) -> None:
    stream = client.stream_stream(STREAM)(metadata=metadata)
    await stream.write(b"1")
    assert await stream.read() == b"1"
    world.delete_tenant(tenant)
    await stream.write(b"2")
    with pytest.raises(aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_calls_are_counted_by_code(
    client: aio.Channel, metadata: list[tuple[str, str]], guard: Guard, world: World
) -> None:
    unary = client.unary_unary(UNARY)
    await unary(b"x", metadata=metadata)
    await failure(unary(b"invalid", metadata=metadata))
    await failure(unary(b"x"))
    method = guard.metrics.method(DESCRIPTOR.full_name, "PublishTelemetry")
    await until(lambda: sum(method.buckets) == 3)  # a refused call's duration is noted after its answer
    requests, seconds = guard.metrics.collect()
    own = {"grpc_service": DESCRIPTOR.full_name, "grpc_method": "PublishTelemetry"}
    assert {
        sample.labels["grpc_code"]: sample.value
        for sample in requests.samples
        if sample.labels["grpc_method"] == "PublishTelemetry"
    } == {"OK": 1, "INVALID_ARGUMENT": 1, "UNAUTHENTICATED": 1}
    durations = {
        (sample.name.removeprefix(seconds.name), sample.labels.get("le")): sample.value
        for sample in seconds.samples
        if sample.labels.items() >= own.items()
    }
    assert durations["_count", None] == durations["_bucket", "+Inf"] == durations["_bucket", "10.0"] == 3
    assert durations["_sum", None] > 0
    buckets = [count for (name, _), count in durations.items() if name == "_bucket"]
    assert buckets == sorted(buckets)


class _Registry:
    """Parsed messages instead of bytes, and an answer in many parts."""

    def __getattr__(self, name: str) -> object:
        if not name[0].isupper():
            raise AttributeError(name)

        async def answer(request: registry_pb2.GetTenantRequest, call: Call) -> object:
            from tidewire.registry.v1.resources_pb2 import Tenant

            return Tenant(name=request.name, uid=call.tenant_for(request.name).hex())

        return answer


async def test_parsed_messages_and_names_of_other_tenants(
    world: World, guard: Guard, tenant: TestTenant
) -> None:
    descriptor = registry_pb2.DESCRIPTOR.services_by_name["RegistryService"]
    access = {method.name: frozenset({Role.READER, Role.PLATFORM_ADMIN}) for method in descriptor.methods}
    server = Server(ServerSettings(), None, guard)
    server.add(service_handler(descriptor, _Registry(), access, guard))
    await server.start()
    world.add_tenant("other")
    from tidewire.registry.v1.resources_pb2 import Tenant

    try:
        async with aio.insecure_channel(server.address) as channel:
            get = channel.unary_unary("/tidewire.registry.v1.RegistryService/GetTenant")
            bearer = [("authorization", f"Bearer {world.token(tenant, Role.READER)}")]
            request = registry_pb2.GetTenantRequest(name="tenants/acme/devices/x")
            answer = Tenant.FromString(await get(request.SerializeToString(), metadata=bearer))
            assert answer.uid == tenant.uid.hex()
            # The same refusal whether the other tenant exists or not.
            messages = set()
            for name in ("tenants/other", "tenants/nobody", "tenants", "", "tenants/", "acme", "tenant/acme"):
                request = registry_pb2.GetTenantRequest(name=name)
                error = await failure(get(request.SerializeToString(), metadata=bearer))
                assert isinstance(error, PermissionDenied)
                messages.add(error.message)
            assert len(messages) == 1
            error = await failure(get(b"\xff\xff\xff\xff", metadata=bearer))
            assert error.reason == "MALFORMED_MESSAGE"
            assert "GetTenantRequest" in error.message
            admin = [("authorization", f"Bearer {world.token(None, Role.PLATFORM_ADMIN)}")]
            assert (await failure(get(b"", metadata=admin))).reason == "NO_TENANT"
    finally:
        await server.stop(0)


def test_a_call_without_a_verifiers_caller_still_expires(world: World, clock: ManualClock) -> None:
    tenant = TenantId(bytes(16))
    caller = Caller(
        "user",
        "eve",
        frozenset(),
        tenant,
        "acme",
        None,
        "",
        bytes(16),
        expires_at_us=clock.now_us() + 1_000_000,
    )
    call = Call(caller, "M", None, world.verifier)  # type: ignore[arg-type]
    call.check()
    with pytest.raises(Unauthenticated):
        Call(dataclasses.replace(caller, expires_at_us=0), "M", None, world.verifier).check()  # type: ignore[arg-type]


async def test_refusals_while_draining_say_when_to_come_back(
    client: aio.Channel, metadata: list[tuple[str, str]], guard: Guard, toy: Toy
) -> None:
    guard.drain()
    error = await failure(client.unary_unary(UNARY)(b"x", metadata=metadata))
    assert isinstance(error, Unavailable)
    assert error.reason == "DRAINING"
    assert error.retry_delay_seconds == 0.5
    assert toy.calls == []
