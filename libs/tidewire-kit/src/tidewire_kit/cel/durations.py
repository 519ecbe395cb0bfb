"""Durations as the Common Expression Language writes them: `90s`, `1.5h`, `1h30m`, `250ms`. Called by `functions`."""

import re
from typing import Final

from tidewire_kit.errors import InvalidArgument

_UNITS_US: Final = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
_PART = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,9}))?(us|ms|s|m|h|d)")
_WHOLE = re.compile(rf"-?(?:{_PART.pattern}){{1,6}}")
_MOST_US = 100 * 366 * _UNITS_US["d"]


def duration_us(text: str) -> int:
    """Microseconds; days (`d`) of 24 hours are known besides CEL's units. Raises InvalidArgument("duration", ...)."""
    if len(text) > 64 or _WHOLE.fullmatch(text) is None:
        raise InvalidArgument("duration", 'a duration is written like "90s", "5m", "1h30m" (us ms s m h d)')
    total = 0
    for whole, fraction, unit in _PART.findall(text):
        scale = _UNITS_US[unit]
        total += int(whole) * scale + (int(fraction) * scale // 10 ** len(fraction) if fraction else 0)
    if total > _MOST_US:
        raise InvalidArgument("duration", "a duration is at most 100 years")
    return -total if text.startswith("-") else total


def shown_duration(us: int) -> str:
    """For people: in the largest unit that divides it."""
    for unit in ("d", "h", "m", "s", "ms"):
        if us and us % _UNITS_US[unit] == 0:
            return f"{us // _UNITS_US[unit]}{unit}"
    return f"{us}us"
