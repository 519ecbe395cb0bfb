"""Proposes what each column of a file is: the time, the device, a metric, or nothing; refuses what cannot be told.

Looks at the headings and at the first rows. What the caller said in the options goes before what the file suggests.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tidewire_cli.importing.csv_source import COMPRESSED, read_sample, sniff
from tidewire_cli.importing.moments import check_timezone
from tidewire_cli.importing.names import is_device, is_metric, metric_names, split_unit, to_device, to_metric
from tidewire_cli.importing.plan import ColumnPlan, Dialect, ImportPlan, PlanOptions, TimeKind, TimePlan
from tidewire_client import InvalidArgument

NULLS = frozenset({"", "null", "nil", "none", "nan", "na", "n/a", "#n/a", "-", "--", "?", "missing"})
BOOLEANS = {"true": True, "false": False, "on": True, "off": False, "yes": True, "no": False}
_TIME_NAMES = (
    "time",
    "timestamp",
    "datetime",
    "date_time",
    "time_stamp",
    "ts",
    "measured_at",
    "recorded_at",
    "event_time",
    "sample_time",
    "local_time",
    "date",
    "utc",
    "unix_time",
    "epoch",
)
_DEVICE_NAMES = ("device", "device_id", "deviceid", "dev_eui", "deveui", "sensor_id", "station_id")
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
_ISO = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.,]\d+)?)?\s?(?P<zone>Z|[+-]\d\d(:?\d\d)?|UTC|GMT)?)?"
)
_PARTS = re.compile(r"(\d{1,2})([./])(\d{1,2})[./](\d{4})(,? +\d{1,2}:\d\d(?P<seconds>:\d\d)?)?$")


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the sample: its heading, its cells as text without the missing ones, its type if known."""

    heading: str
    cells: list[str]
    type: pa.DataType | None = None

    def share(self, test: Callable[[str], object]) -> float:
        """Share of the cells that pass, 0 without cells."""
        return sum(bool(test(cell)) for cell in self.cells) / len(self.cells) if self.cells else 0.0


def propose(path: Path, options: PlanOptions | None = None) -> ImportPlan:
    """The plan for a file.

    Raises InvalidArgument, with the option that helps, when the file cannot be read, has no column of times or none
    that could be a metric, or when its times name no zone and the options neither.
    """
    options = options or PlanOptions()
    if not path.is_file():
        if path.is_dir():
            why = f"{path} is a directory; name a file in it"
        elif path.exists() or str(path) == "-":
            why = f"{path} is no file that can be read twice; write it to a file first"
        else:
            why = f"there is no file {path}"
        raise InvalidArgument(why, field="file")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in (".parquet", ".pq"):
        columns, dialect = _parquet_columns(path), Dialect()
    else:
        columns, dialect = _csv_columns(path, options)
    _check_headings(columns, options)
    time = _time_column(columns, options)
    device_position = _device_column(columns, options, time)
    taken = {time, device_position}
    skipped: list[tuple[str, str]] = []
    usable: list[tuple[int, bool]] = []
    for position, column in enumerate(columns):
        if position in taken:
            continue
        why = "left out as asked" if column.heading in options.skip else _why_no_metric(column, dialect)
        if column.heading in options.metrics and column.heading not in options.skip:
            why = ""
        if why:
            skipped.append((column.heading, why))
        else:
            usable.append((position, _is_boolean(column)))
    if not usable:
        raise InvalidArgument(
            f"{path.name} has no column of numbers besides the time; columns are "
            + ", ".join(f"'{column.heading}'" for column in columns),
            field="file",
        )
    return ImportPlan(
        path=path,
        format="parquet" if suffixes and suffixes[-1] in (".parquet", ".pq") else "csv",
        time=_time_plan(columns[time], time, options),
        columns=_metrics(columns, usable, options),
        device="" if device_position is not None else _device(path, options),
        device_position=device_position,
        device_heading="" if device_position is None else columns[device_position].heading,
        skipped=tuple(skipped),
        headings=tuple(column.heading for column in columns),
        dialect=dialect,
    )


def _csv_columns(path: Path, options: PlanOptions) -> tuple[list[_Column], Dialect]:
    sample, _ = read_sample(path)
    dialect, rows = sniff(path, sample, options.encoding)
    headings = [heading.strip() for heading in rows[0]]
    if all(_NUMBER.fullmatch(heading) or _ISO.fullmatch(heading) for heading in headings):
        raise InvalidArgument(
            f"the first line of {path.name} has values, not headings; add a line such as time,temperature",
            field="file",
            reason="NO_HEADINGS",
        )
    rows = [row for row in rows[1:5001] if len(row) == len(headings)]
    columns = []
    for position, heading in enumerate(headings):
        cells = [row[position].strip() for row in rows]
        columns.append(_Column(heading, [cell for cell in cells if cell.lower() not in NULLS]))
    return columns, dialect


def _parquet_columns(path: Path) -> list[_Column]:
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            first = next(file.iter_batches(batch_size=1000), None)
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidArgument(
            f"{path} is not a Parquet file that can be read: {error}", field="file"
        ) from error
    columns = []
    for position, field in enumerate(schema):
        cells = first.column(position).slice(0, 200).to_pylist() if first is not None else []
        columns.append(_Column(field.name, [str(cell) for cell in cells if cell is not None], field.type))
    return columns


def _check_headings(columns: Sequence[_Column], options: PlanOptions) -> None:
    headings = [column.heading for column in columns]
    asked = {
        "time-column": [options.time_column],
        "device-column": [options.device_column],
        "metric": list(options.metrics),
        "skip": list(options.skip),
    }
    for option, names in asked.items():
        for name in names:
            if name and name not in headings:
                raise InvalidArgument(
                    f"--{option}: there is no column '{name}'; columns are "
                    + ", ".join(f"'{heading}'" for heading in headings),
                    field=option.replace("-", "_"),
                )
    if options.device and options.device_column:
        raise InvalidArgument("give --device or --device-column, not both", field="device")


def _time_column(columns: Sequence[_Column], options: PlanOptions) -> int:
    if options.time_column:
        return [column.heading for column in columns].index(options.time_column)
    plain = [to_metric(split_unit(column.heading)[0]) for column in columns]
    for name in _TIME_NAMES:
        if name in plain:
            return plain.index(name)
    for position, column in enumerate(columns):
        if (column.type is not None and pa.types.is_timestamp(column.type)) or column.share(
            lambda cell: _ISO.fullmatch(cell) and len(cell) > 10
        ) > 0.5:
            return position
    raise InvalidArgument(
        "no column looks like the time; say which it is with --time-column, one of "
        + ", ".join(f"'{column.heading}'" for column in columns),
        field="time_column",
        reason="NO_TIME_COLUMN",
    )


def _time_plan(column: _Column, position: int, options: PlanOptions) -> TimePlan:
    sample = column.cells[0] if column.cells else ""
    timezone = options.timezone
    if timezone:
        check_timezone(timezone)
    heading_zone = split_unit(column.heading)[1].upper()
    kind, unit_us, written = _time_kind(column, options)
    if kind in ("naive", "format"):
        timezone = timezone or ("UTC" if heading_zone in ("UTC", "GMT", "Z") else "")
        if not timezone:
            raise InvalidArgument(
                f"the times in '{column.heading}' (such as {sample}) name no time zone; say which one is meant, "
                "such as --timezone UTC or --timezone Europe/Berlin",
                field="timezone",
                reason="NAIVE_TIME",
            )
    elif kind == "epoch":
        timezone = ""
    return TimePlan(
        position,
        column.heading,
        kind,
        unit_us,
        written,
        timezone,
        options.ambiguous,
        sample,
    )


def _time_kind(column: _Column, options: PlanOptions) -> tuple[TimeKind, float, str]:
    """(kind, microseconds of an epoch's unit, strptime format)."""
    if options.time_format:
        return "format", 1.0, options.time_format
    if column.type is not None:
        if pa.types.is_timestamp(column.type):
            return ("zoned" if column.type.tz else "naive"), 1.0, ""
        if pa.types.is_date(column.type):
            return "naive", 1.0, ""
    if column.share(_NUMBER.fullmatch) > 0.5:
        numbers = sorted(
            abs(float(cell.replace(",", "."))) for cell in column.cells if _NUMBER.fullmatch(cell)
        )
        middle = numbers[len(numbers) // 2]
        for limit, unit_us in ((1e11, 1e6), (1e14, 1e3), (1e17, 1.0)):
            if middle < limit:
                return "epoch", unit_us, ""
        return "epoch", 1e-3, ""
    if column.share(_ISO.fullmatch) > 0.5:
        zoned = column.share(lambda cell: (match := _ISO.fullmatch(cell)) and match["zone"])
        return ("zoned" if zoned > 0.5 else "naive"), 1.0, ""
    parts = [match for cell in column.cells if (match := _PARTS.match(cell))]
    if column.cells and len(parts) > len(column.cells) / 2:
        return "format", 1.0, _written_format(column, parts)
    raise InvalidArgument(
        f"the times in '{column.heading}' (such as '{column.cells[0] if column.cells else ''}') are of no known form; "
        "describe them with --time-format, such as --time-format '%d %b %Y %H:%M'",
        field="time_format",
        reason="UNKNOWN_TIME_FORMAT",
    )


def _written_format(column: _Column, parts: Sequence[re.Match[str]]) -> str:
    """`strptime` format of 24.12.2026 18:30 and 12/24/2026 18:30."""
    mark, sample = parts[0][2], parts[0]
    day_first = mark == "." or any(int(part[1]) > 12 for part in parts)
    if not day_first and not any(int(part[3]) > 12 for part in parts):
        raise InvalidArgument(
            f"in '{column.heading}' {sample[0]} may have the day or the month first; say which with "
            f"--time-format '%d{mark}%m{mark}%Y %H:%M' or '%m{mark}%d{mark}%Y %H:%M'",
            field="time_format",
            reason="UNKNOWN_TIME_FORMAT",
        )
    date = f"%d{mark}%m{mark}%Y" if day_first else f"%m{mark}%d{mark}%Y"
    if sample[5] is None:
        return date
    return f"{date}{', ' if ',' in sample[5] else ' '}%H:%M{':%S' if sample['seconds'] else ''}"


def _device_column(columns: Sequence[_Column], options: PlanOptions, time: int) -> int | None:
    headings = [column.heading for column in columns]
    if options.device_column:
        position = headings.index(options.device_column)
        if position == time:
            raise InvalidArgument("the time and the device cannot be the same column", field="device_column")
        return position
    if options.device:
        return None
    for position, heading in enumerate(headings):
        if position != time and to_metric(heading) in _DEVICE_NAMES and heading not in options.skip:
            return position
    return None


def _device(path: Path, options: PlanOptions) -> str:
    if options.device:
        if not is_device(options.device):
            raise InvalidArgument(
                f"'{options.device}' is not a device id; ids are letters, digits and . _ : -, such as "
                f"{to_device(options.device) or 'sensor-1'}",
                field="device",
            )
        return options.device
    stem = path.name
    while Path(stem).suffix.lower() in (*COMPRESSED, ".csv", ".tsv", ".txt", ".parquet", ".pq"):
        stem = Path(stem).stem
    return to_device(stem) or "imported"


def _is_boolean(column: _Column) -> bool:
    if column.type is not None:
        return bool(pa.types.is_boolean(column.type))
    return column.share(lambda cell: cell.lower() in BOOLEANS) > 0.5


def _why_no_metric(column: _Column, dialect: Dialect) -> str:
    """Why a column cannot become a metric; "" when it can."""
    kind = column.type
    if kind is not None:
        numeric = (
            pa.types.is_integer(kind)
            or pa.types.is_floating(kind)
            or pa.types.is_boolean(kind)
            or pa.types.is_decimal(kind)
        )
        return "" if numeric else f"holds {kind}, not numbers"
    if not column.cells:
        return "has no values in the first rows"
    mark = dialect.decimal_point

    def number(cell: str) -> bool:
        return _NUMBER.fullmatch(cell) is not None and ("," not in cell or mark == ",")

    if _is_boolean(column) or column.share(number) > 0.5:
        return ""
    return f"holds text, such as '{column.cells[0][:30]}'"


def _metrics(
    columns: Sequence[_Column], usable: Sequence[tuple[int, bool]], options: PlanOptions
) -> tuple[ColumnPlan, ...]:
    names = metric_names([columns[position].heading for position, _ in usable])
    planned = []
    for (position, boolean), (metric, unit) in zip(usable, names, strict=True):
        column = columns[position]
        wanted = options.metrics.get(column.heading, metric)
        if not is_metric(wanted):
            raise InvalidArgument(
                f"'{wanted}' cannot be the name of a metric; use lower case, digits and _, such as "
                f"{to_metric(wanted) or 'temperature'}",
                field="metric",
            )
        sample = column.cells[0] if column.cells else ""
        planned.append(ColumnPlan(position, column.heading, wanted, unit, boolean, sample))
    used = [one.metric for one in planned]
    twice = {metric for metric in used if used.count(metric) > 1}
    if twice:
        raise InvalidArgument(
            f"two columns would become the metric '{min(twice)}'; name one otherwise with --metric HEADING=NAME",
            field="metric",
        )
    return tuple(planned)
