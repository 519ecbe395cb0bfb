"""Sends the demo's readings: the history of the real sensors at once, their last part at 60×, and the fleet live.

Every table goes under a batch id that follows from what is in it, so that a run that was cut off between an
acknowledgement and its note in the state file sends the same batch again, and the platform knows it.
"""

import asyncio
import contextlib
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidewire_client import AsyncTelemetryPublisher, BatchResult, TidewireError
from tidewire_platform.demo.fleet import GATEWAY, SLICES, Fleet
from tidewire_platform.demo.setup import DemoAccess
from tidewire_platform.demo.sources import Source
from tidewire_platform.demo.state import DemoState, StateFile
from tidewire_platform.demo.stats import Stats

REPLAY_SPEED = 60
HELD_BACK_US = 24 * 3_600_000_000
"""The last day of each trace is not imported but replayed."""
HISTORY_BATCH_ROWS = 2_000
REPLAY_STEP_SECONDS = 0.5
SAVE_SECONDS = 0.5

_NAMESPACE = uuid.UUID("7b7b4f3c-54b5-4a43-9a6e-2f2d4b8f6c11")


@dataclass(frozen=True, slots=True)
class _Sent:
    """Travels with a batch and comes back with its outcome."""

    at: float
    device: str
    stop_row: int
    """Row after the last one of a real sensor's batch; -1 for the fleet's."""


class DemoPublisher:
    """Publishes as three devices: the two real sensors, each with its own key, and the fleet's gateway."""

    def __init__(
        self, access: DemoAccess, sources: list[Source], state: DemoState, file: StateFile, stats: Stats
    ) -> None:
        self.sources = {source.device: source for source in sources}
        self.state = state
        self.stats = stats
        self.fleet_accepted = 0
        """Readings of the fleet that were acknowledged in this run."""
        self.fleet_since_us = 0
        """Time of the fleet's first row in this run, unix µs; no later than any of them."""
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Raises TidewireError when a batch is refused for ever."""
        self._access = access
        self._file = file
        self._publishers: dict[str, AsyncTelemetryPublisher] = {}
        self._saved_at = 0.0

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Opens a connection and a publisher for each identity; leaving flushes and saves."""
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._save)
            for identity in (*self.sources, GATEWAY):
                connection = await stack.enter_async_context(self._access.connection(identity))
                publisher = AsyncTelemetryPublisher(
                    connection, device=identity, on_result=self._result, on_refusal=None, window=8
                )
                self._publishers[identity] = await stack.enter_async_context(publisher)
            yield

    async def flush(self) -> None:
        """Waits until everything sent is acknowledged."""
        for publisher in self._publishers.values():
            await publisher.flush()

    def plan(self, *, now_us: int) -> None:
        """Decides, once per trace, by how much its times are shifted and where its replay begins."""
        for device, source in self.sources.items():
            last = int(source.time_unix_us[-1])
            self.state.shift_us.setdefault(device, 0 if self.state.keep_times else now_us - last)
            self.state.rows_done.setdefault(device, 0)
            self.state.replay_us.setdefault(device, last + self.state.shift_us[device] - HELD_BACK_US)
        self._save()

    def times(self, device: str) -> NDArray[np.int64]:
        """The times of a real sensor's readings as they are published."""
        return self.sources[device].time_unix_us + self.state.shift_us[device]

    def history_rows(self, device: str) -> int:
        """Rows before the part that is held back."""
        end = int(self.times(device)[-1]) - HELD_BACK_US
        return int(np.searchsorted(self.times(device), end, side="right"))

    async def send_history(self) -> int:
        """Sends the rows of the history that are not done yet; returns how many when all are acknowledged."""
        sent = 0
        outcomes = []
        for device in self.sources:
            start, stop = self.state.rows_done[device], self.history_rows(device)
            while start < stop:
                end = min((start // HISTORY_BATCH_ROWS + 1) * HISTORY_BATCH_ROWS, stop)
                outcomes.append(await self._send_rows(device, start, end))
                sent += end - start
                start = end
        for outcome in outcomes:
            both: set[asyncio.Future[Any]] = {outcome, self.failure}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if self.failure.done():
                self.failure.result()
        self._save()
        return sent

    async def _send_rows(self, device: str, start: int, stop: int) -> asyncio.Future[BatchResult]:
        source = self.sources[device]
        name = f"{self.state.tenant_uid}/{device}/{start}-{stop}/{self.state.shift_us[device]}"
        return await self._publishers[device].send_columns(
            device,
            self.times(device)[start:stop],
            source.metrics,
            source.values[:, start:stop],
            batch_id=uuid.uuid5(_NAMESPACE, name),
            tag=_Sent(time.monotonic(), device, stop),
        )

    async def replay(self, on_done: Callable[[str], None]) -> None:
        """Replays what was held back, at 60×, until it is done. `on_done` is told of each trace that is."""
        next_row = {
            device: max(self.state.rows_done[device], self.history_rows(device)) for device in self.sources
        }
        began = time.monotonic()
        begins = dict(self.state.replay_us)
        left = set(self.sources)
        while left:
            await asyncio.sleep(REPLAY_STEP_SECONDS)
            for device in sorted(left):
                reached = begins[device] + int((time.monotonic() - began) * REPLAY_SPEED * 1e6)
                self.state.replay_us[device] = reached
                times = self.times(device)
                stop = int(np.searchsorted(times, reached, side="right"))
                if stop > next_row[device]:
                    await self._send_rows(device, next_row[device], stop)
                    next_row[device] = stop
                if stop == len(times):
                    left.discard(device)
                    on_done(device)

    async def run_fleet(self) -> None:
        """Publishes the fleet's rows as they come, for ever."""
        fleet = Fleet()
        self.fleet_since_us = time.time_ns() // 1000 - 100_000  # rows are stamped up to 40 ms back
        due = time.monotonic()
        while True:
            due = max(due + 1 / SLICES, time.monotonic() + 0.05)  # after a pause go on, do not catch up
            await asyncio.sleep(due - time.monotonic())
            rows = fleet.next_rows()
            await self._publishers[GATEWAY].send_columns(
                rows.devices,
                rows.time_unix_us,
                rows.metrics,
                rows.values,
                device_index=rows.device_index,
                tag=_Sent(time.monotonic(), GATEWAY, -1),
            )

    def _result(self, result: BatchResult) -> None:
        sent = result.batch.tag
        assert isinstance(sent, _Sent)
        if result.error is not None:
            if not self.failure.done():
                self.failure.set_exception(result.error)
            return
        refused: Counter[str] = Counter()
        for refusal in result.refusals:
            refused[refusal.reason] += refusal.readings
        self.stats.acknowledged(result.accepted_readings, refused, time.monotonic() - sent.at)
        self.stats.retries += result.attempts - 1
        if sent.stop_row < 0:
            self.fleet_accepted += result.accepted_readings
            return
        self.state.rows_done[sent.device] = sent.stop_row
        if result.refused_readings and not self.failure.done():
            first = result.refusals[0]
            self.failure.set_exception(
                TidewireError(f"{sent.device}: {first.reason}: {first.message}", reason=first.reason)
            )
        if time.monotonic() - self._saved_at >= SAVE_SECONDS:
            self._save()

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        self._file.save(self.state)
