"""What the journal promises to stores, one promise a test; crashes and lost replies are in `test_journal_model`."""

import asyncio
import secrets

import pytest

from tidewire_kit.cassandra import OUTCOME_UNKNOWN, Applied, CassandraSession
from tidewire_kit.cassandra.journal import RECENT_ENTRIES, Entry, Head, Journal
from tidewire_kit.cassandra.journal_tables import CHUNK_BYTES, INLINE_BYTES, MAX_BODY_BYTES
from tidewire_kit.errors import InvalidArgument, Unavailable
from tidewire_testkit.faults.injection import At, Crash, Fault, Never
from tidewire_testkit.faults.losing_session import LosingReplies

pytestmark = pytest.mark.servers


class Bodies:
    """A journal whose entries are only remembered."""

    def __init__(self) -> None:
        self.applied: list[tuple[int, bytes]] = []
        self.failing = False
        self.journal: Journal

    @classmethod
    async def open(cls, session: CassandraSession) -> "Bodies":
        bodies = cls()
        bodies.journal = await Journal.open(session, "heads", bodies.apply)
        return bodies

    async def apply(self, unit: bytes, version: int, body: bytes) -> None:
        if self.failing:
            raise Unavailable("cassandra", "says the test", reason="STORE_UNAVAILABLE")
        self.applied.append((version, body))

    async def commit(self, unit: bytes, body: bytes | None, state: bytes | None = None) -> Head:
        async def build(head: Head) -> Entry:
            return Entry(body, state)

        head = await self.journal.commit(unit, build)
        assert head is not None
        return head


@pytest.fixture
async def bodies(session: CassandraSession) -> Bodies:
    return await Bodies.open(session)


@pytest.fixture
def unit() -> bytes:
    return secrets.token_bytes(8)


async def test_versions_rise_and_the_state_goes_along(bodies: Bodies, unit: bytes) -> None:
    assert await bodies.journal.settle(unit) == Head(unit, 0, b"")
    first = await bodies.commit(unit, b"one", b"s1")
    second = await bodies.commit(unit, b"two")
    third = await bodies.commit(unit, None, b"s3")
    assert 0 < first.version < second.version < third.version
    assert (second.state, third.state) == (b"s1", b"s3")
    assert bodies.applied == [(first.version, b"one"), (second.version, b"two")]
    assert await bodies.journal.settle(unit) == third


@pytest.mark.parametrize("size", [0, INLINE_BYTES, INLINE_BYTES + 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 1])
async def test_a_body_of_any_size_is_found_by_others(
    session: CassandraSession, bodies: Bodies, unit: bytes, size: int
) -> None:
    body = secrets.token_bytes(size)
    bodies.failing = True
    with pytest.raises(Unavailable) as caught:
        await bodies.commit(unit, body, b"decided")
    assert caught.value.reason == OUTCOME_UNKNOWN
    other = await Bodies.open(session)
    head = await other.journal.settle(unit)
    assert head.state == b"decided"
    assert other.applied == [(head.version, body)]
    left = await session.prepare("SELECT chunk FROM heads_chunks WHERE unit = ?")
    assert await session.execute(left, (unit,)) == []


async def test_a_body_that_is_too_large_is_refused(bodies: Bodies, unit: bytes) -> None:
    with pytest.raises(InvalidArgument):
        await bodies.commit(unit, bytes(MAX_BODY_BYTES + 1))
    assert (await bodies.journal.settle(unit)).version == 0


async def test_building_may_refuse_or_find_nothing_to_do(bodies: Bodies, unit: bytes) -> None:
    async def nothing(head: Head) -> None:
        return None

    async def refuse(head: Head) -> Entry:
        raise KeyError("no")

    assert await bodies.journal.commit(unit, nothing) is None
    with pytest.raises(KeyError):
        await bodies.journal.commit(unit, refuse)
    assert (await bodies.journal.settle(unit)).version == 0


async def test_a_refusal_that_rests_on_an_old_head_is_asked_again(
    session: CassandraSession, bodies: Bodies, unit: bytes
) -> None:
    other = await Bodies.open(session)
    asked = 0

    async def build(head: Head) -> Entry:
        nonlocal asked
        asked += 1
        if head.state != b"ready":
            await other.commit(unit, b"x", b"ready")  # as if it came just after what this one has read
            raise KeyError("not ready")
        return Entry(b"y")

    assert await bodies.journal.commit(unit, build) is not None
    assert asked == 2


async def test_commits_of_one_process_take_their_turns(bodies: Bodies, unit: bytes) -> None:
    await asyncio.gather(*(bodies.commit(unit, b"%d" % number) for number in range(20)))
    assert [body for _, body in bodies.applied] == [b"%d" % number for number in range(20)]
    assert bodies.journal._locks == {}


async def test_a_sweep_completes_what_its_process_has_not(
    session: CassandraSession, bodies: Bodies, unit: bytes
) -> None:
    dying_session = LosingReplies(session, At(0, Fault.CRASH_AFTER))
    dying = await Bodies.open(dying_session)
    with pytest.raises(Crash):
        await dying.commit(unit, b"decided")
    await bodies.journal.sweep(older_than_seconds=3600)
    assert b"decided" not in {body for _, body in bodies.applied}
    assert await bodies.journal.sweep(older_than_seconds=0) >= 1
    assert b"decided" in {body for _, body in bodies.applied}
    assert await bodies.journal.sweep(older_than_seconds=0) == 0


async def test_a_caller_that_gives_up_leaves_no_half(session: CassandraSession, unit: bytes) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()
    done: list[bytes] = []

    async def apply(unit: bytes, version: int, body: bytes) -> None:
        started.set()
        await go_on.wait()
        done.append(body)

    async def build(head: Head) -> Entry:
        return Entry(b"body")

    journal = await Journal.open(session, "heads", apply)
    committing = asyncio.ensure_future(journal.commit(unit, build))
    await started.wait()
    committing.cancel()
    await asyncio.wait([committing])
    settling = asyncio.ensure_future(
        journal.settle(unit)
    )  # waits for the one under way, does not begin another
    go_on.set()
    await settling
    await journal.close()
    assert done == [b"body"]


async def test_a_committer_that_cannot_know_says_so(
    session: CassandraSession, bodies: Bodies, unit: bytes
) -> None:
    # Its request is lost, and before it looks so many others have committed that the list says nothing any more.
    class Overtaken(LosingReplies):
        async def execute(self, prepared, params=(), **options):  # type: ignore[no-untyped-def]
            if options.get("consistency") is not None and not prepared.mutates:
                for _ in range(RECENT_ENTRIES):
                    await bodies.commit(unit, None, b"other")
            return await super().execute(prepared, params, **options)

    await bodies.commit(unit, None, b"first")
    slow = await Bodies.open(Overtaken(session, At(0, Fault.LOST_REQUEST)))
    with pytest.raises(Unavailable) as caught:
        await slow.commit(unit, b"lost")
    assert caught.value.reason == OUTCOME_UNKNOWN


async def test_a_conditional_write_that_wrongly_says_no_is_not_made_twice(
    session: CassandraSession, unit: bytes
) -> None:
    class Denying(LosingReplies):
        denied = 0

        async def apply(self, prepared, params=(), **options):  # type: ignore[no-untyped-def]
            outcome = await super().apply(prepared, params, **options)
            if outcome.applied and self.denied == 0:
                self.denied += 1
                return Applied(False, None)
            return outcome

    denying = Denying(session, Never())
    bodies = await Bodies.open(denying)
    await bodies.commit(unit, b"once")
    assert denying.denied == 1
    assert [body for _, body in bodies.applied] == [b"once"]


async def test_a_forgotten_unit_begins_anew(bodies: Bodies, unit: bytes) -> None:
    before = await bodies.commit(unit, b"x" * (INLINE_BYTES + 1), b"state")
    await bodies.journal.forget(unit)
    await bodies.journal.forget(unit)
    assert await bodies.journal.settle(unit) == Head(unit, 0, b"")
    after = await bodies.commit(unit, b"y")
    assert after.version > before.version


async def test_what_a_commit_costs(session: CassandraSession, unit: bytes) -> None:
    counted = Never()
    bodies = await Bodies.open(LosingReplies(session, counted))
    await bodies.commit(unit, b"body")
    assert len(counted.calls) == 2, "the conditional write and the mark; the rows are the store's"
    await bodies.commit(unit, None, b"state")
    assert len(counted.calls) == 3, "a change of state alone needs no mark"
