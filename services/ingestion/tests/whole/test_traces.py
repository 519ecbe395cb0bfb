"""A trace goes from the publisher's call through the log to the owner's durable effect, in one piece."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tidewire_kit.observability.traces import ENDPOINT_VARIABLE
from tidewire_testkit.otlp import Collector, attributes_of, collecting
from tidewire_testkit.polling import until_sync

TRACE = "0123456789abcdef0123456789abcdef"
CALLER = "0123456789abcdef"
PROGRAM = textwrap.dedent(f"""
    import asyncio, dataclasses, os, sys
    from pathlib import Path

    from grpc import aio

    from tidewire.ingestion.v1.ingestion_pb2_grpc import IngestionServiceStub
    from tidewire.type.v1.telemetry_pb2 import TelemetryBatch, TelemetryFrame
    from tidewire_ingestion.main import build
    from tidewire_ingestion.settings import Settings
    from tidewire_kit import topics
    from tidewire_kit.clock import SystemClock
    from tidewire_kit.datadir import open_data_dir
    from tidewire_kit.identity import Role
    from tidewire_kit.observability import traces
    from tidewire_kit.owner import NO_ENTRIES, PartitionOwner, Progress
    from tidewire_kit.service import running_service
    from tidewire_kit.settings import CommonSettings
    from tidewire_testkit.directory import World, key_change
    from tidewire_testkit.polling import until

    class Store:
        def __init__(self):
            self.offsets, self.records = {{}}, []

        async def load(self, partitions):
            return {{partition: Progress(None, NO_ENTRIES) for partition in partitions}}

        def take(self, record):
            self.records.append(record)
            self.offsets[record.partition] = record.offset + 1

        async def settle(self):
            return dict(self.offsets)

        async def flush(self, partitions):
            return dict(self.offsets)

        async def forget(self, partitions):
            pass

        def obstacle(self):
            return None

    async def main(root):
        open_data_dir(root).service_token_file.write_text("token")
        common = dataclasses.replace(CommonSettings(data_dir=root), partitions=4)
        async with (
            running_service("ingestion", Settings(port=0, metrics_port=0), common, build) as service,
            aio.insecure_channel(service.address) as channel,
        ):
            world = World(SystemClock(), 4)
            world.directory = service.directory
            service.directory.apply(key_change(world.signer))
            world.heartbeat()
            acme = world.add_tenant("acme")
            world.add_device(acme, "pump")
            store = Store()
            owner = PartitionOwner(
                service.log, SystemClock(), store, group="tidewire.storage", topic=topics.TELEMETRY
            )
            await owner.start()
            now = SystemClock().now_us()
            frame = TelemetryFrame(metrics=["level"], time_unix_us=[now], values=[1.0])
            await IngestionServiceStub(channel).PublishTelemetry(
                TelemetryBatch(devices=["pump"], frames=[frame]),
                metadata=(
                    ("authorization", f"Bearer {{world.token(acme, Role.OPERATOR)}}"),
                    ("traceparent", "00-{TRACE}-{CALLER}-01"),
                ),
            )
            await until(lambda: store.records)
            await owner.close()
            partition = store.records[0].partition
            (record,) = await service.log.read(partition[0], partition[1], 0)
            print(",".join(record.headers))

    stop = traces.configure("ingestion", os.environ)
    asyncio.run(main(Path(sys.argv[1])))
    stop()
""")


def run(root: Path, **environ: str) -> str:
    """Runs the program; returns the names of the headers of the record that it wrote."""
    others = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(root)],
        env={**others, **environ},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_one_trace_from_the_call_to_the_durable_effect(tmp_path: Path) -> None:
    with collecting() as collector:
        assert run(tmp_path, **{ENDPOINT_VARIABLE: collector.endpoint}) == "traceparent"
        spans = until_sync(lambda: _by_name(collector), message="three spans")
    called = spans["tidewire.ingestion.v1.IngestionService/PublishTelemetry"]
    sent, processed = spans["send tidewire.telemetry.v1"], spans["process tidewire.telemetry.v1"]
    assert {span.trace_id.hex() for span in (called, sent, processed)} == {TRACE}
    assert called.parent_span_id.hex() == CALLER
    assert sent.parent_span_id == called.span_id
    assert processed.parent_span_id == sent.span_id
    told = attributes_of(processed)
    assert (told["messaging.system"], told["messaging.kafka.offset"]) == ("tidewire", 0)
    assert told["messaging.destination.name"] == "tidewire.telemetry.v1"
    assert told["messaging.destination.partition.id"] in {"0", "1", "2", "3"}


def _by_name(collector: Collector) -> dict[str, Any] | None:
    spans = {span.name: span for span in collector.spans()}
    return spans if len(spans) >= 3 else None


def test_without_traces_records_carry_no_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENDPOINT_VARIABLE, raising=False)
    assert run(tmp_path) != "traceparent"
