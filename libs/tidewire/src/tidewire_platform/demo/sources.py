"""The real readings: a glucose sensor worn in 2010 and a sea buoy of 2016 to 2017, from the package bokeh-sampledata.

The glucose sensor's clock told no time zone; its times are taken for UTC, and the demo says so. Both traces hold rows
of the same moment (three and one): the platform keeps the later one, so fewer readings become visible than are
accepted.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tidewire_cli.importing import PlanOptions, propose, read_blocks
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
    """Reads both traces as `tidewire import` would, rows of one moment included. About a second.

    FailedPrecondition when the package with the readings is not installed.
    """
    directory = _directory()
    return [
        _read(
            directory / "CGM.csv.gz",
            PlanOptions(device=GLUCOSE, timezone="UTC"),
            title="glucose sensor, 2010, one person",
            kind="glucose-sensor",
        ),
        _read(
            directory / "sea_surface_temperature.csv.gz",
            PlanOptions(device=BUOY),
            title="sea surface temperature, Western Maine Shelf, 2016 to 2017",
            kind="buoy",
            location=(43.18, -70.43),
        ),
    ]


def _directory() -> Path:
    # Importing the package itself would import pandas.
    found = importlib.util.find_spec("bokeh_sampledata")
    if found is None or found.origin is None:
        raise FailedPrecondition(
            "the package bokeh-sampledata with the real readings is missing; install it beside tidewire",
            reason="SAMPLES_MISSING",
        )
    return Path(found.origin).parent / "_data"


def _read(
    path: Path, options: PlanOptions, *, title: str, kind: str, location: tuple[float, float] | None = None
) -> Source:
    plan = propose(path, options)
    blocks = list(read_blocks(plan))
    times = np.concatenate([block.time_unix_us for block in blocks])
    values = np.concatenate([block.values for block in blocks], axis=1)
    assert (np.diff(times) >= 0).all(), "the samples are in the order of time"
    return Source(options.device, title, kind, location, plan.metrics, times, values)
