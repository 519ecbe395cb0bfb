"""Turns nodes into functions over a frame: NumPy operations on whole columns, no loop over rows. Called by `program`.

Each function returns (values, errors): values for each row, or one value that stands for all rows; errors says which
rows have no value, None when all have one. Where there is an error the value means nothing. Arrays that are returned
may be a frame's own or another function's: they are read, never written to.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from tidewire_kit.cel.facts import Asked
from tidewire_kit.cel.frame import Bools, Frame
from tidewire_kit.cel.nodes import Column, Constant, HasValue, Node, Operation, Type

type Part = Callable[[Frame], tuple[Any, Bools | None]]

_MANY_ELEMENTS = 16

_COMPARISONS: Final[Mapping[str, np.ufunc]] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}
_MIRRORED: Final = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_ARITHMETIC: Final[Mapping[str, np.ufunc]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,
    "min": np.minimum,
    "max": np.maximum,
}
_OF_ONE: Final[Mapping[str, np.ufunc]] = {
    "negate": np.negative,
    "abs": np.absolute,
    "ceil": np.ceil,
    "floor": np.floor,
    "sqrt": np.sqrt,
}
_OF_TIME: Final = {
    "getHours": (3_600e6, 0.0, 24.0),
    "getMinutes": (60e6, 0.0, 60.0),
    "getDayOfWeek": (86_400e6, 4.0, 7.0),  # 1970 began on a Thursday; Sunday is 0
}


def part(node: Node) -> Part:
    """The function of a node."""
    if isinstance(node, Constant):
        value = (
            float(node.value)
            if node.type is not Type.BOOL and not isinstance(node.value, str)
            else node.value
        )
        return lambda _: (value, None)
    if not node.per_row:
        asked = Asked(node)
        return lambda frame: frame.of_device(asked)
    if isinstance(node, Column):
        return lambda frame: frame.column(node)
    if isinstance(node, HasValue):
        return _has(node.name)
    assert isinstance(node, Operation)
    name, operands = node.name, node.operands
    if name in ("&&", "||"):
        return _joined(name, operands)
    if name in _COMPARISONS:
        return _comparison(name, *operands)
    if name == "!":
        return _negation(part(operands[0]))
    if name == "?:":
        return _choice(node.type, *(part(operand) for operand in operands))
    if name == "in":
        return _among(operands)
    if name in _OF_TIME:
        return _of_time(part(operands[0]), *_OF_TIME[name])
    if name in _OF_ONE:
        return _of_one(name, part(operands[0]))
    return _arithmetic(name, [part(operand) for operand in operands])


def either(frame: Frame, one: Bools | None, other: Bools | None) -> Bools | None:
    """Rows that are in one or the other."""
    if one is None or one is other:
        return other
    return one if other is None else np.logical_or(one, other, out=frame.scratch.bools(frame.rows))


def _has(name: str) -> Part:
    def run(frame: Frame) -> tuple[Any, Bools | None]:
        missing = frame.missing(name)
        return (
            (True, None)
            if missing is None
            else (np.logical_not(missing, out=frame.scratch.bools(frame.rows)), None)
        )

    return run


def _comparison(name: str, left: Node, right: Node) -> Part:
    if isinstance(left, Constant) and not isinstance(right, Constant):
        left, right, name = right, left, _MIRRORED[name]
    if isinstance(left, Column) and left.type is Type.DOUBLE and isinstance(right, Constant):
        return _threshold(name, left, float(right.value))
    compare, one, other = _COMPARISONS[name], part(left), part(right)

    def run(frame: Frame) -> tuple[Any, Bools | None]:
        a, errors = one(frame)
        b, more = other(frame)
        return compare(a, b, out=frame.scratch.bools(frame.rows)), either(frame, errors, more)

    return run


def _threshold(name: str, column: Column, limit: float) -> Part:
    """A metric against a constant: no row is looked at when the column's bounds decide for all of them."""
    compare = _COMPARISONS[name]
    ordered = name not in ("==", "!=")

    def run(frame: Frame) -> tuple[Any, Bools | None]:
        values, missing = frame.column(column)
        if ordered:
            low, high = frame.bounds(column.name)
            first = bool(compare(low, limit))
            if low == low and first is bool(compare(high, limit)):
                return first, missing
        return compare(values, limit, out=frame.scratch.bools(frame.rows)), missing

    return run


def _joined(name: str, operands: tuple[Node, ...]) -> Part:
    """`&&` and `||`: an operand that decides does so whatever errors the others have, so their order means nothing, and
    what is cheap goes first: it may spare the rest."""
    parts = [part(operand) for operand in sorted(operands, key=_cost)]
    return _all(parts) if name == "&&" else _any(parts)


def _cost(node: Node) -> int:
    if not node.per_row:
        return 0
    return 1 + sum(_cost(operand) for operand in node.operands) if isinstance(node, Operation) else 1


def _all(parts: list[Part]) -> Part:
    def run(frame: Frame) -> tuple[Any, Bools | None]:
        rows, scratch = frame.rows, frame.scratch
        result: Any = True
        errors: Bools | None = None
        for operand in parts:
            values, more = operand(frame)
            if more is not None:  # neither true nor false: leave it to the others
                values = np.logical_or(values, more, out=scratch.bools(rows))
                errors = either(frame, errors, more)
            if values is False:
                return False, None
            if values is not True:
                result = values if result is True else np.logical_and(result, values, out=scratch.bools(rows))
                if not result.any():
                    return False, None
        if errors is None:
            return result, None
        return result, errors if result is True else np.logical_and(errors, result, out=scratch.bools(rows))

    return run


def _any(parts: list[Part]) -> Part:
    def run(frame: Frame) -> tuple[Any, Bools | None]:
        rows, scratch = frame.rows, frame.scratch
        result: Any = False
        errors: Bools | None = None
        for operand in parts:
            values, more = operand(frame)
            if more is not None:
                values = np.greater(values, more, out=scratch.bools(rows))  # true, and no error
                errors = either(frame, errors, more)
            if values is True:
                return True, None
            if values is not False:
                result = values if result is False else np.logical_or(result, values, out=scratch.bools(rows))
                if result.all():
                    return True, None
        if errors is None:
            return result, None
        return result, errors if result is False else np.greater(errors, result, out=scratch.bools(rows))

    return run


def _negation(operand: Part) -> Part:
    def run(frame: Frame) -> tuple[Any, Bools | None]:
        values, errors = operand(frame)
        if isinstance(values, bool):
            return not values, errors
        return np.logical_not(values, out=frame.scratch.bools(frame.rows)), errors

    return run


def _choice(type_: Type, condition: Part, then: Part, other: Part) -> Part:
    def run(frame: Frame) -> tuple[Any, Bools | None]:
        scratch, rows = frame.scratch, frame.rows
        chosen, errors = condition(frame)
        if isinstance(chosen, bool):
            values, more = (then if chosen else other)(frame)
            return values, either(frame, errors, more)
        a, a_errors = then(frame)
        b, b_errors = other(frame)
        result = scratch.bools(rows) if type_ is Type.BOOL else scratch.doubles(rows)
        result[...] = b
        np.copyto(result, a, where=chosen)
        if a_errors is None and b_errors is None:
            return result, errors
        failed = scratch.bools(rows)
        failed[...] = False if b_errors is None else b_errors
        np.copyto(failed, False if a_errors is None else a_errors, where=chosen)
        return result, either(frame, errors, failed)

    return run


def _among(operands: tuple[Node, ...]) -> Part:
    item = part(operands[0])
    elements = np.array([operand.value for operand in operands[1:] if isinstance(operand, Constant)])

    def run(frame: Frame) -> tuple[Any, Bools | None]:
        values, errors = item(frame)
        result, equal = frame.scratch.bools(frame.rows), frame.scratch.bools(frame.rows)
        if len(elements) > _MANY_ELEMENTS:
            result[...] = np.isin(values, elements)
            return result, errors
        result.fill(False)
        for element in elements:
            np.logical_or(result, np.equal(values, element, out=equal), out=result)
        return result, errors

    return run


def _of_time(operand: Part, unit_us: float, offset: float, cycle: float) -> Part:
    def run(frame: Frame) -> tuple[Any, Bools | None]:
        values, errors = operand(frame)
        result = frame.scratch.doubles(frame.rows)
        np.floor_divide(values, unit_us, out=result)
        np.add(result, offset, out=result)
        return np.mod(result, cycle, out=result), errors

    return run


def _of_one(name: str, operand: Part) -> Part:
    function = _OF_ONE[name]

    def run(frame: Frame) -> tuple[Any, Bools | None]:
        values, errors = operand(frame)
        if name == "sqrt":
            errors = either(frame, errors, np.less(values, 0.0, out=frame.scratch.bools(frame.rows)))
        return function(values, out=frame.scratch.doubles(frame.rows)), errors

    return run


def _arithmetic(name: str, operands: list[Part]) -> Part:
    function = _ARITHMETIC[name]
    first, *others = operands

    def run(frame: Frame) -> tuple[Any, Bools | None]:
        result, errors = first(frame)
        target = frame.scratch.doubles(frame.rows)
        for operand in others:
            values, more = operand(frame)
            errors = either(frame, errors, more)
            if name in ("/", "%") and not (isinstance(values, float) and values):
                zero = np.equal(values, 0.0, out=frame.scratch.bools(frame.rows))
                errors = either(frame, errors, zero if zero.any() else None)
            result = function(result, values, out=target)
        return result, errors

    return run
