"""Whether services serve, asked of each of their addresses by the standard gRPC health protocol."""

import asyncio
import time
from dataclasses import dataclass

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from tidewire_client.connect import AsyncConnection, is_loopback, target_of
from tidewire_client.status import from_rpc_error


@dataclass(frozen=True, slots=True)
class Health:
    """Health of one address: `status` is `SERVING`, `NOT_SERVING`, or `UNREACHABLE` with the reason in `detail`."""

    service: str
    address: str
    status: str
    round_trip_seconds: float
    detail: str = ""

    @property
    def serving(self) -> bool:
        """Whether it serves."""
        return self.status == "SERVING"


async def check(
    connection: AsyncConnection, service: str, address: str, timeout_seconds: float = 3.0
) -> Health:
    """Asks one address for its health. Never raises for the address's sake."""
    channel = connection.open_channel(target_of((address,)), loopback=is_loopback(address))
    started = time.monotonic()
    try:
        answer = await channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )(health_pb2.HealthCheckRequest(), timeout=timeout_seconds)
    except grpc.aio.AioRpcError as error:
        said = from_rpc_error(error, service, address)
        return Health(service, address, "UNREACHABLE", time.monotonic() - started, said.message)
    finally:
        await channel.close()
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return Health(service, address, status, time.monotonic() - started)


async def check_all(connection: AsyncConnection, timeout_seconds: float = 3.0) -> list[Health]:
    """Health of every service the registry names. Raises Unavailable when the registry cannot be asked."""
    services = await connection.services()
    return list(
        await asyncio.gather(
            *(
                check(connection, service, address, timeout_seconds)
                for service, addresses in services.items()
                for address in addresses
            )
        )
    )
