"""Columns of local and written times to microseconds since 1970, the hours that clocks skip or repeat included.

A local time that the zone's clocks never show, or show twice, is not guessed: it stays out (and is reported) unless the
plan says which of the two passes is meant. Called by `blocks` and by `propose`.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidewire_cli.importing.plan import Ambiguous, TimePlan
from tidewire_client import InvalidArgument

MISSING = np.iinfo(np.int64).min
"""Stands for a time that could not be read."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - local times before their zone is applied


def check_timezone(name: str) -> None:
    """Raises InvalidArgument, with names that are close, unless it is a zone of the IANA database."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        asked = name.rsplit("/", 1)[-1].replace(" ", "_").lower()
        close = sorted(zone for zone in available_timezones() if asked and asked in zone.lower())[:3]
        hint = f"did you mean {', '.join(close)}?" if close else "names are like Europe/Berlin or UTC"
        raise InvalidArgument(
            f"'{name}' is not a time zone: {hint}", field="timezone", reason="UNKNOWN_TIMEZONE"
        ) from None


def micros(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """int64 (rows,) microseconds of a timestamp column; MISSING for nulls."""
    unit = column.type.unit
    whole = column.cast(pa.int64())
    missing = whole.null_count > 0
    values: NDArray[np.int64] = pc.fill_null(whole, MISSING).to_numpy() if missing else whole.to_numpy()
    here = values != MISSING if missing else slice(None)
    out = values.copy()
    if unit == "ns":
        out[here] //= 1000
    else:
        out[here] *= {"s": 1_000_000, "ms": 1000, "us": 1}[unit]
    return out


def localize(local_us: NDArray[np.int64], timezone: str, ambiguous: Ambiguous) -> NDArray[np.int64]:
    """UTC of local times, both int64 (rows,) in microseconds.

    MISSING where the clocks of `timezone` skip the time, and, with `refuse`, where they show it twice.
    """
    if timezone.upper() in ("UTC", "Z", "ETC/UTC"):
        return local_us
    here = local_us != MISSING
    times = pa.array(local_us, pa.timestamp("us"), mask=~here)
    both = {
        pass_: micros(
            pa.chunked_array([pc.assume_timezone(times, timezone, ambiguous=pass_, nonexistent=pass_)])
        )
        for pass_ in ("earliest", "latest")
    }
    first, last = both["earliest"], both["latest"]
    chosen = last.copy() if ambiguous == "later" else first.copy()
    unclear = first != last
    if unclear.any():
        shown = micros(
            pa.chunked_array([pc.local_timestamp(pa.array(first[unclear], pa.timestamp("us", tz=timezone)))])
        )
        skipped = shown != local_us[unclear]
        refused = np.ones_like(skipped) if ambiguous == "refuse" else skipped
        chosen[np.flatnonzero(unclear)[refused]] = MISSING
    return chosen


def explain_missing(text: str | None, plan: TimePlan) -> str:
    """Why this text gave no time."""
    if not text:
        return "no time"
    try:
        local = _parse(text, plan)
    except ValueError:
        return f"'{text}' is not a time"
    if isinstance(local, float) or local.tzinfo is not None or not plan.timezone:
        return f"'{text}' is not a time that can be kept"
    zone = ZoneInfo(plan.timezone)
    there_and_back = local.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None)
    if there_and_back != local:
        return f"the clocks of {plan.timezone} never showed '{text}'"
    return f"the clocks of {plan.timezone} showed '{text}' twice; say --ambiguous earlier or later"


def _parse(text: str, plan: TimePlan) -> datetime | float:
    text = text.strip()
    if plan.kind == "epoch":
        return float(text)
    if plan.kind == "format":
        return datetime.strptime(text, plan.format)  # noqa: DTZ007 - the zone follows from the plan
    if text.endswith((" UTC", " GMT")):
        text = text[:-4] + "Z"
    return datetime.fromisoformat(text)


def parse_slowly(texts: list[str | None], plan: TimePlan) -> NDArray[np.int64]:
    """int64 (rows,) of a column in which some cells are no times: MISSING there. Only for such blocks."""
    out = np.full(len(texts), MISSING, np.int64)
    local = np.zeros(len(texts), bool)
    for row, text in enumerate(texts):
        if text is None:
            continue
        try:
            moment = _parse(text, plan)
            if isinstance(moment, float):
                out[row] = round(moment * plan.unit_us)
            elif moment.tzinfo is None:
                if plan.timezone:
                    out[row] = (moment - _NAIVE_EPOCH) // _MICROSECOND
                    local[row] = True
            else:
                out[row] = (moment - _EPOCH) // _MICROSECOND
        except (ValueError, OverflowError):
            continue
    if local.any():
        out[local] = localize(out[local], plan.timezone, plan.ambiguous)
    return out
