"""Evaluates nodes one at a time over a device's facts: constants when a condition is checked, and what depends on
labels, type and id once for each device. Rows never come here. Called by `checker` and `facts`.
"""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from tidewire_kit.cel.nodes import Constant, Fact, Node, Operation, Type, Value
from tidewire_kit.cel.regex import matches

_MIN_INT, _MAX_INT = -(1 << 63), (1 << 63) - 1


class Failed(Exception):
    """An evaluation has no result: the language calls it an error. `why` is for people."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Facts(Protocol):
    """What is asked of a device; `tidewire_kit.devices.DeviceFacts` has it."""

    @property
    def id(self) -> str:
        """Device id."""

    @property
    def type(self) -> str:
        """Name of the device type."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Labels by key."""


class _Nothing:
    id = type = ""
    labels: Mapping[str, str] = {}


NOTHING: Final[Facts] = _Nothing()
"""For constants, which ask for no facts."""


def evaluate(node: Node, facts: Facts) -> Value:
    """The value for a device. Raises Failed when there is none. The node must not depend on rows."""
    match node:
        case Constant(_, value):
            return value
        case Fact(name):
            return facts.id if name == "device" else facts.type
        case Operation("&&" | "||", _, operands):
            return _joined(node.name == "||", operands, facts)
        case Operation("?:", _, (condition, then, other)):
            return evaluate(then if evaluate(condition, facts) else other, facts)
        case Operation("label" | "has_label", _, (key,)):
            label = str(evaluate(key, facts))
            if node.name == "has_label":
                return label in facts.labels
            if label not in facts.labels:
                raise Failed(f"there is no label {label[:64]!r}")
            return facts.labels[label]
        case Operation(function, type_, operands):
            return _checked(type_, _FUNCTIONS[function](*(evaluate(operand, facts) for operand in operands)))
    raise AssertionError(f"{node} depends on rows")


def _joined(decisive: bool, operands: tuple[Node, ...], facts: Facts) -> bool:
    """One decisive operand decides, whatever errors the others have."""
    failed: Failed | None = None
    for operand in operands:
        try:
            if evaluate(operand, facts) is decisive:
                return decisive
        except Failed as error:
            failed = error
    if failed is not None:
        raise failed
    return not decisive


def _checked(type_: Type, value: Any) -> Value:
    if type_ is Type.INT and not _MIN_INT <= value <= _MAX_INT:
        raise Failed("the number does not fit 64 bits")
    return value  # type: ignore[no-any-return]


def _divided(left: Any, right: Any) -> Any:
    if right == 0:
        raise Failed("division by zero")
    if isinstance(left, float):
        return left / right
    return abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)


def _remainder(left: Any, right: Any) -> Any:
    if right == 0:
        raise Failed("division by zero")
    if isinstance(left, float):
        return math.nan if math.isinf(left) else math.fmod(left, right)
    return left - right * _divided(left, right)


def _root(value: float) -> float:
    if value < 0:
        raise Failed("the root of a negative number")
    return math.sqrt(value)


def _parsed(text: str) -> float:
    # Python would also take underscores, `nan` and digits of other scripts.
    try:
        if len(text) > 64 or not text.isascii() or "_" in text:
            raise ValueError
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Failed(f"{text[:64]!r} is no number")
    return value


def _whole(function: Callable[[float], int]) -> Callable[[float], float]:
    return lambda value: float(function(value)) if math.isfinite(value) else value


_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "!": operator.not_,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divided,
    "%": _remainder,
    "negate": operator.neg,
    "in": lambda item, *elements: item in elements,
    "abs": abs,
    "ceil": _whole(math.ceil),
    "floor": _whole(math.floor),
    "sqrt": _root,
    "min": min,
    "max": max,
    "size": len,
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": operator.contains,
    "matches": matches,
    "to_double": float,
    "parse_double": _parsed,
    "getHours": lambda us: float(us // 3_600_000_000 % 24),
    "getMinutes": lambda us: float(us // 60_000_000 % 60),
    "getDayOfWeek": lambda us: float((us // 86_400_000_000 + 4) % 7),
}
