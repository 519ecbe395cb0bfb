"""A condition with its types known: what `checker` makes and `scalar` and `program` evaluate.

Nodes compare and hash without their positions, so that equal parts of many conditions are worked out once.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class Type(StrEnum):
    """What a value is. Times and durations are microseconds."""

    BOOL = "bool"
    INT = "int"
    DOUBLE = "double"
    STRING = "string"
    TIME = "timestamp"
    DURATION = "duration"


NUMBERS = (Type.INT, Type.DOUBLE)

TIME_COLUMN = "time()"  # no metric's name

type Value = bool | int | float | str


@dataclass(frozen=True, slots=True)
class WindowCall:
    """A function over the recent readings of one metric; its value in each row is a column that the caller provides."""

    function: str
    """`avg min max sum count rate delta stddev` over `window_us`, or `previous`: the reading before this row's."""
    metric: str
    window_us: int
    """Length of the window; 0 for `previous`."""

    @property
    def column(self) -> str:
        """Name of the column: no metric's name, since it has parentheses."""
        return (
            f"{self.function}({self.metric},{self.window_us})"
            if self.window_us
            else f"{self.function}({self.metric})"
        )


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that is the same in every row."""

    type: Type
    value: Value
    position: int = field(compare=False, default=0)
    per_row: bool = field(default=False, init=False, compare=False)


@dataclass(frozen=True, slots=True)
class Column:
    """A number that differs by row: a metric, a window's value, or the row's time. NaN: there is none."""

    type: Type
    name: str
    """Key of the column; `TIME_COLUMN` is the rows' event time."""
    position: int = field(compare=False, default=0)
    per_row: bool = field(default=True, init=False, compare=False)


@dataclass(frozen=True, slots=True)
class HasValue:
    """Whether the row has a value in a column; never unknown."""

    name: str
    position: int = field(compare=False, default=0)
    type: Type = field(default=Type.BOOL, init=False, compare=False)
    per_row: bool = field(default=True, init=False, compare=False)


@dataclass(frozen=True, slots=True)
class Fact:
    """The device's `type` or its id (`device`)."""

    name: str
    position: int = field(compare=False, default=0)
    type: Type = field(default=Type.STRING, init=False, compare=False)
    per_row: bool = field(default=False, init=False, compare=False)


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator or function over operands. Its names are those of `checker`: operators as written, functions by name;
    `to_double` stands where a number next to a double is made one."""

    name: str
    type: Type
    operands: "tuple[Node, ...]"
    per_row: bool
    position: int = field(compare=False, default=0)


type Node = Constant | Column | HasValue | Fact | Operation
