"""What ingestion's tests share: a world with tenants and devices, a log that keeps records in memory, batches."""

import asyncio
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest

from tidewire.type.v1.telemetry_pb2 import TelemetryBatch, TelemetryFrame
from tidewire_ingestion.application.publish import PublishTelemetry
from tidewire_ingestion.application.resolution import Resolution
from tidewire_ingestion.domain import Outcome, Reason
from tidewire_kit.clock import Clock
from tidewire_kit.identity import Caller, Role
from tidewire_kit.ids import TenantId
from tidewire_kit.log.port import Outgoing
from tidewire_kit.telemetry.admitted import Admitted
from tidewire_kit.telemetry.batch import RawBatch
from tidewire_kit.telemetry.producer import TelemetryProducer
from tidewire_kit.telemetry.record import Record, decode_record
from tidewire_kit.telemetry.wire import read_batch
from tidewire_testkit.clock import ManualClock
from tidewire_testkit.directory import TestTenant, World

PARTITIONS = 4


class MemoryLog:
    """As much of a log as the producer needs; a test may hold commits back and make them fail."""

    def __init__(self) -> None:
        self.calls: list[list[Outgoing]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.errors: list[Exception] = []

    def partitions(self, topic: str) -> int:
        return PARTITIONS

    async def produce(self, topic: str, records: Sequence[Outgoing]) -> list[int]:
        number = len(self.calls)
        self.calls.append(list(records))
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        return [number] * len(records)

    def records(self) -> list[tuple[int, Record]]:
        """(partition, record) of every call, in order."""
        return [
            (outgoing.partition, decode_record(b"".join(outgoing.value)))
            for call in self.calls
            for outgoing in call
        ]


class Counts:
    """The observer: what was counted."""

    def __init__(self) -> None:
        self.accepted = 0
        self.batches = 0
        self.refusals: dict[Reason, int] = {}
        self.failures: list[str] = []
        self.missed_batches = 0

    def answered(self, tenant: TenantId, batches: int, accepted_readings: int) -> None:
        self.batches += batches
        self.accepted += accepted_readings

    def refused(self, tenant: TenantId, reason: Reason, readings: int) -> None:
        self.refusals[reason] = self.refusals.get(reason, 0) + readings

    def failed(self, tenant: TenantId, reason: str) -> None:
        self.failures.append(reason)

    def missed(self, tenant: TenantId, batches: int) -> None:
        self.missed_batches += batches


class FakeRegistry:
    """The resolver: adds devices that the directory has not heard of, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.answer: Any = lambda tenant, device_ids: None

    async def resolve(self, tenant: TenantId, device_ids: Sequence[str]) -> None:
        self.asked.append(list(device_ids))
        await asyncio.sleep(0)
        self.answer(tenant, device_ids)


class Bench:
    """The use case with everything around it."""

    def __init__(self, deferred: bool) -> None:
        self.deferred = deferred
        """Publish as unary calls do, decided on with the commit, or as streams do, decided on at once."""
        self.clock = ManualClock()
        self.world = World(self.clock, partitions=PARTITIONS)
        self.log = MemoryLog()
        self.registry = FakeRegistry()
        self.counts = Counts()
        self.producer = TelemetryProducer(self.log, "telemetry", self.clock)  # type: ignore[arg-type]
        self.use_case = PublishTelemetry(
            self.world.directory,
            self.producer,
            Resolution(self.registry, self.clock),
            self.clock,
            self.counts,
        )
        self.tenant = self.world.add_tenant("acme")

    def user(self, tenant: TestTenant | None = None) -> Caller:
        return self.world.verifier.verify(self.world.token(tenant or self.tenant, Role.OPERATOR))

    async def publish(self, batch: RawBatch, caller: Caller | None = None) -> Outcome:
        caller = caller or self.user()
        assert caller.tenant is not None
        if self.deferred:
            return await self.use_case.publish(caller.tenant, caller, 100, lambda: batch).outcome
        return await self.use_case.settle(await self.use_case.begin(caller.tenant, caller, batch.checked()))

    def batch(self, devices: Iterable[str] = ("pump",), **changes: Any) -> RawBatch:
        return read_batch(message(self.clock, devices, **changes).SerializeToString())

    def message(self, devices: Iterable[str] = ("pump",), **changes: Any) -> TelemetryBatch:
        return message(self.clock, devices, **changes)

    def rows(self) -> list[tuple[bytes, str, int, float]]:
        """(device uid, metric, time, value) of every reading in the log."""
        found = []
        for _, record in self.log.records():
            for table in record.tables:
                for row in range(table.rows):
                    device = table.device_uids[table.device_index[row]].tobytes()
                    for column, metric in enumerate(table.metrics):
                        value = float(table.values[column, row])
                        if not np.isnan(value):
                            found.append((device, metric, int(table.time_unix_us[row]), value))
        return found


def message(
    clock: Clock,
    devices: Iterable[str] = ("pump",),
    *,
    metrics: Sequence[str] = ("temperature",),
    index: Sequence[int] | None = None,
    times: Sequence[int] | None = None,
    values: Sequence[float] | None = None,
    rows: int = 1,
    sequence: int = 0,
    batch_id: str | None = None,
) -> TelemetryBatch:
    """A batch of one frame; what is not given is made up so that nothing is wrong with it."""
    count = len(times) if times is not None else len(index) if index is not None else rows
    frame = TelemetryFrame(
        metrics=metrics,
        device_index=index,
        time_unix_us=times if times is not None else [clock.now_us() + row for row in range(count)],
        values=values if values is not None else [float(cell) for cell in range(count * len(metrics))],
    )
    batch_id = str(uuid.uuid4()) if batch_id is None else batch_id
    return TelemetryBatch(batch_id=batch_id, sequence=sequence, devices=devices, frames=[frame])


@pytest.fixture(params=["deferred", "at once"])
async def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(request.param == "deferred")


@pytest.fixture
def new_bench() -> type[Bench]:
    """For tests that need several; to be called within a running loop."""
    return Bench


__all__ = ["Admitted", "Bench", "MemoryLog", "message"]
