"""How numbers, times and curves look in a terminal. Pure functions, used by every command and by `tidewire demo`."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime

_BLOCKS = "▁▂▃▄▅▆▇█"
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def human_count(number: float) -> str:
    """`12`, `1,234`, `52.3 k`, `1.25 M`: three or four figures."""
    size = abs(number)
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            scaled = number / (1e3 if unit == "k" else limit)
            return f"{scaled:.3g} {unit}" if abs(scaled) < 999.5 else f"{scaled:,.0f} {unit}"
    return f"{number:,.0f}" if number == int(number) else f"{number:,.1f}"


def counted(number: int, what: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def human_bytes(number: float) -> str:
    """`512 B`, `1.4 KiB`, `23 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(number) < 1024 or unit == "TiB":
            return f"{number:.0f} {unit}" if unit == "B" or abs(number) >= 10 else f"{number:.1f} {unit}"
        number /= 1024
    raise AssertionError  # the loop ends at TiB


def human_value(value: float, figures: int = 7) -> str:
    """A measured value: so many significant figures, more for a larger whole part; no trailing zeros; `–` for none."""
    if math.isnan(value):
        return "–"
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e15 else _rounded(value, figures)


def _rounded(value: float, figures: int) -> str:
    whole = len(f"{abs(value):.0f}") if abs(value) < 1e15 else 0
    return f"{value:.{max(figures, whole)}g}"


def human_span(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min`, `5 h`, `4 d`."""
    seconds = abs(seconds)
    for limit, size, unit in ((90, 1, "s"), (90 * 60, 60, "min"), (36 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds:.1f} {unit}" if seconds < 10 and size == 1 else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:,.0f} d"


def ago(time_us: int, now_us: int) -> str:
    """`12 s ago`, `in 3 min`."""
    seconds = (now_us - time_us) / 1e6
    return f"{human_span(seconds)} ago" if seconds >= 0 else f"in {human_span(seconds)}"


def utc_text(time_us: int) -> str:
    """`2026-11-22T10:15:00Z`, with as many decimals as there are."""
    seconds, micros = divmod(time_us, 1_000_000)
    try:
        text = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()
    except (ValueError, OverflowError):
        return f"{time_us} µs"
    if micros:
        text += f".{micros:06d}".rstrip("0")
    return text + "Z"


def sparkline(values: Sequence[float], *, width: int | None = None, base: float | None = None) -> str:
    """The values as a line of blocks; a blank where there is none (NaN). Longer ones are averaged to `width`.

    The lowest block is the least value, or `base` when that is lower: 0 for rates.
    """
    points = _fold(list(values), width) if width else list(values)
    known = [value for value in points if not math.isnan(value)]
    if not known:
        return " " * len(points)
    low, high = min(known), max(known)
    if base is not None:
        low = min(base, low)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(" " if math.isnan(v) else _BLOCKS[round((v - low) * scale)] for v in points)


def _fold(values: list[float], width: int) -> list[float]:
    """Averages of `width` equal parts; as they are when there are no more than that."""
    if len(values) <= width:
        return values
    out = []
    for place in range(width):
        part = values[place * len(values) // width : (place + 1) * len(values) // width]
        known = [value for value in part if not math.isnan(value)]
        out.append(sum(known) / len(known) if known else math.nan)
    return out


def chart(values: Sequence[float], *, width: int = 60, height: int = 8) -> list[str]:
    """The values as a curve of braille dots, `height` lines of at most `width` characters, the extremes beside it.

    Values are taken as evenly spaced; NaN leaves a gap.
    """
    points = _fold(list(values), width * 2)
    known = [value for value in points if not math.isnan(value)]
    if not known:
        return []
    low, high = min(known), max(known)
    rows, columns = height * 4, (len(points) + 1) // 2
    scale = (rows - 1) / (high - low) if high > low else 0.0
    cells = [[0] * columns for _ in range(height)]
    before: int | None = None
    for x, value in enumerate(points):
        if math.isnan(value):
            before = None
            continue
        y = round((high - value) * scale) if scale else rows // 2
        if before is None or y == before:
            dots = range(y, y + 1)
        else:  # a line up or down from the point before
            dots = range(before + 1, y + 1) if y > before else range(y, before)
        for dot in dots:
            cells[dot // 4][x // 2] |= _DOTS[dot % 4][x % 2]
        before = y
    labels = {0: human_value(high, 4), height - 1: human_value(low, 4)}
    edge = max(map(len, labels.values()))
    return [
        f"{labels.get(number, ''):>{edge}} ┤" + "".join(chr(0x2800 + cell) for cell in row)
        for number, row in enumerate(cells)
    ]
