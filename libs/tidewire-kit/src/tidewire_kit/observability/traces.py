"""OpenTelemetry, off unless OTEL_EXPORTER_OTLP_ENDPOINT is set.

The exporter is the optional extra `tidewire-kit[otel]`. Where it is wanted and missing, the process says so at its
start instead of sending nothing.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tidewire_kit.errors import InvalidArgument

Handler = Callable[[Any, Any], Awaitable[Any]]

ENDPOINT_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"

_exporting = False
_system = "tidewire"


def exporting() -> bool:
    """Whether spans are wanted. Decided at the start of the process, so ask once."""
    return _exporting


def messaging_system() -> str:
    """The log's name in OpenTelemetry's conventions: `kafka`, or `tidewire` for the embedded log."""
    return _system


def configure(service: str, environ: Mapping[str, str]) -> Callable[[], None]:
    """Sets up the export of traces if the environment asks for it; returns what flushes and ends it.

    Raises InvalidArgument naming the missing extra.
    """
    if not environ.get(ENDPOINT_VARIABLE):
        return _nothing
    global _exporting, _system
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise InvalidArgument(
            ENDPOINT_VARIABLE,
            "is set, but the OpenTelemetry exporter is not installed; install `tidewire-kit[otel]`, or unset it",
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": f"tidewire-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    _exporting = True
    _system = "kafka" if environ.get("TIDEWIRE_BACKEND") == "distributed" else "tidewire"
    return provider.shutdown


def traced(service: str, method: str, handle: Handler) -> Handler:
    """Returns the wire's handler of an RPC with a span around it, or unchanged when traces are off.

    The span continues the caller's `traceparent`. Call it once per method, at the start.
    """
    if not _exporting:
        return handle
    from opentelemetry import propagate, trace

    tracer = trace.get_tracer("tidewire_kit")
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}

    async def handle_traced(request: Any, context: Any) -> Any:
        carrier = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        with tracer.start_as_current_span(
            f"{service}/{method}",
            context=propagate.extract(carrier),
            kind=trace.SpanKind.SERVER,
            attributes=attributes,
        ):
            return await handle(request, context)

    return handle_traced


def _nothing() -> None:
    return None
