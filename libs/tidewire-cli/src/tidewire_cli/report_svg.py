"""A chart of a report as a file of its own: SVG without scripts, fonts or anything else from outside.

A line a device or label value: name, bars over the periods, total. Every text is escaped.
"""

import math
import re
from collections.abc import Callable, Sequence
from xml.sax.saxutils import escape

from tidewire_cli.report_lines import Line, look_of

_WIDTH, _NAME_WIDTH, _TOTAL_WIDTH = 960, 260, 120
_HEAD, _ROW, _FOOT = 64, 28, 34
_BARS = _WIDTH - _NAME_WIDTH - _TOTAL_WIDTH - 48
_NAME = 36
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1f2937}.t{font-size:17px;font-weight:600}.s{fill:#6b7280}"
    ".b{fill:#2563eb}.g{stroke:#e5e7eb}"
)


def svg(lines: Sequence[Line], column: str, title: str, subtitle: str, periods: Sequence[str]) -> str:
    """The document. `periods`: names of the periods, one for each value of a line."""
    look = look_of(column)
    height = _HEAD + _ROW * len(lines) + _FOOT
    left = _NAME_WIDTH + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{_text(title)}</title><style>{_STYLE}</style>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text class="t" x="24" y="28">{_text(title)}</text>',
        f'<text class="s" x="24" y="48">{_text(subtitle)}</text>',
    ]
    most = max((abs(line.total) for line in lines), default=0.0)
    for number, line in enumerate(lines):
        top = _HEAD + number * _ROW
        base = top + _ROW - 4
        cut = line.name if len(line.name) <= _NAME else line.name[: _NAME - 1] + "…"
        parts.append(f'<text x="24" y="{top + 18}">{_text(cut)}<title>{_text(line.name)}</title></text>')
        parts.append(f'<line class="g" x1="{left}" x2="{left + _BARS}" y1="{base}" y2="{base}"/>')
        if len(line.values) == 1:
            width = _BARS * abs(line.total) / most if most else 0.0
            parts.append(
                f'<rect class="b" x="{left}" y="{top + 5}" width="{width:.1f}" height="{_ROW - 10}"/>'
            )
        else:
            parts += _bars(line, left, top, base, look, periods)
        parts.append(
            f'<text x="{_WIDTH - 24}" y="{top + 18}" text-anchor="end">{_text(look(line.total))}</text>'
        )
    if periods:
        foot = _HEAD + _ROW * len(lines) + 20
        parts.append(f'<text class="s" x="{left}" y="{foot}">{_text(periods[0])}</text>')
        if len(periods) > 1:
            parts.append(
                f'<text class="s" x="{left + _BARS}" y="{foot}" text-anchor="end">{_text(periods[-1])}</text>'
            )
    return "\n".join([*parts, "</svg>", ""])


def _bars(
    line: Line, left: int, top: int, base: int, look: Callable[[float], str], periods: Sequence[str]
) -> list[str]:
    known = [abs(value) for value in line.values.tolist() if not math.isnan(value)]
    most = max(known, default=0.0)
    step = _BARS / len(line.values)
    out = []
    for place, value in enumerate(line.values.tolist()):
        if math.isnan(value):
            continue
        high = max(1.0, (base - top - 4) * abs(value) / most) if most else 1.0
        told = f"{periods[place]}: {look(value)}"
        out.append(
            f'<rect class="b" x="{left + place * step:.1f}" y="{base - high:.1f}" width="{max(0.5, step - 1):.1f}" '
            f'height="{high:.1f}"><title>{_text(told)}</title></rect>'
        )
    return out


def _text(text: str) -> str:
    """Text as XML has it: marks escaped, characters that XML cannot hold replaced."""
    return escape(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text))
