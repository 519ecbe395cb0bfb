"""A compiled condition: asked of a frame, it tells for each row whether it holds and whether that is known."""

from dataclasses import dataclass

import numpy as np

from tidewire_kit.cel.expression import Expression
from tidewire_kit.cel.frame import Bools, Frame
from tidewire_kit.cel.nodes import Column, Node, Operation
from tidewire_kit.cel.rows import part


@dataclass(frozen=True, slots=True)
class Truth:
    """What a condition is in each row of a frame. The arrays are the frame's scratch: copy what outlives the next
    evaluation with it."""

    truth: Bools
    """bool (rows,): it holds. False where it is not known."""
    known: Bools
    """bool (rows,): it is true or false. Not known: a metric has no value, a device lacks a label, a division by zero,
    unless `&&` or `||` is decided without it."""
    failed: int
    """Rows where it is not known although all its metrics have a value."""
    same: bool | None
    """The truth of all rows when it is known and the same in all of them and that was seen at once; else None."""


class Program:
    """A condition that can be evaluated. Holds no state, so it may serve many frames and tenants."""

    __slots__ = ("_columns", "_part", "expression")

    def __init__(self, expression: Expression) -> None:
        self.expression = expression
        self._part = part(expression.root)
        self._columns = tuple(sorted(_columns(expression.root)))

    def evaluate(self, frame: Frame) -> Truth:
        """Evaluates all rows at once; what the frame's scratch held before is over."""
        frame.scratch.reset()
        with np.errstate(all="ignore"):
            values, errors = self._part(frame)
        every = frame.everywhere()
        if errors is None:
            if isinstance(values, bool):
                truth = every if values else np.broadcast_to(np.False_, frame.rows)
                return Truth(truth, every, 0, values)
            return Truth(values, every, 0, None)
        scratch = frame.scratch
        truth = np.greater(values, errors, out=scratch.bools(frame.rows))
        known = np.logical_not(errors, out=scratch.bools(frame.rows))
        return Truth(truth, known, self._failed(frame, errors), None)

    def _failed(self, frame: Frame, errors: Bools) -> int:
        unexplained = errors
        for name in self._columns:
            missing = frame.missing(name)
            if missing is not None:
                if missing is errors:
                    return 0
                unexplained = np.greater(unexplained, missing)
        return int(np.count_nonzero(unexplained))


def compile_expression(expression: Expression) -> Program:
    """Compiles a checked condition to NumPy operations; no text is involved any more."""
    return Program(expression)


def _columns(node: Node) -> set[str]:
    if isinstance(node, Column):
        return {node.name}
    if isinstance(node, Operation):
        return set().union(*(_columns(operand) for operand in node.operands))
    return set()
