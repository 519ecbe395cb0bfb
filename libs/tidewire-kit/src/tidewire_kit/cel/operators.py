"""Which operands an operator takes, and what comes of it. Called by `checker`."""

from typing import TYPE_CHECKING, Final

from tidewire_kit.cel.nodes import NUMBERS, Constant, Node, Type
from tidewire_kit.cel.syntax import Call, ListOf, Name, Syntax

if TYPE_CHECKING:
    from tidewire_kit.cel.checker import Checker

MAX_LIST = 500

_ORDER: Final = ("<", "<=", ">", ">=")
_SPANS: Final = {
    ("+", Type.TIME, Type.DURATION): Type.TIME,
    ("+", Type.DURATION, Type.TIME): Type.TIME,
    ("+", Type.DURATION, Type.DURATION): Type.DURATION,
    ("-", Type.TIME, Type.DURATION): Type.TIME,
    ("-", Type.TIME, Type.TIME): Type.DURATION,
    ("-", Type.DURATION, Type.DURATION): Type.DURATION,
    ("+", Type.STRING, Type.STRING): Type.STRING,
}


def operation(checker: "Checker", operator: str, operands: tuple[Syntax, ...], position: int) -> Node:
    """The node of an operator with its operands. Raises InvalidArgument with a position."""
    if operator in ("&&", "||"):
        joined = tuple(checker.expect(o, Type.BOOL, f"an operand of `{operator}`") for o in operands)
        return checker.operation(operator, Type.BOOL, joined, position)
    if operator == "!":
        operand = checker.expect(operands[0], Type.BOOL, "the operand of `!`")
        return checker.operation("!", Type.BOOL, (operand,), position)
    if operator == "in":
        return _in(checker, operands[0], operands[1], position)
    if operator == "?:":
        return _choice(checker, operands, position)
    if operator == "-" and len(operands) == 1:
        operand = checker.check(operands[0])
        if operand.type not in (*NUMBERS, Type.DURATION):
            raise checker.fail(position, f"`-` takes a number or a duration, not {operand.type}")
        return checker.operation("negate", operand.type, (operand,), position)
    left, right = (checker.check(operand) for operand in operands)
    if operator in ("==", "!=", *_ORDER):
        return _comparison(checker, operator, left, right, position)
    return _arithmetic(checker, operator, left, right, position)


def _arithmetic(checker: "Checker", operator: str, left: Node, right: Node, position: int) -> Node:
    if operator in "/%" and isinstance(right, Constant) and right.type in NUMBERS and right.value == 0:
        raise checker.fail(right.position, "this always fails: division by zero")
    if left.type in NUMBERS and right.type in NUMBERS:
        type_ = Type.DOUBLE if Type.DOUBLE in (left.type, right.type) else Type.INT
        if type_ is Type.DOUBLE:
            left, right = checker.to_double(left), checker.to_double(right)
        return checker.operation(operator, type_, (left, right), position)
    type_or_none = _SPANS.get((operator, left.type, right.type))
    if type_or_none is None:
        takes = (
            "numbers"
            if operator in "*/%"
            else "numbers, durations and times"
            if operator == "-"
            else "two of a kind"
        )
        raise checker.fail(
            position, f"there is no `{operator}` of {left.type} and {right.type}; it takes {takes}"
        )
    return checker.operation(operator, type_or_none, (left, right), position)


def _comparison(checker: "Checker", operator: str, left: Node, right: Node, position: int) -> Node:
    left, right = alike_numbers(checker, left, right)
    if left.type is not right.type:
        hint = (
            ""
            if {left.type, right.type} != {Type.STRING, Type.DOUBLE}
            else "; make a number of a label with double(…)"
        )
        raise checker.fail(position, f"`{operator}` compares {left.type} with {right.type}{hint}")
    if left.type is Type.BOOL and operator in _ORDER:
        raise checker.fail(position, f"`{operator}` does not order truth values; write == or !=")
    return checker.operation(operator, Type.BOOL, (left, right), position)


def alike_numbers(checker: "Checker", left: Node, right: Node) -> tuple[Node, Node]:
    """Makes an int next to a double a double."""
    if {left.type, right.type} == {Type.INT, Type.DOUBLE}:
        return checker.to_double(left), checker.to_double(right)
    return left, right


def _choice(checker: "Checker", operands: tuple[Syntax, ...], position: int) -> Node:
    condition = checker.expect(operands[0], Type.BOOL, "what stands before `?`")
    then, other = alike_numbers(checker, checker.check(operands[1]), checker.check(operands[2]))
    if then.type is not other.type:
        raise checker.fail(position, f"`?:` chooses between {then.type} and {other.type}; make them alike")
    if condition.per_row:
        then, other = checker.to_double(then), checker.to_double(other)
    return checker.operation("?:", then.type, (condition, then, other), position)


def _in(checker: "Checker", item: Syntax, container: Syntax, position: int) -> Node:
    if isinstance(container, Name) and container.text == "labels":
        key = checker.expect(item, Type.STRING, "the key of a label")
        return checker.operation("has_label", Type.BOOL, (key,), position)
    if not isinstance(container, ListOf):
        after = "a list or labels must stand after `in`"
        hint = "; for a part of a string use .contains(…)" if not isinstance(container, Call) else ""
        raise checker.fail(container.position, f'{after}: x in [1.0, 2.0], "site" in labels{hint}')
    if not 1 <= len(container.elements) <= MAX_LIST:
        raise checker.fail(container.position, f"a list has 1 to {MAX_LIST} elements")
    wanted = checker.check(item)
    elements: list[Node] = []
    for written in container.elements:
        element = checker.check(written)
        if not isinstance(element, Constant):
            raise checker.fail(written.position, "an element of a list must be a constant; use == and ||")
        wanted, element = alike_numbers(checker, wanted, element)
        if element.type is not wanted.type:
            raise checker.fail(written.position, f"{wanted.type} is sought among {element.type}")
        elements.append(element)
    elements = [checker.to_double(e) if wanted.type is Type.DOUBLE else e for e in elements]
    return checker.operation("in", Type.BOOL, (wanted, *elements), position)
