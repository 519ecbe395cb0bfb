"""The grammar of AIP-160 as far as it makes sense for devices, and the names of its tokens. Used by filter.parser.

As the AIP says, OR binds tighter than AND, and conditions side by side mean AND. Sequences are flat, so that long
filters do not nest deeply; parentheses are counted before parsing.
"""

GRAMMAR = r"""
start: expression?
expression: sequence ("AND" sequence)*
sequence: factor+
factor: term ("OR" term)*
?term: "NOT" simple                      -> negation
     | "-" simple                        -> negation
     | simple
?simple: "(" expression ")"
       | MEMBER COMPARATOR argument      -> restriction
       | MEMBER "(" arguments? ")"       -> call
       | (MEMBER | STRING)               -> bare
arguments: argument ("," argument)*
?argument: WORD | STRING

COMPARATOR: "<=" | ">=" | "!=" | "<" | ">" | "=" | ":"
MEMBER: /[A-Za-z_][A-Za-z0-9_]*(\.([A-Za-z0-9_-]+|"(\\.|[^"\\])*"|'(\\.|[^'\\])*'))*/
STRING: /"(\\.|[^"\\])*"/s | /'(\\.|[^'\\])*'/s
WORD: /[A-Za-z0-9_.\/*+-]+/

%import common.WS
%ignore WS
"""

TOKEN_NAMES = {
    "MEMBER": "a field",
    "COMPARATOR": "an operator (= != < <= > >= :)",
    "STRING": "a quoted text",
    "WORD": "a value",
    "LPAR": "(",
    "RPAR": ")",
    "COMMA": ",",
    "AND": "AND",
    "OR": "OR",
    "NOT": "NOT",
    "MINUS": "-",
    "$END": "the end",
}
"""What people are told was expected."""
