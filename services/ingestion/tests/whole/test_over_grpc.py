"""The service as a publisher meets it: a real server, real tokens and a real log on a disk that a test can fill."""

import asyncio
import dataclasses
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import pytest
from grpc import aio
from running_ingestion import PUBLISH, STREAM, Code, Running, batch_of, details_of, failure

from tidewire.ingestion.v1 import ingestion_pb2
from tidewire.ingestion.v1.ingestion_pb2_grpc import IngestionServiceStub
from tidewire.registry.v1 import registry_pb2, registry_pb2_grpc
from tidewire.registry.v1.resources_pb2 import Device, Tenant
from tidewire_ingestion.access import ACCESS
from tidewire_ingestion.main import build
from tidewire_ingestion.settings import Settings
from tidewire_kit.endpoints import Endpoint, add_endpoint
from tidewire_kit.ids import device_name, new_uid
from tidewire_kit.log.port import MessageLog
from tidewire_kit.service import running_service
from tidewire_kit.settings import CommonSettings
from tidewire_testkit.access_table import walk_access_table
from tidewire_testkit.polling import until


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    run = Running(tmp_path)
    await run.log.start()
    common = dataclasses.replace(CommonSettings(data_dir=tmp_path), partitions=4)
    settings = Settings(port=0, metrics_port=0)
    try:
        async with (
            running_service("ingestion", settings, common, build, log=run.log) as service,
            aio.insecure_channel(service.address) as channel,
        ):
            run.serves(service, channel)
            yield run
    finally:
        await run.log.close()


async def test_who_may_call() -> None:
    await walk_access_table(ingestion_pb2.DESCRIPTOR.services_by_name["IngestionService"], ACCESS)


# Bytes that are no batch


async def test_truncated_and_random_bytes_name_a_field_and_harm_nobody_else(running: Running) -> None:
    running.world.add_device(running.acme, "pump")
    other = running.world.add_tenant("other")
    running.world.add_device(other, "fan")
    raw = running.channel.unary_unary(PUBLISH)
    good = batch_of("pump", 1.0, 2.0, batch_id="6a2b1f7e-3b0e-4e52-8f83-0d5c8a1f2c33").SerializeToString()
    rng = np.random.default_rng(11)
    bad = [good[:length] for length in range(0, len(good), 5)]
    bad += [rng.bytes(int(size)) for size in rng.integers(1, 200, 40)]
    neighbour = running.stub.StreamTelemetry(metadata=running.metadata(other))
    for number, payload in enumerate(bad):
        code, told = await failure(raw(payload, metadata=running.metadata(), timeout=20))
        assert code is Code.INVALID_ARGUMENT
        assert told["field"]
        if number % 10 == 0:
            await neighbour.write(batch_of("fan", float(number)))
            assert (await neighbour.read()).accepted_readings == 1
    neighbour.cancel()
    answer = ingestion_pb2.PublishTelemetryResponse.FromString(
        await raw(good, metadata=running.metadata(), timeout=20)
    )
    assert answer.accepted_readings == 2
    assert await running.logged_values() == sorted([1.0, 2.0, *map(float, range(0, len(bad), 10))])


async def test_a_stream_outlives_a_bad_batch_and_answers_in_order(running: Running) -> None:
    running.world.add_device(running.acme, "pump")
    call = running.channel.stream_stream(STREAM)(metadata=running.metadata())
    unequal = batch_of("pump", 1.0, 2.0, sequence=2)
    unequal.frames[0].values.append(3.0)
    far = batch_of("pump", sequence=3)
    far.frames[0].device_index.append(9)
    for payload in (
        batch_of("pump", 10.0, sequence=1).SerializeToString(),
        unequal.SerializeToString(),
        far.SerializeToString(),
        b"\xff" * 20,
        batch_of("pump", 20.0, sequence=5).SerializeToString(),
    ):
        await call.write(payload)
    answers = [ingestion_pb2.PublishTelemetryResponse.FromString(await call.read()) for _ in range(5)]
    assert [answer.accepted_readings for answer in answers] == [1, 0, 0, 0, 1]
    assert [details_of(answer.status) for answer in answers[1:4]] == [
        {"reason": "COLUMN_LENGTHS", "field": "frames[0].values"},
        {"reason": "DEVICE_INDEX_RANGE", "field": "frames[0].device_index"},
        {"reason": "MALFORMED_MESSAGE", "field": "message"},
    ]
    assert answers[4].missed_batches == 3, "what was refused as a whole was not counted as come"
    await call.done_writing()
    assert await call.read() is aio.EOF
    assert await call.code() is Code.OK
    assert await running.logged_values() == [10.0, 20.0]


# A block on an open stream, and a stream that says nothing


async def test_a_deleted_tenant_ends_its_open_streams_even_silent_ones(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidewire_ingestion.grpc_api.RECHECK_SECONDS", 0.05)
    running.world.add_device(running.acme, "pump")
    silent = running.stub.StreamTelemetry(metadata=running.metadata())
    await silent.write(batch_of())
    assert (await silent.read()).accepted_readings == 1
    running.world.delete_tenant(running.acme)
    again = running.world.add_tenant("acme")
    assert (await failure(silent.read()))[0] is Code.UNAUTHENTICATED
    assert (await failure(running.publish(batch_of(), running.acme)))[0] is Code.UNAUTHENTICATED
    running.world.add_device(again, "pump")
    assert (await running.publish(batch_of("pump", 5.0), again)).accepted_readings == 1
    tenants = [table.tenant for table in await running.tables()]
    assert sorted(tenants) == sorted([running.acme.uid, again.uid]), "each under its own uid"


async def test_a_tenants_block_holds_for_unary_calls_too(running: Running) -> None:
    running.world.add_device(running.acme, "pump")
    running.world.set_tenant_state(running.acme, Tenant.BLOCKED)
    code, told = await failure(running.publish(batch_of()))
    assert (code, told["reason"]) == (Code.UNAUTHENTICATED, "TENANT_BLOCKED")
    running.world.set_tenant_state(running.acme, Tenant.ACTIVE)
    assert (await running.publish(batch_of())).accepted_readings == 1


# A disk without room


async def test_a_full_disk_refuses_with_a_delay_turns_health_red_and_recovers_by_itself(
    running: Running,
) -> None:
    running.world.add_device(running.acme, "pump")
    health = running.service.server.health
    assert (await running.publish(batch_of("pump", 0.0))).accepted_readings == 1
    running.free_bytes = 100
    accepted = [0.0]

    async def refused() -> tuple[grpc.StatusCode, dict[str, Any]] | None:
        value = float(len(accepted))
        try:
            await running.publish(batch_of("pump", value))
        except aio.AioRpcError:
            return await failure(running.publish(batch_of("pump", -1.0)))
        accepted.append(value)
        return None

    told = await until(refused, message="refused")
    assert told is not None
    assert told[0] in {Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED}
    assert (told[1]["reason"], told[1]["delay"]) == ("LOG_FULL", 2.5)
    stream = running.stub.StreamTelemetry(metadata=running.metadata())
    await stream.write(batch_of("pump", -1.0))
    assert details_of((await stream.read()).status)["reason"] == "LOG_FULL"
    await health.poll()
    assert "log-writable" in health.failures
    running.free_bytes = 1 << 40
    await stream.write(batch_of("pump", 77.0))
    assert (await stream.read()).accepted_readings == 1
    stream.cancel()
    await health.poll()
    assert "log-writable" not in health.failures
    assert await running.logged_values() == [*accepted, 77.0], "what was refused is not there"


# Devices that the replica has not heard of


class Registry(registry_pb2_grpc.RegistryServiceServicer):
    """Answers for the devices that it was given, when it is let."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.devices: dict[str, bytes] = {}
        self.go_on = asyncio.Event()

    async def ResolveDevices(self, request: Any, context: Any) -> Any:
        self.asked.append(list(request.device_ids))
        await self.go_on.wait()
        return registry_pb2.ResolveDevicesResponse(
            devices=[
                registry_pb2.ResolvedDevice(
                    device=Device(name=device_name("acme", each), uid=uid.hex(), state=Device.ACTIVE),
                    revision=1,
                )
                for each, uid in self.devices.items()
                if each in request.device_ids
            ]
        )


async def test_a_device_not_heard_of_is_asked_for_once_whoever_needs_it(running: Running) -> None:
    code, told = await failure(running.publish(batch_of("new")))
    assert (code, told["reason"]) == (Code.UNAVAILABLE, "REGISTRY_UNAVAILABLE")
    registry, server = Registry(), aio.server()
    registry_pb2_grpc.add_RegistryServiceServicer_to_server(registry, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        add_endpoint(running.data_dir, "registry", Endpoint(f"127.0.0.1:{port}", "", os.getpid()))
        registry.devices["new"] = bytes(new_uid())
        calls = [asyncio.ensure_future(running.publish(batch_of("new", float(n)))) for n in range(20)]
        await until(lambda: registry.asked)
        registry.go_on.set()
        assert sum(answer.accepted_readings for answer in await asyncio.gather(*calls)) == 20
        assert registry.asked == [["new"]]
        began = time.monotonic()
        ghosts = [await running.publish(batch_of("ghost")) for _ in range(3)]
        assert {answer.refusals[0].reason for answer in ghosts} == {ingestion_pb2.DEVICE_UNKNOWN}
        asked = registry.asked[1:]
        assert {tuple(devices) for devices in asked} == {("ghost",)}
        assert len(asked) <= 2 + int(time.monotonic() - began), "at most once a second"
        assert (await running.publish(batch_of("new"))).accepted_readings == 1
    finally:
        await server.stop(0)


# Blocks and expiry on open streams, sizes, and stopping


async def test_a_device_that_is_blocked_is_refused_on_an_open_stream_of_its_gateway(running: Running) -> None:
    gateway = running.world.add_device(running.acme, "gateway")
    sensor = running.world.add_device(running.acme, "sensor", ancestors=[gateway.uid])
    credential = running.world.add_credential(gateway)
    call = running.stub.StreamTelemetry(
        metadata=(("authorization", f"Bearer {running.world.device_token(credential)}"),)
    )
    await call.write(batch_of("sensor"))
    assert (await call.read()).accepted_readings == 1
    running.world.set_device_state(sensor, Device.BLOCKED)
    await call.write(batch_of("sensor"))
    refused = await call.read()
    assert [refusal.reason for refusal in refused.refusals] == [ingestion_pb2.DEVICE_BLOCKED]
    await call.write(batch_of("gateway", 2.0))
    assert (await call.read()).accepted_readings == 1
    running.world.set_device_state(gateway, Device.BLOCKED)
    await call.write(batch_of("gateway", 3.0))
    code, told = await failure(call.read())
    assert (code, told["reason"]) == (Code.UNAUTHENTICATED, "DEVICE_BLOCKED")
    assert await running.logged_values() == [1.0, 2.0]


async def test_more_than_four_mebibytes_are_refused_with_the_limit(running: Running) -> None:
    running.world.add_device(running.acme, "pump")
    options = [("grpc.max_send_message_length", -1)]
    large = batch_of("pump", *([1.0] * 270_000))
    async with aio.insecure_channel(running.service.address, options=options) as channel:
        stub = IngestionServiceStub(channel)
        code, told = await failure(stub.PublishTelemetry(large, metadata=running.metadata(), timeout=20))
        assert (code, told["reason"]) == (Code.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
        call = stub.StreamTelemetry(metadata=running.metadata())
        await call.write(batch_of("pump", 7.0))
        await call.write(large)
        assert (await call.read()).accepted_readings == 1, "what came before it is answered"
        assert (await failure(call.read()))[0] is Code.RESOURCE_EXHAUSTED
    most = batch_of("pump", *([1.0] * 260_000))
    assert most.ByteSize() < 4 << 20
    assert (await running.publish(most)).accepted_readings == 260_000


class HeldLog:
    """A log whose commits do not end before `gate` is open."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self.gate = asyncio.Event()
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def produce(self, topic: str, records: Any) -> list[int]:
        self.calls += 1
        await self.gate.wait()
        offsets: list[int] = await self._log.produce(topic, records)
        return offsets


async def test_stopping_acknowledges_what_it_has_and_refuses_the_rest(tmp_path: Path) -> None:
    run = Running(tmp_path)
    await run.log.start()
    held = HeldLog(run.log)
    common = dataclasses.replace(CommonSettings(data_dir=tmp_path), partitions=4)
    stop = asyncio.Event()
    serving = asyncio.Event()

    async def serve() -> None:
        async with (
            running_service(
                "ingestion", Settings(port=0, metrics_port=0), common, build, log=cast("MessageLog", held)
            ) as service,
            aio.insecure_channel(service.address) as channel,
        ):
            run.serves(service, channel)
            serving.set()
            await stop.wait()

    server = asyncio.create_task(serve())
    try:
        await serving.wait()
        run.world.add_device(run.acme, "pump")
        async with aio.insecure_channel(run.service.address) as channel:
            stub: Any = IngestionServiceStub(channel)
            unary = asyncio.ensure_future(
                stub.PublishTelemetry(batch_of("pump", 1.0), metadata=run.metadata())
            )
            await until(lambda: held.calls == 1)
            stream = stub.StreamTelemetry(metadata=run.metadata())
            await stream.write(batch_of("pump", 2.0))
            await until(lambda: held.calls == 2, message="both are on their way to the disk")
            stop.set()
            await until(lambda: "drain" in run.service.server.health.failures)
            code, told = await failure(stub.PublishTelemetry(batch_of("pump", 3.0), metadata=run.metadata()))
            assert (code, told["reason"]) == (Code.UNAVAILABLE, "DRAINING")
            held.gate.set()
            assert (await unary).accepted_readings == 1
            assert (await stream.read()).accepted_readings == 1
            code, told = await failure(stream.read())
            assert (code, told["reason"]) == (Code.UNAVAILABLE, "DRAINING")
        await server
        assert await run.logged_values() == [1.0, 2.0]
    finally:
        held.gate.set()
        stop.set()
        await asyncio.gather(server, return_exceptions=True)
        await run.log.close()
