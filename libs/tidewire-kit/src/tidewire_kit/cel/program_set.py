"""Many conditions over one frame. Most of a tenant's rules are `metric > constant`: those of one metric are sorted by
their constant, so that the metric's least and greatest value in the frame decide all but a few of them at once, and no
row is looked at for the others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.cel.frame import Frame
from tidewire_kit.cel.nodes import Column, Constant, Operation, Type
from tidewire_kit.cel.program import Program, Truth

FALSE: Final = 0
TRUE: Final = 1
BY_ROW: Final = 2

_MIRRORED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(slots=True)
class _Thresholds:
    """Programs `metric op limit` of one metric and operator, by rising limit."""

    metric: str
    operator: str
    limits: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    members: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))

    def decide(self, low: float, high: float, verdicts: NDArray[np.uint8]) -> None:
        """Writes the verdict of each member, of a column with these bounds."""
        greater = self.operator[0] == ">"
        # A value equal to the limit fulfils `>=` and `<=` only.
        equal_counts = len(self.operator) == 2
        below_low = np.searchsorted(self.limits, low, "right" if equal_counts is greater else "left")
        below_high = np.searchsorted(self.limits, high, "right" if equal_counts is greater else "left")
        verdicts[self.members[:below_low]] = TRUE if greater else FALSE
        verdicts[self.members[below_low:below_high]] = BY_ROW
        verdicts[self.members[below_high:]] = FALSE if greater else TRUE


class ProgramSet:
    """Programs that are asked of the same frames. To change the set, make another."""

    __slots__ = ("_groups", "programs")

    def __init__(self, programs: Sequence[Program]) -> None:
        self.programs = tuple(programs)
        found: dict[tuple[str, str], list[tuple[float, int]]] = {}
        for index, program in enumerate(self.programs):
            simple = _simple(program)
            if simple is not None:
                metric, operator, limit = simple
                found.setdefault((metric, operator), []).append((limit, index))
        self._groups: list[_Thresholds] = []
        for (metric, operator), members in sorted(found.items()):
            members.sort()
            limits = np.array([limit for limit, _ in members])
            indices = np.array([index for _, index in members], np.intp)
            self._groups.append(_Thresholds(metric, operator, limits, indices))

    def verdicts(self, frame: Frame) -> NDArray[np.uint8]:
        """uint8 (programs,): `TRUE` or `FALSE` where that is the truth of every row that has a value of the program's
        metric (rows without are not known, see `Frame.missing`), `BY_ROW` where the program has to be evaluated."""
        verdicts = np.full(len(self.programs), BY_ROW, np.uint8)
        for group in self._groups:
            low, high = frame.bounds(group.metric)
            if low == low:
                group.decide(low, high, verdicts)
            else:
                verdicts[group.members] = FALSE  # no row has a value
        return verdicts

    def evaluate(self, frame: Frame) -> Iterator[tuple[int, Truth]]:
        """Yields (index, truth) of the programs that are true in some row or by whose verdict nothing is known; what is
        left out is false wherever it is known. Each truth ends with the next one."""
        for index in np.flatnonzero(self.verdicts(frame)).tolist():
            yield index, self.programs[index].evaluate(frame)


def _simple(program: Program) -> tuple[str, str, float] | None:
    match program.expression.root:
        case Operation("<" | "<=" | ">" | ">=", operands=(Column(Type.DOUBLE, metric), Constant(_, limit))):
            operator = program.expression.root.name
        case Operation("<" | "<=" | ">" | ">=", operands=(Constant(_, limit), Column(Type.DOUBLE, metric))):
            operator = _MIRRORED[program.expression.root.name]
        case _:
            return None
    return metric, operator, float(limit)
