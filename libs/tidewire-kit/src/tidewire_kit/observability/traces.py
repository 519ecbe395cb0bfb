"""OpenTelemetry, off unless OTEL_EXPORTER_OTLP_ENDPOINT is set.

The exporter is the optional extra `tidewire-kit[otel]`. Where it is wanted and missing, the process says so at its
start instead of sending nothing.
"""

from collections.abc import Callable, Mapping

from tidewire_kit.errors import InvalidArgument

ENDPOINT_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"


def configure(service: str, environ: Mapping[str, str]) -> Callable[[], None]:
    """Sets up the export of traces if the environment asks for it; returns what flushes and ends it.

    Raises InvalidArgument naming the missing extra.
    """
    if not environ.get(ENDPOINT_VARIABLE):
        return _nothing
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
    return provider.shutdown


def _nothing() -> None:
    return None
