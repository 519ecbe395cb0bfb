"""`tidewire report`: usage and key figures of months or days.

tidewire report                                          this month so far, by device
tidewire report --month 2026-10 --by site                a month by the value of the label `site`
tidewire report --start 2026-07 --end 2026-10 --to quarter.parquet
tidewire report --format chart                           readings by day of the devices with the most
tidewire report --format svg --column coverage --to coverage.svg
"""

import contextlib
import re
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidewire_cli.looks import counted, human_bytes, human_value
from tidewire_cli.output import Column, Format, Output
from tidewire_cli.report_rows import (
    VALUES,
    Granularity,
    all_periods,
    arrow_table,
    period_text,
    rows,
    write_csv,
)
from tidewire_cli.session import Session

if TYPE_CHECKING:
    from tidewire_client import Report

_PEOPLE_ROWS = 200
_NAME = 60
_MONTH_OR_DAY = re.compile(r"(\d{4})-(\d{2})(?:-(\d{2}))?")


class ReportFormat(StrEnum):
    """What a report is made into."""

    TABLE = "table"
    CSV = "csv"
    PARQUET = "parquet"
    JSON = "json"
    CHART = "chart"
    SVG = "svg"


_ENDINGS = {
    ".csv": ReportFormat.CSV,
    ".parquet": ReportFormat.PARQUET,
    ".json": ReportFormat.JSON,
    ".svg": ReportFormat.SVG,
    ".txt": ReportFormat.CHART,
}
_DRAWN = (ReportFormat.CHART, ReportFormat.SVG)


async def report(
    session: Session,
    month: Annotated[
        str,
        typer.Option(
            "--month", metavar="MONTH", help="A month, such as 2026-10; none: this one.", show_default=False
        ),
    ] = "",
    start: Annotated[
        str,
        typer.Option(
            "--start",
            metavar="DAY",
            help="First day, or month, such as 2026-10-15 or 2026-10.",
            show_default=False,
        ),
    ] = "",
    end: Annotated[
        str,
        typer.Option("--end", metavar="DAY", help="Up to this day, or month, exclusive.", show_default=False),
    ] = "",
    by: Annotated[
        str, typer.Option("--by", metavar="device|LABEL", help="One row a device, or a value of a label.")
    ] = "device",
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", metavar="METRIC", help="Metrics; none: all.", show_default=False),
    ] = None,
    devices: Annotated[
        str,
        typer.Option("--devices", metavar="IDS", help="Devices, with commas; none: all.", show_default=False),
    ] = "",
    filter_text: Annotated[
        str,
        typer.Option(
            "--filter",
            metavar="FILTER",
            help='Devices by what they are, such as "type = pump AND labels.site = north".',
            show_default=False,
        ),
    ] = "",
    granularity: Annotated[
        Granularity | None,
        typer.Option(
            "--granularity",
            "-g",
            help="Length of a period; month, or day for charts.",
            case_sensitive=False,
            show_default=False,
        ),
    ] = None,
    made: Annotated[
        ReportFormat | None,
        typer.Option(
            "--format",
            help="What to make of it; a table, or what the ending of --to says.",
            case_sensitive=False,
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="Write it to a file.", show_default=False),
    ] = None,
    column: Annotated[
        str, typer.Option("--column", metavar="COLUMN", help="What charts show, such as avg or coverage.")
    ] = "readings",
    top: Annotated[int, typer.Option("--top", min=1, max=500, help="Lines of a chart, largest first.")] = 20,
) -> None:
    """Report usage and key figures of months or days, by device or by the value of a label.

    For each metric: readings, min, max, avg, sum, stddev, first and last value, days with readings, coverage (the
    share of the days so far that have readings) and estimated bytes. Days are those of UTC. Charts show one column of
    the largest; --to FILE writes csv, parquet, json, svg or txt.
    """
    from tidewire_client import InvalidArgument

    chosen = _chosen(session, made, to)
    period = _period(month, start, end)
    _check_column(column)
    label = "" if by == "device" else by.removeprefix("labels.").removeprefix("label:")
    names = [name for name in devices.split(",") if name]
    if names and filter_text:
        raise InvalidArgument("give --devices or --filter, not both", field="filter")
    width = granularity or (Granularity.DAY if chosen in _DRAWN else Granularity.MONTH)
    client = await session.query()
    with _Progress(session) as progress:
        found = await client.report(
            month=period[0],
            start=period[1],
            end=period[2],
            devices=names,
            filter=filter_text,
            metrics=metric or [],
            granularity=width.value,
            group_by_label=label,
            on_progress=progress,
        )
    title = f"{column} by {label or 'device'} and {width.value}, {_told(period)}"
    if chosen is ReportFormat.TABLE and to is None:
        _table(session, found, label, width)
        return
    if chosen is ReportFormat.PARQUET:
        import pyarrow.parquet as pq

        assert to is not None
        pq.write_table(arrow_table(found, label), to, compression="zstd")
    else:
        with _standard_output(to):
            _write(session, found, chosen, label, width, (column, top, title))
    if to is not None:
        session.out.done(f"{to}: {counted(len(found), 'row')}", {"file": str(to), "rows": len(found)})


def _chosen(session: Session, made: ReportFormat | None, to: Path | None) -> ReportFormat:
    from tidewire_client import InvalidArgument

    if made is None and to is not None:
        made = _ENDINGS.get(to.suffix)
        if made is None:
            endings = ", ".join(_ENDINGS)
            raise InvalidArgument(f"--to {to}: give --format, or a file that ends in {endings}", field="to")
    if made is None:
        made = ReportFormat.CSV if session.out.format is Format.CSV else ReportFormat.TABLE
    if made is ReportFormat.TABLE and to is not None:
        raise InvalidArgument(
            "--format table is for the terminal; write csv or parquet to a file", field="to"
        )
    if made is ReportFormat.PARQUET and to is None:
        raise InvalidArgument("--format parquet needs --to FILE", field="to")
    return made


_Period = tuple[date | None, date | None, date | None]
"""Month, or start and end."""


def _period(month: str, start: str, end: str) -> _Period:
    from tidewire_client import InvalidArgument

    if month:
        if start or end:
            raise InvalidArgument("give --month, or --start and --end, not both", field="month")
        if len(month) != len("2026-10"):
            raise InvalidArgument(f"--month: '{month}' is not a month; write 2026-10", field="month")
        return _day(month, "--month"), None, None
    today = datetime.now(UTC).date()
    if not start:
        if end:
            raise InvalidArgument("--end needs --start", field="end")
        return today.replace(day=1), None, None
    first = _day(start, "--start")
    last = _day(end, "--end") if end else date.fromordinal(today.toordinal() + 1)
    if last <= first:
        raise InvalidArgument("--end must be later than --start", field="end")
    return None, first, last


def _day(text: str, option: str) -> date:
    from tidewire_client import InvalidArgument

    matched = _MONTH_OR_DAY.fullmatch(text)
    if matched is not None:
        with contextlib.suppress(ValueError):
            return date(int(matched[1]), int(matched[2]), int(matched[3] or 1))
    raise InvalidArgument(
        f"{option}: '{text}' is no day or month; write 2026-10-15 or 2026-10", field=option.strip("-")
    )


def _told(period: _Period) -> str:
    if period[0] is not None:
        return f"{period[0]:%Y-%m}"
    return f"{period[1]} to {period[2]} (exclusive)"


def _check_column(column: str) -> None:
    from tidewire_client import InvalidArgument

    if column not in VALUES:
        raise InvalidArgument(
            f"--column: there is no column '{column}'; columns are {', '.join(VALUES)}", field="column"
        )


class _Progress:
    """A bar on standard error, when that is a terminal."""

    def __init__(self, session: Session) -> None:
        self._bar: Any = None
        if session.out.for_people and sys.stderr.isatty():
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._bar = Progress(
                TextColumn("report"),
                BarColumn(),
                TimeElapsedColumn(),
                console=session.out.console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("", total=1.0)

    def __enter__(self) -> "_Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, share: float) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=share)


@contextlib.contextmanager
def _standard_output(to: Path | None) -> Iterator[None]:
    """What is printed goes to the file, if there is one."""
    if to is None:
        yield
        return
    with to.open("w", encoding="utf-8", newline="") as file, contextlib.redirect_stdout(file):
        yield


def _write(
    session: Session,
    found: "Report",
    chosen: ReportFormat,
    label: str,
    width: Granularity,
    drawn: tuple[str, int, str],
) -> None:
    if chosen is ReportFormat.CSV:
        write_csv(found, label, width)
        return
    if chosen is ReportFormat.JSON:
        Output(Format.JSON).data(list(rows(found, label, width)))
        return
    from tidewire_cli.report_lines import lines_of, terminal_chart
    from tidewire_cli.report_svg import svg

    column, top, title = drawn
    starts = all_periods(found, width)
    lines = lines_of(found, column, starts)
    subtitle = f"the {top} largest of {len(lines):,}" if len(lines) > top else counted(len(lines), "line")
    periods = [period_text(start, width) for start in starts.tolist()]
    if chosen is ReportFormat.SVG:
        sys.stdout.write(svg(lines[:top], column, title, subtitle, periods))
        return
    if not lines:
        session.out.note("There are no readings in this time.")
        return
    print(f"{title}: {subtitle}")
    for text in terminal_chart(lines[:top], column, shutil.get_terminal_size((100, 24)).columns):
        print(text)


def _table(session: Session, found: "Report", label: str, width: Granularity) -> None:
    from tidewire_cli.report_lines import NO_LABEL, shown

    limit = _PEOPLE_ROWS if session.out.for_people else None

    def name(text: str) -> str:
        return shown(text, _NAME) or NO_LABEL

    key = "group" if label else "device"
    columns = [
        Column(key, (label or key).upper(), name),
        Column("period", width.value.upper()),
        Column("metric", "METRIC"),
        Column("readings", "READINGS", lambda number: f"{number:,}", right=True),
        *(Column(one, one.upper(), human_value, right=True) for one in ("min", "avg", "max", "last")),
        Column("active_days", "DAYS", right=True),
        Column("coverage", "COVERAGE", lambda share: f"{share * 100:.3g} %", right=True),
        Column("estimated_bytes", "BYTES", human_bytes, right=True),
    ]
    if label:
        columns.insert(-3, Column("devices", "DEVICES", right=True))
    session.out.rows(rows(found, label, width, limit), columns, empty="There are no readings in this time.")
    if limit is not None and len(found) > limit:
        session.out.warn(f"The first {limit} of {len(found):,} rows; all with --output csv or --to FILE.")
