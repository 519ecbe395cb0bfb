"""The real readings: a glucose sensor worn in 2010 and a sea buoy of 2016 to 2017, from the package bokeh-sampledata.

The glucose sensor's clock told no time zone; its times are taken for UTC, and the demo says so. Both traces hold rows
of the same moment (three and one): the platform keeps the later one, so fewer readings become visible than are
accepted.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from tidewire_kit.errors import FailedPrecondition

GLUCOSE = "glucose-sensor"
BUOY = "sea-buoy"


@dataclass(frozen=True, slots=True)
class Source:
    """One device's real readings, in the order of time."""

    device: str
    title: str
    type: str
    """Device type."""
    location: tuple[float, float] | None
    """Latitude and longitude in degrees, where known."""
    metrics: tuple[str, ...]
    time_unix_us: NDArray[np.int64]
    """(rows,), not decreasing."""
    values: NDArray[np.float64]
    """(metrics, rows); NaN: no reading."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.time_unix_us)

    def readings(self, start: int, stop: int) -> int:
        """Readings in a range of rows."""
        return int(np.count_nonzero(~np.isnan(self.values[:, start:stop])))

    def visible_readings(self, rows: int) -> int:
        """Readings that are visible when the first `rows` rows are stored: each (metric, time) once."""
        times, groups = np.unique(self.time_unix_us[:rows], return_inverse=True)
        present = ~np.isnan(self.values[:, :rows])
        return sum(len(np.unique(groups[row])) for row in present) if len(times) else 0


def load_sources() -> list[Source]:
    """Reads both traces. FailedPrecondition when the package with the readings is not installed."""
    directory = _directory()
    glucose = _read(directory / "CGM.csv.gz")
    buoy = _read(directory / "sea_surface_temperature.csv.gz")
    return [
        Source(
            GLUCOSE,
            "glucose sensor, 2010, one person",
            "glucose-sensor",
            None,
            ("glucose", "sensor_current"),
            _micros(glucose["datetime"]),
            np.stack([_floats(glucose["glucose"]), _floats(glucose["isig"])]),
        ),
        Source(
            BUOY,
            "sea surface temperature, Western Maine Shelf, 2016 to 2017",
            "buoy",
            (43.18, -70.43),
            ("temperature",),
            _micros(buoy["time (UTC)"]),
            _floats(buoy["temperature (celsius)"]).reshape(1, -1),
        ),
    ]


def _directory() -> Path:
    # Importing the package would import pandas and make its tables.
    found = importlib.util.find_spec("bokeh_sampledata")
    if found is None or found.origin is None:
        raise FailedPrecondition(
            "the package bokeh-sampledata with the real readings is missing; install it beside tidewire",
            reason="SAMPLES_MISSING",
        )
    return Path(found.origin).parent / "_data"


def _read(path: Path) -> pa.Table:
    options = pyarrow.csv.ConvertOptions(null_values=["", "nil"], strings_can_be_null=True)
    return pyarrow.csv.read_csv(path, convert_options=options)


def _micros(column: pa.ChunkedArray) -> NDArray[np.int64]:
    times: NDArray[np.int64] = column.cast(pa.timestamp("us", tz=column.type.tz)).cast(pa.int64()).to_numpy()
    order = np.argsort(times, kind="stable")
    assert (order == np.arange(len(order))).all(), "the samples are in the order of time"
    return times


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    values: NDArray[np.float64] = column.cast(pa.float64()).to_numpy()
    return values
