"""Waits until a service answers SERVING to gRPC's own health question. Used by `platform` and by the tests."""

import asyncio

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from tidewire_kit.datadir import DataDir
from tidewire_kit.endpoints import Endpoint, read_endpoints

POLL_SECONDS = 0.05

_CHECK = "/grpc.health.v1.Health/Check"


def port_of(address: str) -> int:
    """The port of `host:port`; 0 when there is none."""
    port = address.rpartition(":")[2]
    return int(port) if port.isdigit() else 0


def open_channel(address: str, tls_ca: bytes | None) -> grpc.aio.Channel:
    """A channel that tries again quickly; by TLS when `tls_ca` (PEM) is given."""
    options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 500)]
    if tls_ca is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(tls_ca), options=options)


async def is_serving(channel: grpc.aio.Channel, timeout_seconds: float = 1.0) -> bool:
    """Whether the server at the other end says SERVING now."""
    check = channel.unary_unary(
        _CHECK,
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    try:
        response = await check(health_pb2.HealthCheckRequest(), timeout=timeout_seconds)
    except grpc.aio.AioRpcError:
        return False
    return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


async def wait_serving(data_dir: DataDir, service: str, pid: int, tls_ca: bytes | None = None) -> Endpoint:
    """Waits, for as long as it takes, until process `pid` has written its endpoint and says SERVING."""
    while True:
        known = read_endpoints(data_dir).get(service, [])
        endpoint = next((entry for entry in known if entry.pid == pid), None)
        if endpoint is None:
            await asyncio.sleep(POLL_SECONDS)
            continue
        async with open_channel(endpoint.address, tls_ca) as channel:
            while not await is_serving(channel):
                await asyncio.sleep(POLL_SECONDS)
        return endpoint
