"""A device for people: newest values and curves in the terminal. Used by `tidewire query`."""

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tidewire_cli.looks import ago, chart, human_value, utc_text
from tidewire_cli.session import Session

if TYPE_CHECKING:
    import numpy as np

    from tidewire_client import Aggregate, AsyncQueryClient, Latest

_CURVE_POINTS = 120
_HOUR, _DAY = 3600, 86_400
_STEPS = (
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800),
    *(hours * _HOUR for hours in (1, 2, 3, 6, 12)),
    *(days * _DAY for days in (1, 2, 3, 4, 7, 14, 30)),
)


async def show(
    session: Session,
    client: "AsyncQueryClient",
    values: "Sequence[Latest]",
    since: datetime | None,
    until: datetime | None,
) -> None:
    """Curves of one device's metrics over the time asked for, or the last day there is. `values`: at least one."""
    from tidewire_client.times import now_us, to_datetime

    device = values[0].device
    now = datetime.now(UTC)
    newest = to_datetime(max(one.time_unix_us for one in values))
    end = until or max(min(now, newest + timedelta(seconds=1)), newest + timedelta(microseconds=1))
    begin = since or end - timedelta(days=1)
    if begin >= end:
        newest_text = utc_text(max(one.time_unix_us for one in values))
        session.out.note(
            f"{device} has no readings since {_to_the_second(begin)}; its newest is of {newest_text}."
        )
        return
    step = next((s for s in _STEPS if s * _CURVE_POINTS >= (end - begin).total_seconds()), _STEPS[-1])
    found = await client.aggregate(
        [device],
        [one.metric for one in values],
        ["avg", "min", "max", "count"],
        start=begin,
        end=end,
        every=step,
    )
    curves = {one.metric: one for one in found}
    width = min(100, shutil.get_terminal_size((80, 24)).columns) - 14
    print(f"{device}, {_to_the_second(begin)} to {_to_the_second(end)}")
    for one in values:
        print(
            f"\n{one.metric}  {human_value(one.value)}  "
            f"({ago(one.time_unix_us, now_us())}, {utc_text(one.time_unix_us)})"
        )
        curve = curves.get(one.metric)
        if curve is None or not len(curve.bucket_start_unix_us):
            print("  no readings in this time")
            continue
        evenly = _evenly(curve, begin, end, step)
        counted = int(curve.columns["count"].sum())
        if len(curve.bucket_start_unix_us) >= 3:
            height = 6 if len(values) <= 3 else 3
            for line in chart(evenly.tolist(), width=max(20, width), height=height):
                print(f"  {line}")
        mean = float((curve.columns["avg"] * curve.columns["count"]).sum() / max(1, counted))
        print(
            f"  {counted:,} {'reading' if counted == 1 else 'readings'}, "
            f"min {human_value(float(curve.columns['min'].min()))}, mean {human_value(mean, 5)}, "
            f"max {human_value(float(curve.columns['max'].max()))}"
        )


def _to_the_second(moment: datetime) -> str:
    return utc_text(_us(moment) // 1_000_000 * 1_000_000)


def _us(moment: datetime) -> int:
    from tidewire_client.times import to_unix_us

    return to_unix_us(moment)


def _evenly(curve: "Aggregate", begin: datetime, end: datetime, step_seconds: int) -> "np.ndarray":
    """Buckets put in their places in time, float64 (places,); NaN where there is none."""
    import numpy as np

    step_us = step_seconds * 1_000_000
    first = _us(begin) // step_us
    places = _us(end) // step_us - first + 1
    evenly = np.full(places, np.nan)
    at = curve.bucket_start_unix_us // step_us - first
    inside = (at >= 0) & (at < places)
    evenly[at[inside]] = curve.columns["avg"][inside]
    known = np.flatnonzero(~np.isnan(evenly))
    gaps = np.diff(known)
    if len(gaps) and np.median(gaps) > 1:  # measured less often than a bucket is wide: join the points
        return np.asarray(np.interp(np.arange(places), known, evenly[known], np.nan, np.nan))
    return evenly
