"""What a condition's text says, before anything is known of what its names mean.

Made by `parser`, given meaning by `checker`. Positions are characters from 0; they take no part in comparisons.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Literal:
    """A number, string or truth value as it stands."""

    value: bool | int | float | str
    position: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class Name:
    """A word that names something."""

    text: str
    position: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class Select:
    """`operand.name`."""

    operand: "Syntax"
    name: str
    position: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class Index:
    """`operand[index]`."""

    operand: "Syntax"
    index: "Syntax"
    position: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class Call:
    """`function(arguments)`, or `target.function(arguments)`."""

    function: str
    target: "Syntax | None"
    arguments: "tuple[Syntax, ...]"
    position: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator and its operands: one for `!` and `-`, three for `?:`, two or more for `&&` and `||`, else two."""

    operator: str
    operands: "tuple[Syntax, ...]"
    position: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class ListOf:
    """`[elements]`."""

    elements: "tuple[Syntax, ...]"
    position: int = field(compare=False)


type Syntax = Literal | Name | Select | Index | Call | Operation | ListOf
