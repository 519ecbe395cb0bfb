"""Text of the Common Expression Language → `syntax`, by the grammar of cel-python.

Only its grammar is used, read as a file of the installed distribution: importing the package takes a third of a second
and brings calendars and YAML, which services that parse conditions do not need. Its evaluator is the oracle of tests.
Lark's LALR parser does not recurse, the text is bounded by `scan`, and what recurses here counts its depth.
"""

import math
from functools import cache
from importlib.metadata import distribution
from typing import Final, NoReturn, cast

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedToken

from tidewire_kit.cel.errors import Source, shown
from tidewire_kit.cel.scan import scan
from tidewire_kit.cel.syntax import Call, Index, ListOf, Literal, Name, Operation, Select, Syntax

MAX_DEPTH = 64
MAX_NODES = 1_000

_MAX_INT = (1 << 63) - 1
_JOINED: Final = {"conditionalor": "||", "conditionaland": "&&"}
_BINARY: Final = {
    "relation_lt": "<",
    "relation_le": "<=",
    "relation_gt": ">",
    "relation_ge": ">=",
    "relation_eq": "==",
    "relation_ne": "!=",
    "relation_in": "in",
    "addition_add": "+",
    "addition_sub": "-",
    "multiplication_mul": "*",
    "multiplication_div": "/",
    "multiplication_mod": "%",
}
_RESERVED: Final = frozenset(
    {
        *("as", "break", "const", "continue", "else", "for", "function", "if", "import", "in", "let", "loop"),
        *("namespace", "package", "return", "var", "void", "while"),
    }
)
# Rules that say something even with one child; the others only pass it on.
_MEANINGFUL: Final = frozenset(
    ("ident", "ident_arg", "dot_ident", "dot_ident_arg", "literal", "list_lit", "map_lit", "member_object")
)
_HINTS: Final = {
    "=": "; compare with ==",
    "&": "; write &&",
    "|": "; write ||",
    "*": "; there is no power",
    "and": "; write &&",
    "or": "; write ||",
    "not": "; write !",
    "is": "; compare with ==",
}


def parse_syntax(source: Source) -> Syntax:
    """Raises InvalidArgument with the position of what is not understood, or beyond a limit."""
    scanned = scan(source)
    if not scanned.blanked.strip():
        raise source.fail(0, "the condition is empty; write one, for example temperature > 30.0")
    try:
        tree = _lark().parse(scanned.blanked)
    except UnexpectedCharacters as error:
        position = cast(int, error.pos_in_stream)
        _unexpected(source, position, source.text[position])
    except UnexpectedToken as error:
        if error.token.type == "$END":
            _ended(source)
        _unexpected(source, error.token.start_pos or 0, str(error.token))
    except UnexpectedEOF:
        _ended(source)
    return _Builder(source, scanned.strings).build(tree, 1)


def _unexpected(source: Source, position: int, found: str) -> NoReturn:
    raise source.fail(position, f"{shown(found)} is not expected here{_HINTS.get(found, '')}") from None


def _ended(source: Source) -> NoReturn:
    raise source.fail(
        len(source.text.rstrip()), "the condition ends too early; something is missing"
    ) from None


@cache
def _lark() -> "Lark":
    path = distribution("cel-python").locate_file("celpy/cel.lark")
    with open(str(path), encoding="utf-8") as file:
        grammar = file.read()
    return Lark(grammar, parser="lalr", start="expr", propagate_positions=True, maybe_placeholders=False)


class _Builder:
    def __init__(self, source: Source, strings: dict[int, str]) -> None:
        self._source = source
        self._strings = strings
        self._nodes = 0

    def build(self, node: "Tree[Token] | Token", depth: int) -> Syntax:
        while isinstance(node, Tree) and len(node.children) == 1 and node.data not in _MEANINGFUL:
            node = node.children[0]
        assert isinstance(node, Tree)
        position = node.meta.start_pos
        self._count(position, depth)
        rule, children = str(node.data), node.children
        below = depth + 1
        if rule in _JOINED:
            return self._joined(node, rule, position, below)
        if rule in ("relation", "addition", "multiplication"):
            left, right = children
            assert isinstance(left, Tree)
            operands = self.build(left.children[0], below), self.build(right, below)
            return Operation(_BINARY[str(left.data)], operands, position)
        if rule == "expr":
            return Operation("?:", tuple(self.build(child, below) for child in children), position)
        if rule == "unary":
            sign = children[0]
            assert isinstance(sign, Tree)
            operator = "!" if sign.data == "unary_not" else "-"
            return Operation(operator, (self.build(children[1], below),), position)
        return self._primary(rule, children, position, below)

    def _joined(self, node: "Tree[Token]", rule: str, position: int, depth: int) -> Syntax:
        """`a && b && c` is one node however many there are."""
        last: list[Tree[Token] | Token] = []
        while node.data == rule:
            last.append(node.children[-1])
            if len(node.children) == 1:
                break
            left = node.children[0]
            assert isinstance(left, Tree)
            node = left
        operands: list[Syntax] = []
        for child in reversed(last):
            operand = self.build(child, depth)
            joins = isinstance(operand, Operation) and operand.operator == _JOINED[rule]
            operands.extend(operand.operands if joins and isinstance(operand, Operation) else (operand,))
        return Operation(_JOINED[rule], tuple(operands), position)

    def _primary(self, rule: str, children: "list[Tree[Token] | Token]", position: int, depth: int) -> Syntax:
        first = children[0] if children else None
        if rule == "literal":
            assert isinstance(first, Token)
            return self._literal(first, position)
        if rule == "ident":
            word = self._word(first)
            return Literal(word == "true", position) if word in ("true", "false") else Name(word, position)
        if rule == "ident_arg":
            return Call(self._word(first), None, self._arguments(children[1:], depth), position)
        if rule == "list_lit":
            return ListOf(self._arguments(children, depth), position)
        if rule in ("member_dot", "member_dot_arg", "member_index"):
            assert first is not None
            operand = self.build(first, depth)
            if rule == "member_index":
                return Index(operand, self.build(children[1], depth), position)
            if rule == "member_dot":  # a label may be called `namespace`
                return Select(operand, str(children[1]), position)
            return Call(self._word(children[1]), operand, self._arguments(children[2:], depth), position)
        if rule in ("map_lit", "member_object"):
            raise self._source.fail(
                position, "maps and messages are not known here; the only map is `labels`"
            )
        raise self._source.fail(position, "a name does not begin with a dot; remove it")

    def _arguments(self, children: "list[Tree[Token] | Token]", depth: int) -> tuple[Syntax, ...]:
        if not children:
            return ()
        (listed,) = children
        assert isinstance(listed, Tree)
        return tuple(self.build(child, depth) for child in listed.children)

    def _word(self, token: "Tree[Token] | Token | None") -> str:
        assert isinstance(token, Token)
        if token in _RESERVED:
            raise self._source.fail(token.start_pos or 0, f"`{token}` is a reserved word; use another name")
        return str(token)

    def _literal(self, token: Token, position: int) -> Literal:
        text, fail = str(token), self._source.fail
        if token.type in ("STRING_LIT", "MLSTRING_LIT"):
            return Literal(self._strings[position], position)
        if token.type == "BOOL_LIT":
            return Literal(text == "true", position)
        if token.type == "INT_LIT":
            value = int(text, 16 if "x" in text else 10) if len(text) <= 20 else _MAX_INT + 2
            if not -_MAX_INT - 1 <= value <= _MAX_INT:
                raise fail(position, f"{shown(text)} does not fit 64 bits; write a double: 1e20")
            return Literal(value, position)
        if token.type == "FLOAT_LIT":
            if not math.isfinite(float(text)):
                raise fail(position, f"{shown(text)} is too large for a double")
            return Literal(float(text), position)
        if token.type == "UINT_LIT":
            raise fail(position, "there are no unsigned numbers here; leave the u out")
        if token.type == "NULL_LIT":
            raise fail(position, "there is no null here; ask whether there is a value with has(…)")
        raise fail(position, f"{shown(text)} is not known here")

    def _count(self, position: int, depth: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._source.fail(position, f"more than {MAX_NODES} operations; split the condition")
        if depth > MAX_DEPTH:
            raise self._source.fail(position, f"nested deeper than {MAX_DEPTH} operations; simplify it")
