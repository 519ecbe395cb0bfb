"""A fleet of simulated devices whose readings look like readings: days, seasons of noise, counters, faults.

`Fleet` computes the rows of all devices for any moment at once and from the seed alone, so the same moment gives the
same values, whenever and wherever it is asked for. `simulate` publishes them in step with the clock. Called by
`tidewire simulate` and `tidewire demo`.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewire_client import AsyncTelemetryPublisher

DAY_SECONDS = 86_400.0
METRICS = ("temperature", "humidity", "pulses", "voltage", "active")


@dataclass(frozen=True, slots=True)
class FleetRows:
    """`device_index` uint32 (rows,), `time_unix_us` int64 (rows,), `values` float64 (metrics, rows)."""

    device_index: NDArray[np.uint32]
    time_unix_us: NDArray[np.int64]
    values: NDArray[np.float64]


class Fleet:
    """Devices that each send five metrics: temperature (0.1), humidity (%), pulses (a counter), voltage (0.01), active.

    Args:
        devices: how many.
        prefix: ids are `{prefix}-0001` and so on.
        seed: another seed is another fleet.
        jitter_us: how far the times stray from the moment.
        loss: share of rows that are never sent.
    """

    metrics = METRICS

    def __init__(
        self,
        devices: int = 200,
        *,
        prefix: str = "sim",
        seed: int = 1,
        jitter_us: int = 40_000,
        loss: float = 0.002,
    ) -> None:
        digits = max(4, len(str(devices)))
        self.device_ids = tuple(f"{prefix}-{number:0{digits}d}" for number in range(1, devices + 1))
        self._seed = seed
        self._jitter_us = jitter_us
        self._loss = loss
        random = np.random.default_rng(seed)
        self._level = random.normal(19.0, 4.0, devices)
        self._swing = random.uniform(1.5, 6.0, devices)
        self._phase = random.normal(15.0, 1.5, devices) / 24.0
        self._humidity = random.uniform(40.0, 65.0, devices)
        self._pulse_rate = random.uniform(0.05, 0.6, devices)
        self._battery = random.uniform(3.45, 3.65, devices)
        self._discharge_days = random.uniform(200.0, 900.0, devices)
        self._hours = random.uniform(6.0, 9.0, devices), random.uniform(16.0, 20.0, devices)

    def __len__(self) -> int:
        return len(self.device_ids)

    def at(self, moment_us: int, devices: NDArray[np.uint32] | None = None) -> FleetRows:
        """One row of each device (or of those whose indices are given) for a moment; a few rows are lost.

        Times are the moment plus jitter, so they are not sorted.
        """
        index = np.arange(len(self), dtype=np.uint32) if devices is None else devices
        random = np.random.default_rng((self._seed, moment_us & 0x7FFF_FFFF_FFFF_FFFF))
        draws = random.normal(size=(3, len(self)))[:, index]
        kept = random.random(len(self))[index] >= self._loss
        jitter = (np.abs(random.normal(0, 0.35, len(self)))[index] * self._jitter_us).astype(np.int64)
        times = moment_us + np.minimum(jitter, self._jitter_us)
        days = times / 1e6 / DAY_SECONDS
        day = days % 1.0
        wave = np.cos(2 * np.pi * (day - self._phase[index]))
        weather = 1.8 * np.sin(2 * np.pi * days / 6.7 + self._seed)
        values = np.empty((len(METRICS), len(index)))
        values[0] = np.round(self._level[index] + self._swing[index] * wave + weather + 0.15 * draws[0], 1)
        values[1] = np.round(np.clip(self._humidity[index] - 9 * wave - 2 * weather + 0.8 * draws[1], 5, 100))
        values[2] = np.floor(times / 1e6 % (365 * DAY_SECONDS) * self._pulse_rate[index])
        values[3] = np.round(
            self._battery[index] - 0.9 * (days / self._discharge_days[index] % 1.0) + 0.01 * draws[2], 2
        )
        hour = day * 24
        values[4] = (hour >= self._hours[0][index]) & (hour < self._hours[1][index])
        return FleetRows(index[kept], times[kept], values[:, kept])


async def simulate(
    publisher: AsyncTelemetryPublisher,
    fleet: Fleet,
    *,
    interval_seconds: float = 1.0,
    speed: float = 1.0,
    start_us: int | None = None,
    stop_after_seconds: float | None = None,
    on_tick: Callable[[int, int], None] | None = None,
) -> int:
    """Publishes a row of every device each interval, the devices spread evenly over it, until told to stop.

    Args:
        publisher: open, as somebody who may publish for the fleet.
        fleet: who.
        interval_seconds: from one row of a device to the next.
        speed: how much faster than the clock the fleet's time runs; with more than 1 give `start_us` in the past.
        start_us: time of the first rows; None: now.
        stop_after_seconds: seconds of the clock after which it ends; None: never.
        on_tick: called with (readings added so far, fleet's time in µs) after each step.

    Returns the readings added. When the platform is slower than the fleet, adding waits and the fleet falls behind.
    """
    step_seconds = min(0.25, interval_seconds)
    slots = max(1, round(interval_seconds / step_seconds))
    step_us = round(interval_seconds / slots * 1_000_000)
    every = np.arange(len(fleet), dtype=np.uint32)
    groups = [every[slot::slots] for slot in range(slots)]
    began = time.monotonic()
    moment_us = time.time_ns() // 1000 if start_us is None else start_us
    moment_us -= moment_us % step_us
    readings = 0
    step = 0
    while True:
        due = began + step * step_us / 1e6 / speed
        now = time.monotonic()
        if stop_after_seconds is not None and max(now, due) - began >= stop_after_seconds:
            return readings
        if due > now:
            await asyncio.sleep(due - now)
        group = groups[step % slots]
        if len(group):
            rows = fleet.at(moment_us + step * step_us, group)
            await publisher.add_columns(
                fleet.device_ids,
                rows.time_unix_us,
                fleet.metrics,
                rows.values,
                device_index=rows.device_index,
            )
            readings += rows.values.size
        step += 1
        if on_tick is not None:
            on_tick(readings, moment_us + step * step_us)
