"""Conditions in the Common Expression Language over telemetry, compiled to NumPy: rules and routes are made of them.

    expression = parse('temperature > 30.0 && labels.site == "harbour"')      InvalidArgument with line and column
    program = compile_expression(expression)
    truth = program.evaluate(Frame(rows, columns, time_us=..., slots=..., facts=FactTable(...)))

`scan` and `parser` read text, `checker` gives it types, `rows` and `scalar` evaluate it: what depends on readings by
columns, what depends on the device only once for each device. A tenant's text never becomes Python, SQL or a pattern of
an engine that goes back. Importing this package does not import what parses; the first `parse` does.
"""

from tidewire_kit.cel.checker import Environment
from tidewire_kit.cel.expression import Expression, parse
from tidewire_kit.cel.facts import FactTable
from tidewire_kit.cel.frame import Frame, Scratch
from tidewire_kit.cel.nodes import WindowCall
from tidewire_kit.cel.program import Program, Truth, compile_expression
from tidewire_kit.cel.program_set import ProgramSet

__all__ = [
    "Environment",
    "Expression",
    "FactTable",
    "Frame",
    "Program",
    "ProgramSet",
    "Scratch",
    "Truth",
    "WindowCall",
    "compile_expression",
    "parse",
]
