"""`tidewire query`: readings, to look at or to work with.

tidewire query                                       the newest value of every series
tidewire query buoy                                  one device: newest values and the curve of the last day
tidewire query buoy temperature --last 7d --rows     the readings themselves
tidewire query buoy --last 30d --aggregate avg,max --every 1d
tidewire query --filter "type = pump" --last 1d --aggregate p95 --group-by site
tidewire query --series                              which series there are, and from when to when
"""

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from tidewire_cli.given import parse_moment, parse_span
from tidewire_cli.looks import ago, human_value, utc_text
from tidewire_cli.output import Column, Format
from tidewire_cli.session import Session

if TYPE_CHECKING:
    from tidewire_client import AsyncQueryClient, SeriesColumns

_PEOPLE_ROWS = 50


async def query(
    session: Session,
    device: Annotated[
        str,
        typer.Argument(
            metavar="DEVICE", help="Device id, or several with commas; none: all.", show_default=False
        ),
    ] = "",
    metrics: Annotated[
        list[str] | None,
        typer.Argument(metavar="METRIC", help="Metrics; none: all.", show_default=False),
    ] = None,
    last: Annotated[
        str,
        typer.Option(
            "--last", metavar="SPAN", help="From so long ago, such as 1h or 7d.", show_default=False
        ),
    ] = "",
    start: Annotated[
        str,
        typer.Option(
            "--start",
            metavar="TIME",
            help="From here: ISO 8601 (UTC without a zone) or -2h.",
            show_default=False,
        ),
    ] = "",
    end: Annotated[
        str, typer.Option("--end", metavar="TIME", help="Up to here, exclusive.", show_default=False)
    ] = "",
    aggregate: Annotated[
        str,
        typer.Option(
            "--aggregate",
            "-a",
            metavar="FUNCTIONS",
            help="avg, min, max, sum, count, first, last, stddev, p50, p95, p99; several with commas.",
            show_default=False,
        ),
    ] = "",
    every: Annotated[
        str,
        typer.Option(
            "--every", metavar="SPAN", help="Width of a bucket; none: one over all.", show_default=False
        ),
    ] = "",
    across: Annotated[bool, typer.Option("--across", help="Aggregate all the devices together.")] = False,
    filter_text: Annotated[
        str,
        typer.Option(
            "--filter",
            metavar="FILTER",
            help='Devices by what they are, such as "type = pump AND labels.site = north".',
            show_default=False,
        ),
    ] = "",
    group_by: Annotated[
        str,
        typer.Option(
            "--group-by",
            metavar="LABEL",
            help="Aggregate the devices of each value of a label together.",
            show_default=False,
        ),
    ] = "",
    rows: Annotated[bool, typer.Option("--rows", "-r", help="The readings themselves.")] = False,
    series: Annotated[bool, typer.Option("--series", help="Which series there are.")] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most so many rows or series.", show_default=False)
    ] = None,
) -> None:
    """Show readings: newest values, a device's curve, rows, or aggregates.

    Without a device: the newest value of every series. With one: its newest values and curves of the last day (or of
    --last, --start, --end). --rows shows the readings, --aggregate FUNCTIONS --every SPAN buckets of them; --filter
    selects devices as in "device list", and --group-by LABEL aggregates those of one value together. With --output
    json, yaml or csv all of it is for programs.
    """
    from tidewire_client import InvalidArgument

    now = datetime.now(UTC)
    since = now - parse_span(last, "--last") if last else None
    if start and last:
        raise InvalidArgument("give --last or --start, not both", field="last")
    if start:
        since = parse_moment(start, "--start", now)
    until = parse_moment(end, "--end", now) if end else None
    if since is not None and until is not None and since >= until:
        raise InvalidArgument("--end must be later than --start", field="end")
    if sum((bool(aggregate), rows, series)) > 1:
        raise InvalidArgument("--aggregate, --rows and --series go one at a time", field="rows")
    if every and not aggregate:
        raise InvalidArgument("--every needs --aggregate, such as --aggregate avg", field="every")
    if group_by and not aggregate:
        raise InvalidArgument("--group-by needs --aggregate, such as --aggregate avg", field="group-by")
    if group_by and across:
        raise InvalidArgument("give --group-by or --across, not both", field="group-by")
    names = [name for name in device.split(",") if name]
    if names and filter_text:
        raise InvalidArgument("give devices or --filter, not both", field="filter")
    group_by = group_by.removeprefix("labels.")
    wanted = list(metrics or [])
    client = await session.query()
    if series:
        await _series(session, client, names, filter_text, limit)
    elif aggregate:
        chosen = _Chosen(names, filter_text, group_by, across)
        await _aggregates(session, client, chosen, wanted, aggregate, every, (since, until))
    elif rows:
        if len(names) != 1:
            raise InvalidArgument("--rows needs one device: tidewire query DEVICE --rows", field="device")
        await _rows(session, client, names[0], wanted, (since, until), limit)
    elif len(names) == 1 and session.out.for_people:
        await _curves(session, client, names[0], wanted, since, until)
    else:
        await _latest(session, client, names, filter_text, wanted, limit)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Which devices are aggregated, and how together."""

    devices: list[str]
    filter: str
    group_by: str
    across: bool


async def _latest(
    session: Session,
    client: "AsyncQueryClient",
    devices: list[str],
    filter_text: str,
    metrics: list[str],
    limit: int | None,
) -> None:
    from tidewire_client.times import now_us

    cap = limit or (1000 if session.out.for_people else None)
    values = await client.latest(devices, metrics, filter=filter_text, limit=cap)
    now = now_us()
    session.out.rows(
        [
            {
                "device": one.device,
                "metric": one.metric,
                "time": utc_text(one.time_unix_us),
                "age": (now - one.time_unix_us) / 1e6,
                "value": one.value,
            }
            for one in values
        ],
        (
            Column("device", "DEVICE"),
            Column("metric", "METRIC"),
            Column("value", "VALUE", human_value, right=True),
            Column("age", "AGE", lambda age: ago(0, round(age * 1e6))),
            Column("time", "TIME"),
        ),
        empty=await _nothing(client, devices, metrics, filter_text) if not values else "",
    )
    if cap is not None and len(values) >= cap and session.out.for_people:
        session.out.warn(f"The first {cap}; see more with --limit, or name a device.")


async def _nothing(
    client: "AsyncQueryClient", devices: list[str], metrics: list[str], filter_text: str = ""
) -> str:
    """What to say when nothing was found: which metrics there are, when one was asked for that there is not."""
    there = await _known_metrics(client, devices, filter_text) if metrics else []
    if not there and filter_text:
        return "There are no readings of devices that the filter admits."
    if not there:
        return "There are no readings" + (f" of {', '.join(devices)}." if devices else " yet.")
    known = ", ".join(there[:20]) + (", …" if there[20:] else "")
    whose = ", ".join(devices) or ("those devices" if filter_text else "all devices")
    return f"There are no readings of {', '.join(metrics)}. The metrics of {whose} are: {known}."


async def _series(
    session: Session, client: "AsyncQueryClient", devices: list[str], filter_text: str, limit: int | None
) -> None:
    found = await client.series(devices, filter=filter_text, limit=limit)
    session.out.rows(
        [
            {
                "device": one.device,
                "metric": one.metric,
                "first_time": utc_text(one.first_time_unix_us),
                "last_time": utc_text(one.last_time_unix_us),
            }
            for one in found
        ],
        (
            Column("device", "DEVICE"),
            Column("metric", "METRIC"),
            Column("first_time", "FIRST"),
            Column("last_time", "LAST"),
        ),
        empty="There are no series yet.",
    )


async def _rows(
    session: Session,
    client: "AsyncQueryClient",
    device: str,
    metrics: list[str],
    span: tuple[datetime | None, datetime | None],
    limit: int | None,
) -> None:
    cap = limit or (_PEOPLE_ROWS if session.out.for_people else 0)
    ask = cap + 1 if session.out.for_people and not limit else cap
    table = await client.read_series(device, metrics, start=span[0], end=span[1], max_rows=ask)
    shown = len(table) if not cap else min(cap, len(table))
    if session.out.format is Format.CSV:
        _csv(table, shown)
        return
    listed = [
        {
            "time": utc_text(int(table.time_unix_us[row])),
            **{
                metric: value
                for metric, value in zip(table.metrics, table.values[:, row].tolist(), strict=True)
                if value == value
            },
        }
        for row in range(shown)
    ]
    if not session.out.for_people:
        session.out.data({"device": device, "metrics": list(table.metrics), "rows": listed})
        return
    columns = [Column(metric, metric.upper(), human_value, right=True) for metric in table.metrics]
    session.out.rows(
        listed, (Column("time", "TIME"), *columns), empty=f"{device} has no readings in this time."
    )
    if len(table) > shown:
        session.out.warn(f"The first {shown} rows; see more with --limit, or all with --output csv.")


def _csv(table: "SeriesColumns", rows: int) -> None:
    """Columns as CSV, thousands of rows at a time."""
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["time", *table.metrics])
    for start in range(0, rows, 10_000):
        stop = min(start + 10_000, rows)
        times = map(utc_text, table.time_unix_us[start:stop].tolist())
        cells = (
            ("" if value != value else value for value in row)
            for row in table.values[:, start:stop].T.tolist()
        )
        writer.writerows([time, *row] for time, row in zip(times, cells, strict=True))


async def _known_metrics(client: "AsyncQueryClient", devices: list[str], filter_text: str = "") -> list[str]:
    return sorted({one.metric for one in await client.series(devices, filter=filter_text)})


async def _aggregates(
    session: Session,
    client: "AsyncQueryClient",
    chosen: _Chosen,
    metrics: list[str],
    functions: str,
    every: str,
    span: tuple[datetime | None, datetime | None],
) -> None:
    asked = [name.strip().lower() for name in functions.split(",") if name.strip()]
    if not metrics:
        metrics = await _known_metrics(client, chosen.devices, chosen.filter)
    if not metrics:
        session.out.rows([], (), empty="There are no readings.")
        return
    found = await client.aggregate(
        chosen.devices,
        metrics,
        asked,
        start=span[0],
        end=span[1],
        every=parse_span(every, "--every") if every else None,
        across_devices=chosen.across,
        filter=chosen.filter,
        group_by_label=chosen.group_by,
    )
    by = "" if chosen.across else "group" if chosen.group_by else "device"
    listed = [
        {
            **({by: one.group if chosen.group_by else one.device} if by else {}),
            "metric": one.metric,
            **({"time": utc_text(int(one.bucket_start_unix_us[bucket]))} if every else {}),
            **{name: float(one.columns[name][bucket]) for name in asked},
            "tier": one.tier,
        }
        for one in found
        for bucket in range(len(one.bucket_start_unix_us))
    ]
    columns = [Column("metric", "METRIC"), Column("time", "TIME")] if every else [Column("metric", "METRIC")]
    if by and len(chosen.devices) != 1:
        columns.insert(0, Column(by, (chosen.group_by or by).upper()))
    columns += [Column(name, name.upper(), human_value, right=True) for name in asked]
    session.out.rows(listed, columns, empty="There are no readings in this time.")


async def _curves(
    session: Session,
    client: "AsyncQueryClient",
    device: str,
    metrics: list[str],
    since: datetime | None,
    until: datetime | None,
) -> None:
    from tidewire_cli.curves import show

    values = await client.latest([device], metrics)
    if values:
        await show(session, client, values, since, until)
    else:
        session.out.note(await _nothing(client, [device], metrics))
