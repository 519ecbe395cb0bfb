"""A column of a report as lines to draw: one a device or label value (and metric), largest first.

Used by `tidewire report` for its charts, in the terminal (`terminal_chart`) and as SVG (`report_svg`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tidewire_cli.looks import human_bytes, human_count, human_value, sparkline

if TYPE_CHECKING:
    from tidewire_client import Report

NO_LABEL = "(no label)"
_BAR = 40
_NAME = 40
_SUMMED = ("readings", "estimated_bytes")
"""Columns that are one line for all metrics of a subject."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart."""

    name: str
    values: NDArray[np.float64]
    """(periods,); NaN where there are no readings."""
    total: float
    """All periods together."""


def lines_of(report: "Report", column: str, period_start_us: NDArray[np.int64]) -> list[Line]:
    """Lines, largest first. `period_start_us` (periods,): all periods of the chart, rising."""
    values = report.columns[column].astype(np.float64)
    weights = report.columns["readings"].astype(np.float64)
    summed = column in _SUMMED
    several = not summed and len(set(report.metrics.tolist())) > 1
    rows_of: dict[tuple[str, str], list[int]] = {}
    for row, (subject, metric) in enumerate(zip(report.subjects, report.metrics, strict=True)):
        rows_of.setdefault((subject, "" if summed else metric), []).append(row)
    place = np.searchsorted(period_start_us, report.period_start_unix_us)
    lines = []
    for (subject, metric), rows in rows_of.items():
        of_line = np.full(len(period_start_us), np.nan)
        of_line[place[rows]] = 0.0
        np.add.at(of_line, place[rows], values[rows])
        total = _total(column, values[rows], weights[rows])
        name = subject or NO_LABEL
        lines.append(Line(f"{name} {metric}" if several else name, of_line, total))
    return sorted(lines, key=lambda line: -line.total)


def _total(column: str, values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Values of several periods, in order, as one; `weights` are their readings."""
    match column:
        case "min":
            return float(values.min())
        case "max" | "devices" | "active_devices":
            return float(values.max())
        case "first":
            return float(values[0])
        case "last":
            return float(values[-1])
        case "avg":
            return float((values * weights).sum() / weights.sum())
        case "stddev" | "coverage":
            return float(values.mean())
        case _:
            return float(values.sum())


def look_of(column: str) -> Callable[[float], str]:
    """How values of a column are written."""
    if column == "estimated_bytes":
        return human_bytes
    if column == "coverage":
        return lambda value: f"{value * 100:.3g} %"
    if column in ("readings", "active_days", "devices", "active_devices"):
        return human_count
    return human_value


def terminal_chart(lines: Sequence[Line], column: str, width: int) -> list[str]:
    """A curve over the periods for each line, or a bar when there is one period; its total behind it."""
    look = look_of(column)
    names = [shown(line.name, _NAME) for line in lines]
    edge = max(map(len, names), default=0)
    most = max((abs(line.total) for line in lines), default=0.0)
    room = max(10, min(_BAR if lines and len(lines[0].values) == 1 else 120, width - edge - 16))
    out = []
    for name, line in zip(names, lines, strict=True):
        if len(line.values) == 1:
            drawn = "█" * max(1, round(abs(line.total) / most * room)) if most else ""
        else:
            drawn = sparkline(line.values.tolist(), width=room, base=0.0)
        out.append(f"{name:<{edge}}  {drawn}  {look(line.total)}")
    return out


def shown(name: str, most: int) -> str:
    """A name without characters that steer a terminal, cut when it is long."""
    plain = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name
    )
    return plain if len(plain) <= most else plain[: most - 1] + "…"
