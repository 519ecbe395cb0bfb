"""The simulated fleet: 200 meters behind one gateway that publishes for them, with two that do it wrong.

Each meter sends a row of five metrics a second. Every ten seconds one row comes from a meter whose clock is an hour
fast and one from a meter that nobody registered, so that refusals show up beside what is taken in.
"""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GATEWAY = "gateway-1"
METERS = tuple(f"meter-{number:03d}" for number in range(1, 201))
UNKNOWN_METER = "meter-999"
METRICS = ("temperature", "humidity", "energy_wh", "voltage", "door_open")
SLICES = 4
"""The fleet is spread over a second in so many batches."""
MISTAKE_SECONDS = 10
_HOUR_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows to publish: `values` is (metrics, rows), `device_index` points into `devices`."""

    devices: tuple[str, ...]
    device_index: NDArray[np.uint32]
    metrics: tuple[str, ...]
    time_unix_us: NDArray[np.int64]
    values: NDArray[np.float64]


class Fleet:
    """Makes the fleet's rows. Values drift from call to call; no two rows of a meter have the same time."""

    def __init__(self, seed: int = 7) -> None:
        self._random = np.random.default_rng(seed)
        count = len(METERS)
        self._base = self._random.normal(21, 3, count)
        self._phase = self._random.uniform(0, 2 * np.pi, count)
        self._energy = self._random.integers(10_000, 900_000, count).astype(np.float64)
        self._last_us = 0
        self._turn = 0

    def next_rows(self) -> Rows:
        """The next slice of the fleet, stamped now."""
        part = self._turn % SLICES
        chosen = np.arange(part, len(METERS), SLICES)
        now_us = max(time.time_ns() // 1000, self._last_us + 1)
        self._last_us = now_us
        rows = len(chosen)
        times = now_us - self._random.integers(0, 40_000, rows)
        day = now_us / (24 * _HOUR_US) * 2 * np.pi
        self._energy[chosen] += self._random.poisson(3, rows)
        values = np.stack(
            [
                np.round(self._base[chosen] + 4 * np.sin(day + self._phase[chosen]), 1),
                np.round(55 + 15 * np.cos(day + self._phase[chosen])),
                self._energy[chosen],
                np.round(self._random.normal(230, 1.2, rows), 2),
                (self._random.random(rows) < 0.02).astype(np.float64),
            ]
        )
        devices = tuple(METERS[i] for i in chosen)
        index = np.arange(rows, dtype=np.uint32)
        wrong = self._turn % (SLICES * MISTAKE_SECONDS) == 0
        self._turn += 1
        if wrong:
            devices += (UNKNOWN_METER,)
            index = np.append(index, np.array([0, rows], np.uint32))
            times = np.append(times, [now_us + _HOUR_US, now_us])
            values = np.column_stack([values, values[:, :2]])
        return Rows(devices, index, METRICS, times.astype(np.int64), values)
