"""What an operator relies on: health that says what is true; reflection and traces when they are wanted, else none."""

import asyncio
import contextlib
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_reflection.v1alpha import reflection_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from tidewire_testkit.whole.platform import UpProcess, running, until
from tidewire_testkit.whole.readback import publish, read_device, wait_visible

pytestmark = [pytest.mark.platform, pytest.mark.timeout(120)]

SERVICES = ("registry", "ingestion", "storage")


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Notes which service has sent a span of which RPC."""

    def __init__(self) -> None:
        self.spans: set[tuple[str, str]] = set()

    def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            names = {item.key: item.value.string_value for item in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans |= {(names["service.name"], span.name) for span in scope.spans}
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
def collector() -> Iterator[tuple[str, Collector]]:
    server, collector = grpc.server(futures.ThreadPoolExecutor(2)), Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}", collector
    server.stop(0).wait()


async def reflected(up: UpProcess, service: str) -> tuple[grpc.StatusCode, set[str]]:
    """How the question for the names of the services ends, and the names."""
    # One question and its answers: on the wire the same as a stream of questions that ends after the first.
    method = up.channel(up.address(service)).unary_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    call = method(reflection_pb2.ServerReflectionRequest(list_services=""), timeout=10)
    names: set[str] = set()
    with contextlib.suppress(grpc.aio.AioRpcError):
        async for answer in call:
            names |= {entry.name for entry in answer.list_services_response.service}
    return await call.code(), names


async def test_reflection_and_traces_are_there_when_they_are_asked_for(
    data_dir: Path, collector: tuple[str, Collector]
) -> None:
    endpoint, received = collector
    environ = {
        "TIDEWIRE_REFLECTION": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    async with running(data_dir, environ=environ) as up:
        for service in SERVICES:
            name = f"tidewire.{service}.v1.{service.capitalize()}Service"
            assert name in (await reflected(up, service))[1]
        access = await up.create_tenant("traced")
        await up.create_devices(access, "sensor")
        await publish(up, access, "sensor", {time.time_ns() // 1000: {"level": 1.0}})
        await read_device(up, access, "sensor")
        wanted = {
            ("tidewire-registry", "tidewire.registry.v1.RegistryService/CreateTenant"),
            ("tidewire-ingestion", "tidewire.ingestion.v1.IngestionService/PublishTelemetry"),
            ("tidewire-storage", "tidewire.storage.v1.StorageService/ReadSeries"),
        }

        async def arrived() -> bool:
            return wanted <= received.spans

        await until(arrived, "a span of each service has reached the collector")


async def test_reflection_is_off_by_itself(up: UpProcess) -> None:
    for service in SERVICES:
        assert await reflected(up, service) == (grpc.StatusCode.UNIMPLEMENTED, set())


def health_page(up: UpProcess, service: str) -> tuple[int, dict[str, str]]:
    """Status and content of /healthz."""
    address = up.endpoints(service)[0].metrics_address
    try:
        with urllib.request.urlopen(f"http://{address}/healthz", timeout=5) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


async def test_while_the_registry_is_silent_ingestion_is_not_healthy_and_refuses_for_now(
    data_dir: Path,
) -> None:
    async with running(data_dir) as up:
        access = await up.create_tenant("patient")
        await up.create_devices(access, "sensor")
        now = time.time_ns() // 1000
        await publish(up, access, "sensor", {now: {"level": 1.0}})
        assert health_page(up, "ingestion") == (200, {})
        registry = [endpoint.pid for endpoint in up.endpoints("registry")]
        for pid in registry:
            os.kill(pid, signal.SIGSTOP)
        try:

            async def red() -> bool:
                serving = await up.is_serving(up.address("ingestion"))
                status, failures = await asyncio.to_thread(health_page, up, "ingestion")
                return not serving and status == 503 and "registry" in failures.get("registry-replica", "")

            await until(red, "ingestion says that it cannot know who may publish", 30)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await publish(up, access, "sensor", {now + 1: {"level": 2.0}})
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "registry" in (caught.value.details() or "")
            assert await up.is_serving(up.address("storage")), "what is stored can be read all the while"
            await wait_visible(up, access, "sensor", {now: {"level": 1.0}})
        finally:
            for pid in registry:
                os.kill(pid, signal.SIGCONT)

        async def taken() -> bool:
            return (await publish(up, access, "sensor", {now + 2: {"level": 3.0}})).accepted_readings == 1

        await until(taken, "ingestion recovers by itself")
        await wait_visible(up, access, "sensor", {now: {"level": 1.0}, now + 2: {"level": 3.0}})
