"""The journal under crashes, lost replies and late requests, against `tidewire_testkit.journal_model`."""

import asyncio
import random
import secrets

import pytest

from tidewire_kit.cassandra import CassandraSession
from tidewire_testkit import journal_model
from tidewire_testkit.faults.injection import ANSWERS, Fault, Randomly, Schedule, every_call

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name.lower())
async def test_a_commit_is_whole_whichever_of_its_calls_fails(
    session: CassandraSession, fault: Fault
) -> None:
    unit, tries = b"", []

    async def run(schedule: Schedule) -> None:
        nonlocal unit, tries
        unit, tries = secrets.token_bytes(8), []
        # The faulty commit lies between two others, which must neither suffer from it nor lose anything.
        rng = random.Random(len(unit))
        await journal_model.process(session, unit, _Later(schedule), rng, 3, tries)

    points = 0
    async for _ in every_call(fault, run):
        points += 1
        tags = await journal_model.verify(session, unit, tries)
        assert len(tags) >= 2, "the commits around it succeed"
    assert points >= 4


@pytest.mark.parametrize("seed", range(3))
async def test_processes_that_die_and_lose_replies_commit_one_after_the_other(
    session: CassandraSession, seed: int
) -> None:
    rng = random.Random(seed)
    unit, tries = secrets.token_bytes(8), []
    await asyncio.gather(
        *(
            journal_model.process(
                session,
                unit,
                Randomly(random.Random(rng.random()), 0.12),
                random.Random(rng.random()),
                10,
                tries,
            )
            for _ in range(4)
        )
    )
    tags = await journal_model.verify(session, unit, tries)
    assert len(tags) >= 10
    assert {one.outcome for one in tries} >= {"returned", "dead"}


async def test_a_committer_learns_what_became_of_it_when_only_replies_are_lost(
    session: CassandraSession,
) -> None:
    # Nobody dies, so nothing may stay unknown but what was decided and then not seen to be applied.
    unit, tries = secrets.token_bytes(8), []
    await asyncio.gather(
        *(
            journal_model.process(
                session,
                unit,
                _OnlyConditional(Randomly(random.Random(at), 0.4, ANSWERS)),
                random.Random(at),
                8,
                tries,
            )
            for at in range(3)
        )
    )
    await journal_model.verify(session, unit, tries)
    assert {one.outcome for one in tries} <= {"returned", "nothing"}
    assert sum(one.outcome == "returned" for one in tries) >= 20


class _Later:
    """Spares the first commit: the schedule's first call is the second commit's first."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._begun = False

    def next(self, what: str) -> Fault | None:
        # A commit marks the head as applied last.
        if self._begun:
            return self._schedule.next(what)
        self._begun = "SET applied" in what
        return None


class _OnlyConditional:
    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def next(self, what: str) -> Fault | None:
        return self._schedule.next(what) if " IF " in what else None
