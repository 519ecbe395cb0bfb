"""Parses a filter's text. Called for each request that has a filter; it does no I/O.

What may be asked is limited before anything is built, because the text comes from outside: its length, the depth of its
parentheses (a deep one would otherwise exhaust a stack here or in a database), and the number of its conditions.
"""

from functools import cache
from typing import cast

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedToken

from tidewire_kit.errors import InvalidArgument
from tidewire_kit.filter.conditions import And, Condition, Not, Or
from tidewire_kit.filter.grammar import GRAMMAR, TOKEN_NAMES
from tidewire_kit.filter.meaning import Argument, call, fail, restriction

MAX_LENGTH = 32_768
MAX_DEPTH = 32
MAX_CONDITIONS = 100


def parse(text: str, tenant_id: str) -> Condition | None:
    """Returns the condition that a filter states; None when it is empty.

    `tenant_id` is the id of the tenant whose devices are asked for: names in the filter may be resource names or device
    ids. Raises InvalidArgument("filter", ...) with the position, counted in characters from 1.
    """
    if not text.strip():
        return None
    if len(text) > MAX_LENGTH:
        raise InvalidArgument("filter", f"has {len(text)} characters; give at most {MAX_LENGTH}")
    _check_depth(text)
    try:
        tree = _lark().parse(text)
    except UnexpectedCharacters as error:
        place = cast(int, error.pos_in_stream)
        raise fail(place, f"{text[place]!r} is not understood here; {_expected(error.allowed)}") from None
    except UnexpectedToken as error:
        position = error.token.start_pos if error.token.type != "$END" else len(text)
        found = repr(str(error.token)[:40]) if error.token.type != "$END" else "the end"
        raise fail(position or 0, f"{found} is not expected here; {_expected(error.expected)}") from None
    except UnexpectedEOF as error:
        raise fail(len(text), f"the filter ends too early; {_expected(set(error.expected))}") from None
    builder = _Builder(tenant_id)
    return builder.build(tree.children[0])


@cache
def _lark() -> "Lark":
    return Lark(GRAMMAR, parser="lalr", lexer="contextual")


def _check_depth(text: str) -> None:
    depth, quote, skip = 0, "", False
    for position, character in enumerate(text):
        if skip:
            skip = False
        elif quote:
            if character == "\\":
                skip = True
            elif character == quote:
                quote = ""
        elif character in "\"'":
            quote = character
        elif character == "(":
            depth += 1
            if depth > MAX_DEPTH:
                raise fail(position, f"parentheses are nested deeper than {MAX_DEPTH}; simplify the filter")
        elif character == ")":
            depth -= 1


def _expected(terminals: set[str] | None) -> str:
    names = sorted(TOKEN_NAMES[t] for t in terminals or () if t in TOKEN_NAMES)
    return f"expected {', '.join(names)}" if names else "check the spelling"


class _Builder:
    """Turns the parse tree into conditions; as deep as the parentheses, so its recursion is bounded."""

    def __init__(self, tenant_id: str) -> None:
        self._tenant_id = tenant_id
        self._conditions = 0

    def build(self, node: "Tree[Token] | Token") -> Condition:
        assert isinstance(node, Tree)
        if node.data in ("expression", "sequence"):
            return _joined(And, [self.build(child) for child in node.children])
        if node.data == "factor":
            return _joined(Or, [self.build(child) for child in node.children])
        if node.data == "negation":
            return Not(self.build(node.children[0]))
        self._count(node)
        member = node.children[0]
        assert isinstance(member, Token)
        if node.data == "bare":
            why = f"{str(member)[:40]!r} stands alone; write FIELD = VALUE, for example type = thermometer"
            raise fail(member.start_pos or 0, why)
        if node.data == "call":
            given = node.children[1].children if len(node.children) > 1 else []  # type: ignore[union-attr]
            return call(member, [_argument(a) for a in given], self._tenant_id)
        comparator, value = node.children[1:]
        return restriction(member, str(comparator), _argument(value), self._tenant_id)

    def _count(self, node: "Tree[Token]") -> None:
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            token = node.children[0]
            position = token.start_pos if isinstance(token, Token) else 0
            raise fail(position or 0, f"more than {MAX_CONDITIONS} conditions; simplify the filter")


def _joined(cls: type[And] | type[Or], operands: list[Condition]) -> Condition:
    flat: list[Condition] = []
    for operand in operands:
        flat.extend(operand.operands if isinstance(operand, cls) else (operand,))
    return flat[0] if len(flat) == 1 else cls(tuple(flat))


def _argument(token: "Tree[Token] | Token") -> Argument:
    assert isinstance(token, Token)
    position = token.start_pos or 0
    text = str(token)
    if token.type != "STRING":
        return Argument(position, text.rstrip("*") if text.endswith("*") else text, text.endswith("*"), False)
    body, text = text[1:-1], ""
    prefix = False
    i = 0
    while i < len(body):
        character = body[i]
        if character == "\\":
            i += 1
            text += body[i]
        elif character == "*" and i == len(body) - 1:
            prefix = True
        else:
            text += character if character != "*" else "\x00"
        i += 1
    return Argument(position, text, prefix, True)
