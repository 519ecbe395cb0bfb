"""A life of storage that nothing disturbs, and how a new owner carries it on from a picture of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from crash_points.camera import Camera, Picture, filming
from crash_points.checks import check_everything, check_no_orphans, check_what_is_stored
from crash_points.history import ANCIENT, DAY0, History
from crash_points.owner import Owner, owning
from tidewire_storage.ports import Flush, ProgressMoved, Seal

NAN = float("nan")
HOUR = 3_600_000_000
DEVICES = ("keep.a", "keep.gone", "keep.e", "doomed.b", "doomed.d", "brief.c")
Step = Any
"""("publish", device, batch, metrics, rows), ("delete", name), or the name of a step of the owner."""

LIFE: Sequence[Step] = (
    ("publish", "keep.a", "1", "xy", [(DAY0 + n, [float(n), float(-n)]) for n in range(4)]),
    ("publish", "keep.gone", "2", "x", [(DAY0 + n, [float(n)]) for n in range(4)]),
    ("publish", "doomed.b", "3", "x", [(DAY0 + n, [7.0]) for n in range(3)]),
    ("publish", "brief.c", "4", "x", [(ANCIENT + n, [9.0]) for n in range(3)]),
    "flush",
    ("publish", "keep.a", "1", "xy", [(DAY0 + n, [float(n), float(-n)]) for n in range(4)]),  # a retry
    ("publish", "keep.a", "5", "y", [(DAY0 + 1, [100.0]), (DAY0 + 9, [NAN]), (DAY0 + 9, [3.0])]),  # corrects
    ("publish", "doomed.d", "6", "x", [(DAY0, [1.0])]),
    "flush",
    "cut",
    ("publish", "keep.a", "7", "x", [(DAY0 - HOUR, [5.0])]),  # late
    ("publish", "keep.gone", "8", "x", [(DAY0 + 5, [5.0])]),
    "flush",
    "seal",
    "cut",
    "seal",
    "merge",
    "expire",
    ("publish", "keep.e", "9", "xz", [(DAY0 + n * HOUR, [1.0, float(n)]) for n in range(3)]),
    ("publish", "keep.gone", "10", "x", [(DAY0 + 6, [6.0])]),
    ("publish", "keep.a", "11", "x", [(DAY0 + 2, [-50.0])]),  # late, and corrects
    ("delete", "keep.gone"),
    "purge",
    "flush",
    "cut",
    ("delete", "doomed"),
    "purge",
    "seal",
    "merge",
    "expire",
    "drain",
)


def happen(history: History, step: Step) -> bool:
    """What comes from outside. False: it is a step of the owner's."""
    match step:
        case ("publish", *what):
            history.publish(*what)
        case ("delete", name):
            history.deleted.add(name)
        case _:
            return False
    return True


@dataclass(slots=True)
class Life:
    """A life that nothing disturbed, and what was seen of it."""

    steps: Sequence[Step]
    pictures: list[tuple[int, History, Picture]] = field(default_factory=list)
    """(number of the step, what had happened by then, the disk)."""
    calls: list[Flush | Seal] = field(default_factory=list)
    totals: dict[str, tuple[int, ...]] = field(default_factory=dict)


async def lived(
    steps: Sequence[Step], directory: Path, monkeypatch: pytest.MonkeyPatch, *, every_piece: bool = False
) -> Life:
    """Lives it, and takes pictures."""
    history, life = History(DEVICES), Life(steps)
    camera = Camera(directory, every_piece=every_piece)
    with filming(camera, monkeypatch):
        async with owning(history, directory, camera.port) as owner:
            for number, step in enumerate(steps):
                if not happen(history, step):
                    camera.step = f"{number} {step}"
                    await owner.step(step)
                    life.pictures += [(number, history.fork(), picture) for picture in camera.pictures]
                    camera.pictures.clear()
                    history.expired |= step == "expire"
            await owner.step("drain")
            await owner.step("purge")
            await check_everything(owner)
            life.totals = await owner.totals()
            await check_no_orphans(owner, directory)
    life.calls = camera.calls
    return life


async def carried_on(
    life: Life, picture_number: int, directory: Path, *, to_the_end: bool = True, every_call: bool = False
) -> None:
    """A new owner finds the disk as in a picture, does the step in which it was taken, and lives the rest of the life.

    Every other time the call that was under way takes effect when the new owner has begun already: its owner was late,
    not dead. `to_the_end` False: it lives no further than that step. `every_call`: then all that was ever asked of the
    store in that life is asked again.
    """
    number, seen, picture = life.pictures[picture_number]
    history = seen.fork()
    picture.put(directory)
    try:
        async with owning(history, directory) as owner:
            await check_what_is_stored(owner, but="brief." if life.steps[number] == "expire" else "-")
            if picture_number % 2:
                await come_late(owner, picture.under_way)
            else:
                await owner.step("purge")  # as it may be before it gets its partition, or after
            for step in life.steps[number : None if to_the_end else number + 1]:
                if not happen(history, step):
                    await in_spite_of_others(owner, step)
                    history.expired |= step == "expire"
            await in_spite_of_others(owner, "drain")
            await owner.step("purge")
            await check_everything(owner)
            if to_the_end:
                assert await owner.totals() == life.totals
            if every_call:
                for call in life.calls:
                    assert not await come_late(owner, call)
                assert await owner.totals() == life.totals
                await check_everything(owner)
            await check_no_orphans(owner, directory)
    except BaseException as error:
        error.add_note(f"stopped at picture {picture_number}, in step {picture.label}")
        raise


async def in_spite_of_others(owner: Owner, step: str) -> None:
    """Does a step as the loop of an owner does: where another one has come between, anew from what is stored."""
    for _ in range(2):
        try:
            await owner.step(step)
        except ProgressMoved:
            await owner.load()
        else:
            return
    raise AssertionError(f"moved twice in {step}")


async def come_late(owner: Owner, call: Flush | Seal | None) -> bool:
    """An owner that was thought dead does what it was about to do. Returns whether anything came of it."""
    match call:
        case Flush() if call.partitions:
            try:
                await owner.store.commit(call)
            except ProgressMoved:
                return False
            return any(part.next_offset != part.expected_offset for part in call.partitions)
        case Seal():
            return await owner.store.seal(call)
        case _:
            return False
