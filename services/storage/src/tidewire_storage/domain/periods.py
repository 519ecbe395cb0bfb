"""The time of a report: whole days and months, UTC. Pure; used by the report, and by whoever parses what is asked."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

DAY_US = 86_400_000_000


class Granularity(Enum):
    """How long a period is."""

    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Periods:
    """The days [first_day, end_day), counted since 1970-01-01, in periods; the first and the last may be cut off."""

    first_day: int
    end_day: int
    granularity: Granularity

    @property
    def start_us(self) -> int:
        """First moment."""
        return self.first_day * DAY_US

    @property
    def end_us(self) -> int:
        """First moment after."""
        return self.end_day * DAY_US

    def starts(self, day_us: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) → (n,): where the period of each time begins, not before the first day; both in µs."""
        days = day_us // DAY_US
        if self.granularity is Granularity.MONTH:
            months = days.astype("datetime64[D]").astype("datetime64[M]")
            days = np.maximum(months.astype("datetime64[D]").astype(np.int64), self.first_day)
        return days * DAY_US

    def days(self, start_us: NDArray[np.int64], now_us: int) -> NDArray[np.int64]:
        """(n,) → (n,): how many days of the periods that begin there have begun by now, at least 1."""
        first = start_us // DAY_US
        if self.granularity is Granularity.MONTH:
            months = first.astype("datetime64[D]").astype("datetime64[M]") + np.timedelta64(1, "M")
            end = np.minimum(months.astype("datetime64[D]").astype(np.int64), self.end_day)
        else:
            end = first + 1
        return np.maximum(np.minimum(end, now_us // DAY_US + 1) - first, 1)

    def offset(self, day_us: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) → (n,): number of each day in its month, from 0."""
        days = day_us // DAY_US
        months = days.astype("datetime64[D]").astype("datetime64[M]")
        return days - months.astype("datetime64[D]").astype(np.int64)
