"""A condition from text to something that can be compiled: the package's front door for rules and routes."""

from dataclasses import dataclass

from tidewire_kit.cel.checker import Checker, Environment, article
from tidewire_kit.cel.errors import Source
from tidewire_kit.cel.nodes import Node, Type, WindowCall

_ANYTHING = Environment()


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked condition. Two are equal when they mean the same, node for node."""

    root: Node
    """Of type BOOL."""
    metrics: tuple[str, ...]
    """The metrics whose value in the row it reads, sorted; windows name theirs."""
    windows: tuple[WindowCall, ...]
    """The windows it reads, each once, in the order of the text: columns that the caller works out."""


def parse(text: str, environment: Environment = _ANYTHING, *, field: str = "condition") -> Expression:
    """Parses and checks a condition.

    Raises InvalidArgument(field, ...) with reason CONDITION_INVALID; the message and the metadata (`line`, `column`)
    say where, counted from 1. Whatever the text, this ends within a tenth of a second or so.
    """
    from tidewire_kit.cel.parser import parse_syntax  # the grammar's library is slow to import

    source = Source(text, field)
    syntax = parse_syntax(source)
    checker = Checker(source, environment)
    root = checker.check(syntax)
    if root.type is not Type.BOOL:
        why = (
            f"a condition is true or false, and this is {article(root.type)}; compare it, for example with >"
        )
        raise source.fail(0, why)
    return Expression(root, tuple(sorted(checker.metrics)), tuple(checker.windows))
