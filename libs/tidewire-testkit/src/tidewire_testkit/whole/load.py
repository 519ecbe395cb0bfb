"""Load generators for the ledger test: publishers that retry as devices do, and lose acknowledgements on purpose.

Each publisher is the only one for its devices. It sends a batch until it is acknowledged, always under the same id, to
any ingestion process. Some batches carry rows that must be refused. Some acknowledgements are thrown away, and the
batch is sent again after a second, or after the window in which the platform recognises it.

Beside rows of ever new times every publisher has a *register*: a cell that ten batches overwrite with rising numbers,
then the next cell. Each shows at the end what was acknowledged last for it only if the order of the device's readings
was kept.
"""

import asyncio
import math
import random
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal

import grpc
import grpc.aio

from tidewire.ingestion.v1 import ingestion_pb2
from tidewire.type.v1 import telemetry_pb2
from tidewire_testkit.whole.own_ledger import OwnLedger
from tidewire_testkit.whole.platform import TenantAccess, UpProcess

METRICS = ("count", "level")
REGISTER_METRIC = "register"
REGISTER_BATCHES = 10
HOUR_US = 3_600_000_000
ATTEMPT_SECONDS = 5.0
RETRIED = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    }
)
"""A device tries again after these; anything else is a broken promise."""

BROKEN_CALL = "Internal error from Core"
"""Said by gRPC's client itself, with code INTERNAL, of a stream that broke while it was being written to."""

Fate = Literal["normal", "lost, again soon", "lost, again late"]


@dataclass(slots=True)
class Batch:
    """A batch, and what must become of it."""

    message: telemetry_pb2.TelemetryBatch
    rows: list[tuple[str, str, int, float]]
    """(device, metric, time, value) of the readings to be accepted."""
    bad: dict[str, int]
    """Refusal reason → rows."""
    fate: Fate
    created: float = field(default_factory=time.monotonic)


class Publisher:
    """Makes batches for its devices and keeps the ledger. Subclasses send them."""

    def __init__(
        self,
        up: UpProcess,
        access: TenantAccess,
        name: str,
        ledger: OwnLedger,
        *,
        devices: int,
        window_seconds: float,
    ) -> None:
        self.name = name
        self.devices = tuple(f"{name}-{number}" for number in range(devices))
        self.register = f"{name}-register"
        self.last_acknowledged: tuple[float, str, int] = (0.0, "", 0)
        """(monotonic time at which the batch was made, device, time in unix µs) of the newest acknowledgement."""
        self._up = up
        self._access = access
        self._ledger = ledger
        self._window_seconds = window_seconds
        self._random = random.Random(name)
        self._sequence = 0
        self._count = 0
        self._first_us = self._last_us = time.time_ns() // 1000
        self._again: set[asyncio.Task[None]] = set()
        self._turn = self._random.randrange(100)

    def all_devices(self) -> tuple[str, ...]:
        """Devices that must be registered."""
        return (*self.devices, self.register)

    def addresses(self) -> list[str]:
        """Addresses of ingestion; those known from before while a process is away."""
        found = [endpoint.address for endpoint in self._up.endpoints("ingestion")]
        return found or ["127.0.0.1:9"]

    def next_address(self) -> str:
        """The next ingestion process in turn."""
        found = self.addresses()
        self._turn += 1
        return found[self._turn % len(found)]

    def make_batch(self) -> Batch:
        """The next batch: a few rows of each device, the register, and now and then rows that must be refused."""
        fate: Fate = "normal"
        if self._random.random() < 0.06:
            fate = self._random.choice(("lost, again soon", "lost, again late"))
        devices = [*self.devices, self.register, "nobody"]
        index, times, columns = [], [], {metric: [] for metric in (*METRICS, REGISTER_METRIC)}  # type: ignore[var-annotated]
        rows: list[tuple[str, str, int, float]] = []
        bad: dict[str, int] = {}

        def add(device: int, time_us: int, values: tuple[float, float, float], reason: str = "") -> None:
            index.append(device)
            times.append(time_us)
            for metric, value in zip(columns, values, strict=True):
                columns[metric].append(value)
                if not reason and not math.isnan(value):
                    rows.append((devices[device], metric, time_us, value))
            if reason:
                bad[reason] = bad.get(reason, 0) + 1

        nan = math.nan
        for device in range(len(self.devices)):
            for _ in range(2):
                self._last_us = max(self._last_us + 1, time.time_ns() // 1000)
                self._count += 1
                level = nan if self._random.random() < 0.1 else self._random.random() * 100
                add(device, self._last_us, (float(self._count), level, nan))
        if self._random.random() < 0.1:
            add(0, self._last_us + HOUR_US, (1.0, 1.0, nan), "CLOCK_SKEW")
        if self._random.random() < 0.1:
            add(len(devices) - 1, self._last_us, (2.0, 2.0, nan), "DEVICE_UNKNOWN")
        if self._random.random() < 0.1:
            add(1, self._last_us + 1, (3.0, math.inf, nan), "NOT_FINITE")
            self._last_us += 1
        if fate == "normal":  # one that is sent again late would bring back an old value, and rightly so
            cell_us = self._first_us + self._sequence // REGISTER_BATCHES
            add(len(devices) - 2, cell_us, (nan, nan, float(self._count)))
        self._sequence += 1
        frame = telemetry_pb2.TelemetryFrame(
            metrics=list(columns),
            device_index=index,
            time_unix_us=times,
            values=[value for column in columns.values() for value in column],
        )
        message = telemetry_pb2.TelemetryBatch(
            batch_id=str(uuid.UUID(int=self._random.getrandbits(128))),
            sequence=self._sequence,
            devices=devices,
            frames=[frame],
        )
        for name, metric, time_us, value in rows:
            self._ledger.sent[name][(metric, time_us)].add(value)
        return Batch(message, rows, bad, fate)

    def acknowledged(self, batch: Batch, answer: ingestion_pb2.PublishTelemetryResponse) -> None:
        """Enters an acknowledged batch into the ledger and checks what the answer says of it."""
        ledger = self._ledger
        if answer.accepted_readings != len(batch.rows):
            ledger.violation(
                f"{self.name}: {answer.accepted_readings} accepted of {len(batch.rows)} good readings"
            )
        refused = {ingestion_pb2.RefusalReason.Name(entry.reason): entry.rows for entry in answer.refusals}
        if refused != batch.bad:
            ledger.violation(f"{self.name}: refused {refused}, to be refused {batch.bad}")
        for device, metric, time_us, value in batch.rows:
            ledger.acknowledged[device][(metric, time_us)] = value
        ledger.counts["batches acknowledged"] += 1
        ledger.counts["rows refused"] += sum(batch.bad.values())
        device, _, time_us, _ = batch.rows[0]
        self.last_acknowledged = (batch.created, device, time_us)

    def send_again_later(self, batch: Batch) -> None:
        """Sends a batch again whose acknowledgement was thrown away: the platform must know it, or collapse it."""
        delay = 1.0 if batch.fate == "lost, again soon" else self._window_seconds + 2.0
        self._ledger.counts[batch.fate] += 1

        async def again() -> None:
            await asyncio.sleep(delay)
            await self.publish_until_acknowledged(batch)

        task = asyncio.create_task(again())
        self._again.add(task)
        task.add_done_callback(self._again.discard)

    async def finish(self) -> None:
        """Waits for all that is still to be sent again."""
        while self._again:
            await asyncio.gather(*self._again)

    async def publish_until_acknowledged(self, batch: Batch) -> None:
        """Sends a batch under the same id, to one process after the other, until one acknowledges it."""
        while True:
            stub = self._up.ingestion(self.next_address())
            try:
                answer = await stub.PublishTelemetry(
                    batch.message, metadata=self._access.metadata, timeout=ATTEMPT_SECONDS
                )
            except grpc.aio.AioRpcError as error:
                self.failed(error)
                await asyncio.sleep(self._random.uniform(0.02, 0.3))
                continue
            self.acknowledged(batch, answer)
            return

    def failed(self, error: grpc.aio.AioRpcError) -> None:
        """Counts a failed attempt; one that no device would repeat is a broken promise."""
        self._ledger.counts[f"attempts failed {error.code().name}"] += 1
        if error.code() not in RETRIED and error.details() != BROKEN_CALL:
            self._ledger.violation(f"{self.name}: {error.code().name}: {error.details()}")


class UnaryPublisher(Publisher):
    """One batch at a time."""

    async def run(self, stop: asyncio.Event) -> None:
        """Publishes until `stop`, then until everything is acknowledged."""
        while not stop.is_set():
            batch = self.make_batch()
            await self.publish_until_acknowledged(batch)
            if batch.fate != "normal":
                self.send_again_later(batch)
            await asyncio.sleep(0.06)
        await self.finish()


class StreamPublisher(Publisher):
    """Up to eight batches on their way on one stream; when it breaks, all unanswered ones go again on another."""

    async def run(self, stop: asyncio.Event) -> None:
        """Publishes until `stop`, then until everything is acknowledged."""
        waiting: deque[Batch] = deque()
        while not stop.is_set() or waiting:
            try:
                await self._stream(waiting, stop)
            except grpc.aio.AioRpcError as error:
                self.failed(error)
                await asyncio.sleep(self._random.uniform(0.02, 0.3))
        await self.finish()

    async def _stream(self, waiting: deque[Batch], stop: asyncio.Event) -> None:
        """One stream, for a few seconds or until it breaks. `waiting` holds the unanswered batches, oldest first."""
        ends = time.monotonic() + self._random.uniform(3, 8)
        room = asyncio.Semaphore(8 - len(waiting)) if len(waiting) < 8 else asyncio.Semaphore(0)

        broken = False

        async def requests() -> AsyncIterator[telemetry_pb2.TelemetryBatch]:
            for batch in list(waiting):
                yield batch.message
            while not stop.is_set() and time.monotonic() < ends:
                await room.acquire()
                if broken:
                    return
                batch = self.make_batch()
                waiting.append(batch)
                yield batch.message
                await asyncio.sleep(0.04)

        stub = self._up.ingestion(self.next_address())
        call = stub.StreamTelemetry(requests(), metadata=self._access.metadata)
        try:
            while True:
                async with asyncio.timeout(2 * ATTEMPT_SECONDS):
                    answer = await call.read()
                if answer is grpc.aio.EOF:
                    return
                assert isinstance(answer, ingestion_pb2.PublishTelemetryResponse)
                batch = waiting[0]
                if answer.batch_id != batch.message.batch_id:
                    self._ledger.violation(f"{self.name}: answered out of order")
                    return
                if answer.HasField(
                    "status"
                ):  # nothing of it is kept: everything from here on goes again, in order
                    self._ledger.counts[f"answers with status {answer.status.code}"] += 1
                    self._order_unknown(waiting)
                    await asyncio.sleep(0.2)
                    return
                waiting.popleft()
                room.release()
                self.acknowledged(batch, answer)
                if batch.fate != "normal":
                    self.send_again_later(batch)
        except TimeoutError:
            self._ledger.counts["streams without an answer"] += 1
        finally:
            broken = True
            room.release()  # so that the requests' task sees it
            call.cancel()

    def _order_unknown(self, waiting: deque[Batch]) -> None:
        """One batch was not taken and those behind it may have been: then its second try comes after them."""
        for batch in waiting:
            for device, metric, time_us, _ in batch.rows:
                if device == self.register:
                    self._ledger.unordered[device].add((metric, time_us))


class QuotaPublisher(Publisher):
    """One reading a batch, faster than the tenant's quota: each is taken or refused as a whole."""

    async def run(self, stop: asyncio.Event) -> None:
        """Publishes until `stop`. What is refused at the first try is never sent again and must never be seen."""
        device = self.devices[0]
        while not stop.is_set():
            self._last_us = max(self._last_us + 1, time.time_ns() // 1000)
            self._sequence += 1
            value, time_us = float(self._sequence), self._last_us
            frame = telemetry_pb2.TelemetryFrame(metrics=[METRICS[0]], time_unix_us=[time_us], values=[value])
            message = telemetry_pb2.TelemetryBatch(
                batch_id=str(uuid.uuid4()), devices=[device], frames=[frame], sequence=self._sequence
            )
            self._ledger.sent[device][(METRICS[0], time_us)].add(value)
            batch = Batch(message, [(device, METRICS[0], time_us, value)], {}, "normal")
            await self._one(batch, (METRICS[0], time_us))
            await asyncio.sleep(0.02)

    async def _one(self, batch: Batch, cell: tuple[str, int]) -> None:
        first = True
        while True:
            try:
                answer = await self._up.ingestion(self.next_address()).PublishTelemetry(
                    batch.message, metadata=self._access.metadata, timeout=ATTEMPT_SECONDS
                )
            except grpc.aio.AioRpcError as error:
                over_quota = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                if not over_quota:
                    self.failed(error)
                    first = False
                    await asyncio.sleep(0.1)
                    continue
                refused = True
            else:
                refused = answer.accepted_readings == 0
                if not refused:
                    self.acknowledged(batch, answer)
                    return
            self._ledger.counts["readings over quota"] += 1
            if first:
                self._ledger.refused[self.devices[0]].add(cell)
            return
