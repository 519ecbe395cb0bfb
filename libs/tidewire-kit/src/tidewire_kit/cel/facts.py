"""What conditions say of devices, worked out once for each device and looked up by row.

`labels.site == "harbour"` is the same for all rows of a device, so a frame of 10,000 rows costs one gather. One table
serves all conditions of a tenant; whoever holds the replica of the registry keeps it and forgets what changes.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.cel.nodes import Node, Type
from tidewire_kit.cel.scalar import Facts, Failed, evaluate

_UNKNOWN_YET, _KNOWN, _FAILED = 0, 1, 2
_FIRST_SLOTS: Final = 1024


class Asked:
    """A node that depends on the device only, as a key whose hash is not worked out again for each frame."""

    __slots__ = ("_hash", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self._hash = hash(node)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Asked) and self.node == other.node)


@dataclass(slots=True)
class _Answers:
    """Of one node, by slot."""

    state: NDArray[np.uint8]
    values: NDArray[np.bool_] | NDArray[np.float64]
    failures: int = 0
    """Slots whose state is `_FAILED`."""

    @property
    def size(self) -> int:
        return self.state.nbytes + self.values.nbytes

    def cover(self, slots: int) -> None:
        """Makes room for slots below `slots`."""
        if slots > len(self.state):
            more = max(slots, 2 * len(self.state)) - len(self.state)
            self.state = np.concatenate([self.state, np.zeros(more, np.uint8)])
            self.values = np.concatenate([self.values, np.zeros(more, self.values.dtype)])


class FactTable:
    """Answers by device. `facts_of(slot)` gives a device's facts, None for one that is deleted or not known.

    Slots are small integers that the caller gives its devices, as `tidewire_kit.directory` does. Answers beyond
    `most_bytes` are forgotten, those longest unused first, and worked out again when they are wanted.
    """

    def __init__(self, facts_of: Callable[[int], Facts | None], *, most_bytes: int = 64 << 20) -> None:
        self._facts_of = facts_of
        self._most_bytes = most_bytes
        self._answers: OrderedDict[Asked, _Answers] = OrderedDict()

    def forget(self, slot: int | None = None) -> None:
        """To be called when a device's facts have changed; without a slot, of all devices."""
        if slot is None:
            self._answers.clear()
            return
        for answers in self._answers.values():
            if slot < len(answers.state):
                answers.failures -= int(answers.state[slot] == _FAILED)
                answers.state[slot] = _UNKNOWN_YET

    def by_row(
        self,
        asked: Asked,
        slots: NDArray[np.intp],
        values: NDArray[np.bool_] | NDArray[np.float64],
        failed: Callable[[], NDArray[np.bool_]],
    ) -> NDArray[np.bool_] | None:
        """Writes the answer for each row to `values`, which has the rows' length; `slots` are the rows' devices.

        Returns which rows have none, in an array that `failed` provides, or None when all have one.
        """
        answers = self._answers_of(asked)
        if len(slots) == 0:
            return None
        answers.cover(int(slots.max()) + 1)
        states = answers.state.take(slots)
        if not states.all():
            self._work_out(asked.node, answers, np.unique(slots[states == _UNKNOWN_YET]))
            states = answers.state.take(slots)
        # The slots are within bounds; "clip" spares NumPy a buffer for the case that they are not.
        np.take(answers.values, slots, out=values, mode="clip")
        if not answers.failures:
            return None
        return np.equal(states, _FAILED, out=failed())

    def _answers_of(self, asked: Asked) -> _Answers:
        answers = self._answers.get(asked)
        if answers is not None:
            self._answers.move_to_end(asked)
            return answers
        held = sum(other.size for other in self._answers.values())
        while held > self._most_bytes and self._answers:
            held -= self._answers.popitem(last=False)[1].size
        type_ = np.bool_ if asked.node.type is Type.BOOL else np.float64
        answers = _Answers(np.zeros(_FIRST_SLOTS, np.uint8), np.zeros(_FIRST_SLOTS, type_))
        self._answers[asked] = answers
        return answers

    def _work_out(self, node: Node, answers: _Answers, slots: NDArray[np.intp]) -> None:
        for slot in slots.tolist():
            facts = self._facts_of(slot)
            try:
                if facts is None:
                    raise Failed("the device is not known")
                value = evaluate(node, facts)
                assert not isinstance(value, str)
                answers.values[slot] = value
                answers.state[slot] = _KNOWN
            except Failed:
                answers.state[slot] = _FAILED
                answers.failures += 1
