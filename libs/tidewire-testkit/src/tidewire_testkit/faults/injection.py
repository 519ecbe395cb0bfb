"""When an injected fault strikes: what may happen to a mutating call, and who decides.

`LosingReplies` (Cassandra) and `LosingLog` (the message log) ask a `Schedule` before each mutating call. To try every
point of a piece of work, count its calls once and then run it once for each:

    for fault in Fault:
        async for schedule in every_call(fault, run):     # run(schedule) does the work on fresh data
            ...check what is there
"""

import asyncio
import enum
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from tidewire_kit.errors import Unavailable

_LATE_SECONDS = 0.2


class Fault(enum.Enum):
    """What happens to a call."""

    LOST_REQUEST = "lost request"
    """It is not carried out, and its caller is told that nobody knows."""
    LOST_REPLY = "lost reply"
    """It is carried out, and its caller is told that nobody knows."""
    LATE_REQUEST = "late request"
    """Its caller is told that nobody knows; it is carried out afterwards, when others may have gone on."""
    CRASH_BEFORE = "crash before"
    """The process dies before the call: it is not carried out, nor is any later one."""
    CRASH_AFTER = "crash after"
    """The process dies after the call was carried out."""
    CRASH_DURING = "crash during"
    """The process dies while it is under way: it may be carried out, now or a little later."""


ANSWERS = frozenset({Fault.LOST_REQUEST, Fault.LOST_REPLY, Fault.LATE_REQUEST})
"""Faults that a process survives."""


class Crash(Exception):
    """The process is dead. Raised by every call from then on, so nothing that it still does has an effect."""


class Schedule(Protocol):
    """Decides on each mutating call, in their order."""

    def next(self, what: str) -> Fault | None:
        """The fault of the call that is about to be made; `what` names it."""


@dataclass(slots=True)
class At:
    """One fault, at the call of this number (from 0)."""

    call: int
    fault: Fault
    calls: list[str] = field(default_factory=list)
    """What was called."""

    def next(self, what: str) -> Fault | None:
        """As in Schedule."""
        self.calls.append(what)
        return self.fault if len(self.calls) - 1 == self.call else None


@dataclass(slots=True)
class Every:
    """A fault at the first try of everything: of each run of calls with the same name, the first one suffers."""

    fault: Fault = Fault.LOST_REPLY
    _last: str = ""

    def next(self, what: str) -> Fault | None:
        """As in Schedule."""
        first, self._last = what != self._last, what
        return self.fault if first else None


@dataclass(slots=True)
class Randomly:
    """Faults with a probability. `faults`: those to choose from, evenly."""

    random: random.Random
    probability: float
    faults: Collection[Fault] = tuple(Fault)

    def next(self, what: str) -> Fault | None:
        """As in Schedule."""
        if self.random.random() >= self.probability:
            return None
        return self.random.choice(sorted(self.faults, key=lambda fault: fault.value))


@dataclass(slots=True)
class Never:
    """No faults; counts calls."""

    calls: list[str] = field(default_factory=list)

    def next(self, what: str) -> Fault | None:
        """As in Schedule."""
        self.calls.append(what)
        return None


class Suffering:
    """One process under a schedule: makes its mutating calls, or lets them suffer. Shared by what stands for it."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._late: set[asyncio.Task[None]] = set()
        self.dead = False
        """Whether a crash has struck."""

    def alive(self) -> None:
        """Raises Crash after one."""
        if self.dead:
            raise Crash

    async def call[T](self, what: str, real: Callable[[], Awaitable[T]], unknown: Unavailable) -> T:
        """Makes a call, or suffers; raises `unknown` when its caller shall not know what became of it."""
        self.alive()
        match self._schedule.next(what):
            case None:
                outcome = await real()
                self.alive()
                return outcome
            case Fault.LOST_REQUEST:
                pass
            case Fault.LOST_REPLY:
                await real()
            case Fault.LATE_REQUEST:
                self._later(real)
            case Fault.CRASH_BEFORE:
                self.dead = True
            case Fault.CRASH_AFTER:
                await real()
                self.dead = True
            case Fault.CRASH_DURING:
                self._later(real)
                self.dead = True
        self.alive()
        raise unknown

    async def drain(self) -> None:
        """Waits for requests that are carried out late."""
        while self._late:
            await asyncio.wait(self._late)

    def _later[T](self, real: Callable[[], Awaitable[T]]) -> None:
        async def late() -> None:
            await asyncio.sleep(random.uniform(0, _LATE_SECONDS))
            with suppress(Unavailable):  # nobody waits for it
                await real()

        task = asyncio.ensure_future(late())
        self._late.add(task)
        task.add_done_callback(self._late.discard)


async def every_call(fault: Fault, run: Callable[[Schedule], Awaitable[None]]) -> AsyncIterator[At]:
    """Runs `run` with `fault` at its first mutating call, then afresh with it at its second, and so on until a run ends
    before the fault's turn came; yields after each run that suffered, so that the caller checks what is there."""
    call = 0
    while True:
        schedule = At(call, fault)
        await run(schedule)
        if len(schedule.calls) <= call:
            assert call > 0, "the work made no mutating call"
            return
        yield schedule
        call += 1


async def at_each_call(fault: Fault, run: Callable[[Schedule], Awaitable[None]], *, at_once: int = 6) -> int:
    """The same, several runs side by side: `run` works on data of its own and then checks them itself. Returns how many
    runs suffered."""
    first = 0
    while True:
        schedules = [At(call, fault) for call in range(first, first + at_once)]
        async with asyncio.TaskGroup() as tasks:
            for schedule in schedules:
                tasks.create_task(_awaited(run(schedule)))
        suffered = [schedule for schedule in schedules if len(schedule.calls) > schedule.call]
        if len(suffered) < at_once:
            assert first or suffered, "the work made no mutating call"
            return first + len(suffered)
        first += at_once


async def _awaited(work: Awaitable[None]) -> None:
    await work
