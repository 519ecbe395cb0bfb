"""What people type on the command line, to values: moments, spans, pairs. Raises InvalidArgument naming the option."""

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from tidewire_client.errors import InvalidArgument

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|sec|m|min|h|d|w)")
_SECONDS = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}


def parse_span(text: str, option: str) -> timedelta:
    """`90s`, `15m`, `1h30m`, `7d`, `2w`. Raises InvalidArgument also for nothing and for 0."""
    compact = text.strip().lower()
    parts = _SPAN.findall(compact)
    if not parts or _SPAN.sub("", compact).strip():
        raise InvalidArgument(
            f"{option}: '{text}' is not a span of time; write 90s, 15m, 1h30m or 7d", field=option
        )
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if seconds <= 0:
        raise InvalidArgument(f"{option}: a span must be longer than nothing", field=option)
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        raise InvalidArgument(f"{option}: '{text}' is too long", field=option) from None


def parse_moment(text: str, option: str, now: datetime | None = None) -> datetime:
    """ISO 8601 (a time without a zone is UTC, as all times are shown), `now`, or a span back from now: `-2h`."""
    now = now or datetime.now(UTC)
    stripped = text.strip()
    if stripped == "now":
        return now
    if stripped.startswith("-"):
        return now - parse_span(stripped[1:], option)
    try:
        moment = datetime.fromisoformat(stripped)
    except ValueError:
        raise InvalidArgument(
            f"{option}: '{text}' is not a time; write 2026-11-22T10:15:00Z, 2026-11-22, -2h or now",
            field=option,
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def parse_pairs(given: Iterable[str], option: str, example: str) -> dict[str, str]:
    """`name=value` each. Raises InvalidArgument also for a name that is given twice."""
    pairs: dict[str, str] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator or not name.strip():
            raise InvalidArgument(f"{option}: '{text}' is not NAME=VALUE, such as {example}", field=option)
        if name.strip() in pairs:
            raise InvalidArgument(f"{option}: '{name.strip()}' is given twice", field=option)
        pairs[name.strip()] = value.strip()
    return pairs


def parse_number(text: str, option: str) -> float:
    """A finite number; `true` and `false` are 1 and 0."""
    word = text.strip().lower()
    if word in ("true", "false"):
        return float(word == "true")
    try:
        number = float(text)
    except ValueError:
        raise InvalidArgument(f"{option}: '{text}' is not a number", field=option) from None
    if not math.isfinite(number):
        raise InvalidArgument(
            f"{option}: '{text}' is not finite; leave out what was not measured", field=option
        )
    return number


def parse_location(text: str, option: str) -> tuple[float, float]:
    """`latitude,longitude` in degrees."""
    latitude, separator, longitude = text.partition(",")
    where = (
        (parse_number(latitude, option), parse_number(longitude, option)) if separator else (math.inf, 0.0)
    )
    if not (-90 <= where[0] <= 90 and -180 <= where[1] <= 180):
        raise InvalidArgument(
            f"{option}: '{text}' is not LATITUDE,LONGITUDE in degrees, such as 43.18,-70.43", field=option
        )
    return where
