"""The report as columns: what `QueryClient.report` answers, put together from the parts of the stream."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from google.type.date_pb2 import Date
from numpy.typing import NDArray

from tidewire.storage.v1 import storage_pb2 as rpc
from tidewire_client.errors import InvalidArgument

COUNTS = ("readings", "devices", "active_devices", "active_days")
MEASURES = ("min", "max", "avg", "sum", "stddev", "first", "last", "coverage", "estimated_bytes")
TIMES = ("first_time_unix_us", "last_time_unix_us")
GRANULARITIES = ("month", "day")


@dataclass(frozen=True, slots=True)
class Report:
    """Rows by period, subject and metric, each of these once.

    Attributes:
        subjects: device ids or values of the label, object (rows,); "": devices without the label.
        metrics: object (rows,).
        period_start_unix_us: int64 (rows,).
        columns: name → (rows,). int64: readings, devices, active_devices, active_days, first_time_unix_us,
            last_time_unix_us. float64: min, max, avg, sum, stddev, first, last, coverage (0 to 1), estimated_bytes.
        tier: what it was read from: `raw`, `cold`, `rollup_1m`, `rollup_1h` or `rollup_1d`.
    """

    subjects: NDArray[np.object_]
    metrics: NDArray[np.object_]
    period_start_unix_us: NDArray[np.int64]
    columns: Mapping[str, NDArray[np.int64] | NDArray[np.float64]]
    tier: str

    def __len__(self) -> int:
        return len(self.subjects)


def report_request(
    parent: str,
    month: date | None,
    start: date | None,
    end: date | None,
    granularity: str,
) -> rpc.ReportRequest:
    """The request's time. Raises InvalidArgument for a granularity that there is not."""
    if granularity not in GRANULARITIES:
        raise InvalidArgument(
            f"there is no granularity '{granularity}'; say {' or '.join(GRANULARITIES)}", field="granularity"
        )
    return rpc.ReportRequest(
        parent=parent,
        month=Date(year=month.year, month=month.month) if month is not None else None,
        start_date=_date(start) if start is not None else None,
        end_date=_date(end) if end is not None else None,
        granularity=rpc.ReportGranularity.Value(f"REPORT_GRANULARITY_{granularity.upper()}"),
    )


def _date(day: date) -> Date:
    return Date(year=day.year, month=day.month, day=day.day)


def join_report(parts: Sequence[rpc.ReportResponse]) -> Report:
    """All rows of a stream, in order."""

    def joined(arrays: Sequence[NDArray[np.generic]], kind: type) -> NDArray[np.generic]:
        return np.concatenate(arrays) if arrays else np.empty(0, kind)

    def names(of: str, by: str) -> NDArray[np.object_]:
        found = [
            np.array(list(getattr(part, of)), np.object_)[np.array(getattr(part, by), np.int64)]
            for part in parts
            if part.readings
        ]
        return joined(found, np.object_)  # type: ignore[return-value]

    def column(name: str, kind: type) -> NDArray[np.generic]:
        return joined([np.array(getattr(part, name), kind) for part in parts], kind)

    subjects, metrics = names("subjects", "subject_index"), names("metrics", "metric_index")
    starts = column("period_start_unix_us", np.int64)
    order = np.lexsort((_ranks(metrics), _ranks(subjects), starts))
    columns = {
        **{name: column(name, np.int64)[order] for name in (*COUNTS, *TIMES)},
        **{name: column(name, np.float64)[order] for name in MEASURES},
    }
    tier = rpc.AggregateTier.Name(parts[-1].tier).lower() if parts else "raw"
    return Report(subjects[order], metrics[order], starts[order], columns, tier)  # type: ignore[arg-type]


def _ranks(names: NDArray[np.object_]) -> NDArray[np.int64]:
    number = {name: place for place, name in enumerate(sorted(set(names.tolist())))}
    return np.fromiter((number[name] for name in names.tolist()), np.int64, len(names))
