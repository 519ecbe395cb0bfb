"""A bare grpc.aio server that answers each request with its own bytes: what gRPC alone costs.

Started by `bench_ingestion` as a process of its own; prints `host:port` once it serves. With the argument `uvloop` it
runs on that event loop, as the services do, else on the one that a bare server has.
"""

import asyncio
import sys

import grpc
import uvloop


async def _unary(request: bytes, context: object) -> bytes:
    return request


async def _stream(requests, context):
    async for request in requests:
        yield request


async def main() -> None:
    """Serves until killed."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 8 << 20)])
    handlers = {
        "PublishTelemetry": grpc.unary_unary_rpc_method_handler(_unary),
        "StreamTelemetry": grpc.stream_stream_rpc_method_handler(_stream),
    }
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("tidewire.ingestion.v1.IngestionService", handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    (uvloop if "uvloop" in sys.argv[1:] else asyncio).run(main())
