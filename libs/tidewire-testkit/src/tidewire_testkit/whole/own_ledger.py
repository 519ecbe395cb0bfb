"""The test's own ledger: what was sent, what was acknowledged, and what then must, may and must not be visible.

The rule that it checks: acknowledged − visible is empty, nothing is visible that was not sent, nothing is visible
twice. A row is (device, time) with a value per metric; NaN is no reading.
"""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field

Cell = tuple[str, int]
"""(metric, time in unix µs) of one device."""


@dataclass(slots=True)
class OwnLedger:
    """Written by the load generators, checked at the end against what a query returns."""

    sent: dict[str, dict[Cell, set[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(set))
    )
    """Device → cell → values sent for it at any time."""
    acknowledged: dict[str, dict[Cell, float]] = field(default_factory=lambda: defaultdict(dict))
    """Device → cell → the value acknowledged last."""
    refused: dict[str, set[Cell]] = field(default_factory=lambda: defaultdict(set))
    """Device → cells that were refused and never sent again."""
    unordered: dict[str, set[Cell]] = field(default_factory=lambda: defaultdict(set))
    """Device → cells that were overwritten in an order of which the sender cannot be sure."""
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    """What an answer said that it must not say."""

    def violation(self, text: str) -> None:
        """Notes a broken promise; the check at the end fails with the first ones."""
        self.counts["violations"] += 1
        if len(self.violations) < 20:
            self.violations.append(text)

    def acknowledged_cells(self) -> int:
        """Distinct readings acknowledged."""
        return sum(len(cells) for cells in self.acknowledged.values())

    def check_device(self, device: str, visible: list[tuple[str, int, float]]) -> None:
        """Compares a device's visible readings, (metric, time, value) in the order of the answer, with what must be."""
        seen: dict[Cell, float] = {}
        for metric, time_us, value in visible:
            if (metric, time_us) in seen:
                self.violation(f"{device} {metric} at {time_us}: visible twice")
            seen[(metric, time_us)] = value
        for cell, value in self.acknowledged[device].items():
            if cell not in seen:
                self.violation(f"{device} {cell}: acknowledged and not visible")
            elif cell not in self.unordered[device] and not _same(seen[cell], value):
                self.violation(f"{device} {cell}: {value!r} was acknowledged last, {seen[cell]!r} is visible")
        for cell, value in seen.items():
            if value not in self.sent[device].get(cell, ()):
                self.violation(f"{device} {cell}: {value!r} is visible and was never sent")
            if cell in self.refused[device]:
                self.violation(f"{device} {cell}: refused, never sent again, and visible")


def _same(left: float, right: float) -> bool:
    return left == right and math.copysign(1, left) == math.copysign(1, right)
