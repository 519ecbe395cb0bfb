"""Who is alive, and who gets which partition."""

import asyncio
import dataclasses
import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tidewire_kit.log import MemberProfile
from tidewire_kit.log.embedded import EmbeddedLog, EmbeddedLogSettings
from tidewire_kit.log.embedded.assignment import assign
from tidewire_kit.log.embedded.members import MEMBERS_TOPIC
from tidewire_testkit.polling import until

NAMES = st.sets(st.text("abcdef0123456789", min_size=4, max_size=8), min_size=1, max_size=12)


@given(st.integers(1, 64), NAMES)
def test_every_partition_has_one_owner_and_shares_are_even(partitions: int, names: set[str]) -> None:
    given_ = assign(partitions, list(names))
    assert sorted(p for own in given_.values() for p in own) == list(range(partitions))
    sizes = {len(own) for own in given_.values()}
    assert max(sizes) - min(sizes) <= 1


@given(NAMES)
def test_the_order_of_members_does_not_matter(names: set[str]) -> None:
    assert assign(16, sorted(names)) == assign(16, sorted(names, reverse=True))


@given(st.integers(1, 6))
def test_a_newcomer_moves_little_more_than_its_share(members: int) -> None:
    moved = share = 0
    for seed in range(20):
        names = [f"{seed}-{n}" for n in range(members)]
        before, after = assign(48, names), assign(48, [*names, f"{seed}-new"])
        moved += sum(len(set(own) - set(before.get(name, ()))) for name, own in after.items())
        share += len(after[f"{seed}-new"])
    assert moved <= 2 * share


def test_nobody_gets_nothing() -> None:
    assert assign(16, []) == {}


async def test_a_member_that_falls_silent_is_gone(tmp_path: Path) -> None:
    settings = EmbeddedLogSettings(min_free_bytes=0, heartbeat_seconds=0.05, member_timeout_seconds=0.5)
    log = EmbeddedLog(tmp_path, settings)
    await log.start()
    await log.announce(MemberProfile("storage"))
    entry = {
        "service": "ingestion",
        "announced": True,
        "addresses": {},
        "host": "elsewhere",
        "pid": 1,
        "groups": {},
        "started_at_us": 1,
        "beat_at_us": settings.clock_us(),
    }
    await log.put(MEMBERS_TOPIC, [(b"silent", json.dumps(entry).encode())])
    await until(lambda: [m.member_id for m in log.members("ingestion")] == ["silent"])
    await until(lambda: not log.members("ingestion"))
    assert [m.service for m in log.members()] == ["storage"], "one that is heard stays"

    # To one that comes later, the silent one was never alive.
    late = EmbeddedLog(tmp_path, dataclasses.replace(settings, member_timeout_seconds=0.2))
    await late.start()
    assert late.members("ingestion") == []
    await asyncio.gather(log.close(), late.close())
