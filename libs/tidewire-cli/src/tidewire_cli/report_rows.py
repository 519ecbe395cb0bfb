"""A report's rows as dictionaries, CSV and Arrow, and the periods that they are of. Used by `tidewire report`."""

import csv
import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from tidewire_cli.looks import utc_text

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from tidewire_client import Report

VALUES = (
    *("readings", "min", "max", "avg", "sum", "stddev", "first", "last"),
    *("devices", "active_devices", "active_days", "coverage", "estimated_bytes"),
)


class Granularity(StrEnum):
    """Length of a period."""

    MONTH = "month"
    DAY = "day"


def rows(
    found: "Report", label: str, width: Granularity, limit: int | None = None
) -> Iterator[dict[str, Any]]:
    """Rows as dictionaries of plain values."""
    count = len(found) if limit is None else min(limit, len(found))
    columns = {name: found.columns[name][:count].tolist() for name in VALUES}
    times = {
        f"{end}_time": found.columns[f"{end}_time_unix_us"][:count].tolist() for end in ("first", "last")
    }
    key = "group" if label else "device"
    starts = found.period_start_unix_us[:count].tolist()
    for row in range(count):
        yield {
            key: found.subjects[row],
            "period": period_text(starts[row], width),
            "metric": found.metrics[row],
            **{name: column[row] for name, column in columns.items()},
            **{name: utc_text(column[row]) for name, column in times.items()},
        }


def write_csv(found: "Report", label: str, width: Granularity) -> None:
    """All rows as CSV to standard output."""
    key = "group" if label else "device"
    headings = (key, "period", "metric", *VALUES, "first_time", "last_time")
    writer = csv.DictWriter(sys.stdout, headings, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(found, label, width))


def arrow_table(found: "Report", label: str) -> "pa.Table":
    """All rows as columns, times with their zone."""
    import pyarrow as pa

    moment = pa.timestamp("us", tz="UTC")
    times = {"first_time": "first_time_unix_us", "last_time": "last_time_unix_us"}
    return pa.table(
        {
            "group" if label else "device": pa.array(found.subjects.tolist(), pa.string()),
            "period_start": pa.array(found.period_start_unix_us, pa.int64()).cast(moment),
            "metric": pa.array(found.metrics.tolist(), pa.string()),
            **{name: pa.array(found.columns[name]) for name in VALUES},
            **{name: pa.array(found.columns[of], pa.int64()).cast(moment) for name, of in times.items()},
        }
    )


def period_text(start_us: int, width: Granularity) -> str:
    """`2026-10`, or the day where a period does not begin with a month."""
    text = utc_text(start_us)[:10]
    return text[:7] if width is Granularity.MONTH and text.endswith("-01") else text


def all_periods(found: "Report", width: Granularity) -> "np.ndarray":
    """int64 (periods,): from the first period with readings to the last, with those between that have none."""
    import numpy as np

    starts = np.unique(found.period_start_unix_us)
    if not len(starts):
        return starts
    if width is Granularity.DAY:
        return np.arange(starts[0], starts[-1] + 1, 86_400_000_000)
    months = starts.astype("datetime64[us]").astype("datetime64[M]")
    between = (
        np.arange(months[0], months[-1] + np.timedelta64(1, "M")).astype("datetime64[us]").astype(np.int64)
    )
    return np.unique(np.concatenate([starts, between[between > starts[0]]]))
