"""Gives names and operators their meaning and checks types: `syntax` → `nodes`.

A metric is a double. Strings come from labels, type and id, so they are the same for all rows of a device; numbers may
differ by row. Called by `expression.parse`; raises InvalidArgument with the position of what is wrong.
"""

from dataclasses import dataclass

from tidewire_kit.cel import functions, operators
from tidewire_kit.cel.errors import Source, alike
from tidewire_kit.cel.nodes import (
    TIME_COLUMN,
    Column,
    Constant,
    Fact,
    HasValue,
    Node,
    Operation,
    Type,
    WindowCall,
)
from tidewire_kit.cel.scalar import NOTHING, Failed, evaluate
from tidewire_kit.cel.syntax import Call, Index, ListOf, Literal, Name, Select, Syntax
from tidewire_kit.cel.syntax import Operation as Written
from tidewire_kit.errors import InvalidArgument
from tidewire_kit.ids import check_metric

FACTS = ("type", "device")
NAMES = (*FACTS, "labels", "time")

_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Environment:
    """What a condition may speak of."""

    metrics: frozenset[str] | None = None
    """Names of all metrics there are; None: any name that a metric may have is one."""
    max_window_us: int = _DAY_US
    """The longest window; 0: no windows."""


class Checker:
    """Checks one condition, and gathers the columns that it reads."""

    def __init__(self, source: Source, environment: Environment) -> None:
        self.source = source
        self.environment = environment
        self.metrics: set[str] = set()
        self.windows: dict[WindowCall, None] = {}

    def check(self, syntax: Syntax) -> Node:
        """The node that a piece of syntax means."""
        match syntax:
            case Literal(value, position):
                return constant(value, position)
            case Name(text, position):
                return self._name(text, position)
            case Select(Name("labels"), key, position):
                return self._operation("label", Type.STRING, (self._labels_key(key, position),), position)
            case Select(_, name, position):
                raise self.fail(position, f"only labels have fields: labels.{name}")
            case Index(Name("labels"), index, position):
                label = self.expect(index, Type.STRING, "the key of a label")
                return self._operation("label", Type.STRING, (label,), position)
            case Index(_, _, position):
                raise self.fail(position, 'only labels are taken by key: labels["site"]')
            case Call():
                return functions.call(self, syntax)
            case ListOf(_, position):
                raise self.fail(position, "a list stands only to the right of `in`")
            case Written(operator, operands, position):
                return operators.operation(self, operator, operands, position)

    def fail(self, position: int, why: str) -> InvalidArgument:
        """The error for something at a position."""
        return self.source.fail(position, why)

    def expect(self, syntax: Syntax, expected: Type, what: str) -> Node:
        """Checks a piece that must be of a type; an int is made a double where a double is expected."""
        node = self.check(syntax)
        if expected is Type.DOUBLE:
            node = self.to_double(node)
        if node.type is not expected:
            raise self.fail(syntax.position, f"{what} must be {article(expected)}, not {article(node.type)}")
        return node

    def to_double(self, node: Node) -> Node:
        """An int as a double; anything else as it is."""
        if node.type is not Type.INT:
            return node
        return self._operation("to_double", Type.DOUBLE, (node,), node.position)

    def operation(self, name: str, type_: Type, operands: tuple[Node, ...], position: int) -> Node:
        """An operation; its value at once when all operands are constants."""
        return self._operation(name, type_, operands, position)

    def metric(self, name: str, position: int) -> Column:
        """The column of a metric. Raises when there is none of that name."""
        self.metrics.add(self.metric_name(name, position))
        return Column(Type.DOUBLE, name, position)

    def metric_name(self, name: str, position: int) -> str:
        """Checks a metric's name, and returns it."""
        known = self.environment.metrics
        if known is not None and name not in known:
            raise self.fail(position, f"unknown metric `{name[:64]}`{alike(name, (*known, *NAMES))}")
        try:
            check_metric(name)
        except InvalidArgument:
            rule = "1 to 63 lower-case letters, digits and underscores, a letter first"
            raise self.fail(position, f"`{name[:64]}` is no metric's name: {rule}") from None
        return name

    def window(self, call: WindowCall, position: int) -> Column:
        """The column of a window's value."""
        self.windows[call] = None
        return Column(Type.DOUBLE, call.column, position)

    def has(self, syntax: Syntax, position: int) -> Node:
        """`has(labels.site)`, `has(labels["site"])`, `has(temperature)`."""
        match syntax:
            case Select(Name("labels"), key, at):
                return self._operation("has_label", Type.BOOL, (self._labels_key(key, at),), position)
            case Index(Name("labels"), index, _):
                key_node = self.expect(index, Type.STRING, "the key of a label")
                return self._operation("has_label", Type.BOOL, (key_node,), position)
            case Name(text, at) if text not in NAMES:
                return HasValue(self.metric(text, at).name, position)
            case Call("metric"):
                column = self.check(syntax)
                assert isinstance(column, Column)
                return HasValue(column.name, position)
        raise self.fail(position, "has() asks for a label or a metric: has(labels.site), has(temperature)")

    def _labels_key(self, key: str, position: int) -> Constant:
        return Constant(Type.STRING, key, position)

    def _name(self, text: str, position: int) -> Node:
        if text in FACTS:
            return Fact(text, position)
        if text == "time":
            return Column(Type.TIME, TIME_COLUMN, position)
        if text == "labels":
            raise self.fail(position, 'name one label: labels.site, labels["site"], or "site" in labels')
        return self.metric(text, position)

    def _operation(self, name: str, type_: Type, operands: tuple[Node, ...], position: int) -> Node:
        node = Operation(name, type_, operands, any(operand.per_row for operand in operands), position)
        if name in ("label", "has_label") or not all(isinstance(operand, Constant) for operand in operands):
            if node.per_row and (type_ is Type.STRING):
                why = "a string cannot depend on a reading; choose between whole conditions instead"
                raise self.fail(position, why)
            return node
        try:
            return Constant(type_, evaluate(node, NOTHING), position)
        except Failed as error:
            raise self.fail(position, f"this always fails: {error.why}") from None


def constant(value: bool | int | float | str, position: int) -> Constant:
    """A literal as a node."""
    types = {bool: Type.BOOL, int: Type.INT, float: Type.DOUBLE, str: Type.STRING}
    return Constant(types[type(value)], value, position)


def article(type_: Type) -> str:
    """`a double`, `an int`."""
    return f"{'an' if type_ is Type.INT else 'a'} {type_}"
