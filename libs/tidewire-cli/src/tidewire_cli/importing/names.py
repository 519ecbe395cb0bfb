"""From the headings people give columns to names of metrics: `temperature (celsius)` → `temperature`, in celsius.

Pure functions, called while a plan is proposed.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

_UNIT = re.compile(r"^(?P<name>.*?\S)\s*[(\[](?P<unit>[^()\[\]]*)[)\]]\s*$", re.DOTALL)
_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SHORT_UNIT = re.compile(r"\b([a-z])([A-Z][A-Za-z0-9]{0,2})\b")  # pH, kWh, mAh are one word
_SPELLED = str.maketrans(
    {"°": " deg ", "\u00b5": "u", "\u03bc": "u", "%": " percent ", "\u03a9": " ohm ", "\u2126": " ohm "}
)
_METRIC = re.compile(r"[a-z][a-z0-9_]{0,62}")
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,62}")
LONGEST = 63


def split_unit(heading: str) -> tuple[str, str]:
    """(`temperature`, `celsius`) of `temperature (celsius)` or `temperature [celsius]`; unit "" when there is none."""
    match = _UNIT.match(heading.strip())
    if match is None:
        return heading.strip(), ""
    return match["name"].strip(), match["unit"].strip()


def to_metric(text: str) -> str:
    """A metric name close to the text: lower case, words joined by `_`, at most 63 characters; "" when none is left."""
    text = _SHORT_UNIT.sub(lambda match: match[0].lower(), text.strip())
    text = unicodedata.normalize("NFKD", text.translate(_SPELLED)).encode("ascii", "ignore").decode("ascii")
    text = _WORD_STARTS.sub("_", text).lower()
    text = re.sub(r"[^a-z0-9]+", "_", text).strip("_")
    if text and not text[0].isalpha():
        text = f"m_{text}"
    return text[:LONGEST].rstrip("_")


def is_metric(name: str) -> bool:
    """Whether the platform takes it as the name of a metric."""
    return _METRIC.fullmatch(name) is not None


def to_device(text: str) -> str:
    """A device id close to the text: what an id cannot have becomes `-`; "" when nothing is left."""
    text = unicodedata.normalize("NFKD", text.strip()).encode("ascii", "ignore").decode("ascii")
    return re.sub(r"[^A-Za-z0-9._:-]+", "-", text).strip("-._:")[:LONGEST]


def is_device(name: str) -> bool:
    """Whether the platform takes it as a device id."""
    return _DEVICE.fullmatch(name) is not None


def metric_names(headings: Sequence[str]) -> list[tuple[str, str]]:
    """(metric, unit) of each heading; no metric twice.

    The unit stays out of the name unless it is what tells two columns apart; what is then still the same gets a number.
    """
    split = [split_unit(heading) for heading in headings]
    plain = [to_metric(name) for name, _ in split]
    often = Counter(plain)
    names: list[str] = []
    taken: set[str] = set()
    for number, ((name, unit), metric) in enumerate(zip(split, plain, strict=True), start=1):
        if (often[metric] > 1 or not metric) and unit:
            metric = to_metric(f"{name} {unit}")
        metric = metric or f"column_{number}"
        unique, turn = metric, 1
        while unique in taken:
            turn += 1
            unique = f"{metric[: LONGEST - len(str(turn)) - 1]}_{turn}"
        taken.add(unique)
        names.append(unique)
    return [(name, unit) for name, (_, unit) in zip(names, split, strict=True)]
