"""The data of every benchmark: a fleet of 3,000 devices that each send a row of five metrics once a minute.

Seeded, so that two runs see the same readings. Used by the loader and by the benchmarks of single services.
"""

from dataclasses import dataclass, field

import numpy as np

METRICS = ["temperature", "humidity", "energy_total", "voltage", "door_open"]
MINUTE_US = 60_000_000
DAY_US = 86_400_000_000


@dataclass(slots=True)
class Fleet:
    """Rows in order of time: row n belongs to device n mod 3,000 at minute n div 3,000, with 40 ms of jitter.

    temperature: at 0.1 with a daily cycle; humidity: integer; energy_total: a counter; voltage: at 0.01;
    door_open: 0 or 1. 0.2 % of the rows are lost.
    """

    device_count: int = 3_000
    seed: int = 20261122
    lost_share: float = 0.002
    interval_us: int = MINUTE_US
    """Between two rows of a device."""
    jitter_us: int = 40_000
    """Most that a row is early or late; 0: regular times."""
    metrics: list[str] = field(default_factory=lambda: list(METRICS))
    devices: list[str] = field(init=False)
    """Device ids, `bench-00000` and so on."""

    def __post_init__(self) -> None:
        self.devices = [f"bench-{number:05d}" for number in range(self.device_count)]

    def rows(self, first: int, count: int, start_us: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns (device_index uint32, time_unix_us int64, values float64 (5, rows)) of about `count` rows.

        Exactly `count` rows come back; lost ones are skipped over, so the next call should start a little later.
        """
        rng = np.random.default_rng((self.seed, first))
        span = int(count / (1 - self.lost_share)) + 64
        kept = np.flatnonzero(rng.random(span) >= self.lost_share)[:count] + first
        device = (kept % self.device_count).astype(np.uint32)
        minute = kept // self.device_count
        times = self._times(rng, minute, start_us)
        return device, times, self._values(rng, device, minute, times)

    def rows_of(
        self, device: np.ndarray, first: int, count: int, start_us: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows `first` to `first` + `count` of each of some devices (n,), device by device, without the lost ones.

        Returns (index into `device` uint32, time_unix_us int64, values float64 (5, rows)).
        """
        rng = np.random.default_rng((self.seed, first, int(device[0])))
        kept = np.flatnonzero(rng.random(len(device) * count) >= self.lost_share)
        index = (kept // count).astype(np.uint32)
        number = first + kept % count
        times = self._times(rng, number, start_us)
        return index, times, self._values(rng, device[index], number, times)

    def _times(self, rng: np.random.Generator, number: np.ndarray, start_us: int) -> np.ndarray:
        jitter = rng.integers(-self.jitter_us, self.jitter_us + 1, len(number))
        times: np.ndarray = start_us + number * self.interval_us + jitter
        return times.astype(np.int64)

    @staticmethod
    def _values(
        rng: np.random.Generator, device: np.ndarray, number: np.ndarray, times: np.ndarray
    ) -> np.ndarray:
        count = len(times)
        day = (times % DAY_US) / DAY_US * 2 * np.pi + device * 0.001
        values = np.empty((5, count))
        values[0] = np.round(21 + 6 * np.sin(day) + device % 7 + rng.normal(0, 0.2, count), 1)
        values[1] = np.round(55 - 15 * np.sin(day) + rng.normal(0, 1, count))
        values[2] = number * 3 + device * 1_000 + rng.integers(0, 3, count)
        values[3] = np.round(230 + rng.normal(0, 0.8, count), 2)
        values[4] = rng.random(count) < 0.03
        return values
