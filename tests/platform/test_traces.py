"""A user's trace goes through every process: from the call, through the log, to the flush that makes it visible."""

import time
from pathlib import Path
from typing import Any

import pytest

from tidewire.ingestion.v1 import ingestion_pb2
from tidewire.type.v1 import event_pb2
from tidewire_testkit.otlp import Collector, attributes_of, collecting
from tidewire_testkit.whole.platform import running, until
from tidewire_testkit.whole.readback import batch_of, wait_visible

pytestmark = [pytest.mark.platform, pytest.mark.timeout(120)]

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"


async def test_one_trace_from_the_call_to_the_flush(data_dir: Path) -> None:
    with collecting() as collector:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "200"}
        async with running(data_dir, environ=environ) as up:
            access = await up.create_tenant("acme")
            await up.create_devices(access, "pump")
            rows = {time.time_ns() // 1000: {"level": 1.0}}
            await up.ingestion().PublishTelemetry(
                batch_of("pump", rows),
                metadata=(*access.metadata, ("traceparent", f"00-{TRACE}-{CALLER}-01")),
                timeout=10,
            )
            await wait_visible(up, access, "pump", rows)

            async def all_spans() -> dict[str, Any] | None:
                found = _of_trace(collector)
                return found if len(found) == 3 else None

            spans = await until(all_spans, "call, send and process")
    (called_by, called), (sent_by, sent), (processed_by, processed) = (
        spans["tidewire.ingestion.v1.IngestionService/PublishTelemetry"],
        spans["send tidewire.telemetry.v1"],
        spans["process tidewire.telemetry.v1"],
    )
    assert (called_by, sent_by, processed_by) == (
        "tidewire-ingestion",
        "tidewire-ingestion",
        "tidewire-storage",
    )
    assert called.parent_span_id.hex() == CALLER
    assert sent.parent_span_id == called.span_id
    assert processed.parent_span_id == sent.span_id
    assert processed.end_time_unix_nano > sent.start_time_unix_nano
    told = attributes_of(processed)
    assert told["messaging.system"] == ("tidewire" if up.backend.name == "embedded" else "kafka")
    assert told["messaging.consumer.group.name"] == "tidewire.storage"


async def test_one_trace_from_an_event_to_where_it_is_stored(data_dir: Path) -> None:
    with collecting() as collector:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "200"}
        async with running(data_dir, environ=environ) as up:
            access = await up.create_tenant("acme")
            await up.create_devices(access, "pump")
            event = event_pb2.Event(device="pump", type="pump.dry")
            event.time.GetCurrentTime()
            answer = await up.ingestion().PublishEvents(
                ingestion_pb2.PublishEventsRequest(events=[event]),
                metadata=(*access.metadata, ("traceparent", f"00-{TRACE}-{CALLER}-01")),
                timeout=10,
            )
            assert answer.accepted_events == 1

            async def all_spans() -> dict[str, Any] | None:
                found = _of_trace(collector)
                return found if len(found) == 3 else None

            spans = await until(all_spans, "call, send and process")
    (called_by, called), (sent_by, sent), (processed_by, processed) = (
        spans["tidewire.ingestion.v1.IngestionService/PublishEvents"],
        spans["send tidewire.events.v1"],
        spans["process tidewire.events.v1"],
    )
    assert (called_by, sent_by, processed_by) == (
        "tidewire-ingestion",
        "tidewire-ingestion",
        "tidewire-storage",
    )
    assert called.parent_span_id.hex() == CALLER
    assert sent.parent_span_id == called.span_id
    assert processed.parent_span_id == sent.span_id
    assert attributes_of(processed)["messaging.consumer.group.name"] == "tidewire.storage.events"


def _of_trace(collector: Collector) -> dict[str, tuple[str, Any]]:
    """Name → (service, span) of the test's trace."""
    found = {}
    for request in tuple(collector.requests):
        for resource in request.resource_spans:
            names = {item.key: item.value.string_value for item in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    if span.trace_id.hex() == TRACE:
                        found[span.name] = (names["service.name"], span)
    return found
