"""What is to be read from a file and as what: settled by `propose`, followed by the readers, shown to people before.

A plan says everything that the readings depend on, so its fingerprint, with the file's, makes batch ids that are the
same at every run.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

type TimeKind = Literal["zoned", "naive", "epoch", "format"]
type Ambiguous = Literal["refuse", "earlier", "later"]


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What the caller wants settled otherwise than the file suggests; empty: as the file suggests.

    Attributes:
        time_column: heading of the column of times.
        time_format: `strptime` format of the times, when they are neither ISO 8601 nor numbers.
        timezone: IANA zone of times that name none, such as `Europe/Berlin`.
        ambiguous: which of the two moments a local time means that the clock passes twice; `refuse`: neither.
        device: device id of all rows.
        device_column: heading of the column that names each row's device.
        metrics: heading → metric name.
        skip: headings to leave out.
        encoding: of a CSV file; found out when empty.
    """

    time_column: str = ""
    time_format: str = ""
    timezone: str = ""
    ambiguous: Ambiguous = "refuse"
    device: str = ""
    device_column: str = ""
    metrics: dict[str, str] = field(default_factory=dict)
    skip: tuple[str, ...] = ()
    encoding: str = ""


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """A column that becomes a metric.

    Attributes:
        position: of the column in the file, from 0.
        heading: as the file has it.
        metric: the metric's name.
        unit: what the heading said of the unit, or "".
        boolean: whether it holds true and false, read as 1 and 0.
        sample: a value, for people.
    """

    position: int
    heading: str
    metric: str
    unit: str = ""
    boolean: bool = False
    sample: str = ""


@dataclass(frozen=True, slots=True)
class TimePlan:
    """The column of times.

    Attributes:
        position: of the column in the file, from 0.
        heading: as the file has it.
        kind: `zoned` and `naive`: ISO 8601 with and without a zone; `epoch`: numbers; `format`: text in `format`.
        unit_us: microseconds of one unit of an `epoch`; less than 1 for nanoseconds.
        format: `strptime` format.
        timezone: zone of times that name none; "" when each names its own.
        ambiguous: see PlanOptions.
        sample: a time as it stands in the file.
    """

    position: int
    heading: str
    kind: TimeKind
    unit_us: float = 1.0
    format: str = ""
    timezone: str = ""
    ambiguous: Ambiguous = "refuse"
    sample: str = ""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a CSV file is written: `header_lines` are the lines up to and including the headings."""

    delimiter: str = ","
    decimal_point: str = "."
    encoding: str = "utf-8"
    header_lines: int = 1


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """How to read one file.

    Attributes:
        path: the file.
        format: `csv` (also compressed) or `parquet`.
        time: the column of times.
        columns: the columns that become metrics.
        device: device id of all rows; "" with a device column.
        device_position: position of the column that names the device, or None.
        device_heading: its heading.
        skipped: (heading, why) of columns that are left out.
        headings: all of the file's headings.
        dialect: of a CSV file.
        shift_us: microseconds added to every time.
    """

    path: Path
    format: Literal["csv", "parquet"]
    time: TimePlan
    columns: tuple[ColumnPlan, ...]
    device: str
    device_position: int | None = None
    device_heading: str = ""
    skipped: tuple[tuple[str, str], ...] = ()
    headings: tuple[str, ...] = ()
    dialect: Dialect = Dialect()
    shift_us: int = 0

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, in the order of the columns."""
        return tuple(column.metric for column in self.columns)

    def fingerprint(self) -> str:
        """A hash of everything that the readings depend on besides the file itself and the shift."""
        said = dataclasses.asdict(self)
        for beside in ("path", "skipped", "shift_us"):
            del said[beside]
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def shifted_to_now(plan: ImportPlan, last_time_us: int, now_us: int) -> ImportPlan:
    """The plan with times moved by whole seconds so that the last one is now, not later."""
    seconds = (now_us - last_time_us) // 1_000_000
    return dataclasses.replace(plan, shift_us=seconds * 1_000_000)
