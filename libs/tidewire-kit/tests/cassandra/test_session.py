"""The session on a real node: what it guarantees to stores."""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from tidewire_kit.cassandra import (
    OUTCOME_UNKNOWN,
    CassandraSession,
    CassandraSettings,
    Consistency,
    connect,
)
from tidewire_kit.errors import TidewireError, Unavailable
from tidewire_testkit.cassandra import connected
from tidewire_testkit.polling import until
from tidewire_testkit.valve import Valve

pytestmark = pytest.mark.servers

PUT = "INSERT INTO rows (part, id, value) VALUES (?, ?, ?)"
GET = "SELECT id, value FROM rows WHERE part = ?"
CLAIM = "INSERT INTO rows (part, id, value) VALUES (?, ?, ?) IF NOT EXISTS"


@pytest.fixture
async def valve(keyspace: CassandraSettings) -> AsyncIterator[Valve]:
    async with Valve(*keyspace.addresses()[0]) as valve:
        yield valve


def behind(valve: Valve, keyspace: CassandraSettings, **changes: float) -> CassandraSettings:
    return replace(keyspace, contact_points=f"127.0.0.1:{valve.port}", **changes)


async def test_rows_come_page_by_page(session: CassandraSession) -> None:
    part = secrets.token_bytes(8)
    put, get = await session.prepare(PUT), await session.prepare(GET)
    await session.execute_all(put, ((part, number, b"%d" % number) for number in range(25)))
    assert [row.id for row in await session.execute(get, (part,), page_rows=10)] == list(range(25))
    pages = [page async for page in session.execute_paged(get, (part,), page_rows=10)]
    assert [len(page) for page in pages] == [10, 10, 5]
    assert pages[1][0].value == b"10"
    assert [page async for page in session.execute_paged(get, (b"none",))] == []


async def test_a_batch_of_one_partition_is_written_together(session: CassandraSession) -> None:
    part = secrets.token_bytes(8)
    put, get = await session.prepare(PUT), await session.prepare(GET)
    await session.batch([])
    await session.batch([(put, (part, number, b"x")) for number in range(30)])
    assert len(await session.execute(get, (part,))) == 30


async def test_large_rows_come_back_as_they_were(session: CassandraSession) -> None:
    part = secrets.token_bytes(8)
    put, get = await session.prepare(PUT), await session.prepare(GET)
    values = [secrets.token_bytes(size) for size in (0, 1, 131_071, 131_072, 1_000_000)]
    await session.execute_all(put, ((part, number, value) for number, value in enumerate(values)))
    assert [row.value for row in await session.execute(get, (part,), page_rows=2)] == values


async def test_one_of_many_gets_the_name(session: CassandraSession) -> None:
    claim = await session.prepare(CLAIM)
    part = secrets.token_bytes(8)
    outcomes = await asyncio.gather(
        *(session.apply(claim, (part, 1, b"%d" % number)) for number in range(12))
    )
    winners = [number for number, outcome in enumerate(outcomes) if outcome.applied]
    assert len(winners) == 1
    losers = [outcome for outcome in outcomes if not outcome.applied]
    assert {outcome.row.value for outcome in losers} == {b"%d" % winners[0]}


async def test_no_conditional_update_is_lost(session: CassandraSession) -> None:
    part = secrets.token_bytes(8)
    put, get = await session.prepare(CLAIM), await session.prepare(GET)
    update = await session.prepare("UPDATE rows SET value = ? WHERE part = ? AND id = 1 IF value = ?")
    await session.apply(put, (part, 1, b"0"))

    async def add() -> int:
        done = 0
        while done < 10:
            (row,) = await session.execute(get, (part,), consistency=Consistency.LOCAL_SERIAL)
            with suppress(Unavailable):  # under contention the server itself gives up at times
                outcome = await session.apply(update, (b"%d" % (int(row.value) + 1), part, row.value))
                done += outcome.applied
        return done

    counted = sum(await asyncio.gather(*(add() for _ in range(4))))
    (row,) = await session.execute(get, (part,), consistency=Consistency.LOCAL_SERIAL)
    assert int(row.value) >= counted  # those of unknown outcome may have counted too
    refused = await session.apply(update, (b"x", secrets.token_bytes(8), b"0"))
    assert (refused.applied, refused.row) == (False, None)


async def test_no_more_than_so_many_requests_are_under_way(keyspace: CassandraSettings) -> None:
    registry = CollectorRegistry()
    session = await connect(replace(keyspace, in_flight_requests=5), metrics=registry)
    put = await session.prepare(PUT)
    part = secrets.token_bytes(8)
    seen: set[float] = set()

    async def one(number: int) -> None:
        await session.execute(put, (part, number, b"x"))
        seen.add(registry.get_sample_value("tidewire_cassandra_requests_in_flight") or 0)

    await asyncio.gather(*(one(number) for number in range(200)))
    await session.close()
    assert 1 <= max(seen) <= 5
    labels = {"operation": "write", "outcome": "OK"}
    assert registry.get_sample_value("tidewire_cassandra_requests_total", labels) == 200
    assert registry.get_sample_value("tidewire_cassandra_nodes_up") == 1


async def test_a_caller_that_gives_up_leaves_its_slot_to_others(
    keyspace: CassandraSettings, valve: Valve
) -> None:
    async with connected(behind(valve, keyspace, in_flight_requests=2)) as session:
        put = await session.prepare(PUT)
        part = secrets.token_bytes(8)
        valve.hold()
        waiting = [asyncio.ensure_future(session.execute(put, (part, at, b"x"))) for at in range(6)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        valve.release()
        await asyncio.gather(*(session.execute(put, (part, at, b"y")) for at in range(6)))


async def test_the_loop_turns_while_much_is_written(session: CassandraSession) -> None:
    # Not by time: every answer is handed over in a turn of the loop, and between two of the bunches others get theirs.
    put = await session.prepare(PUT)
    value = secrets.token_bytes(100_000)
    turns_between: list[int] = []
    turns = 0
    done = False

    async def heartbeat() -> None:
        nonlocal turns
        while not done:
            await asyncio.sleep(0)
            turns += 1

    beating = asyncio.ensure_future(heartbeat())
    bridge = session._driver.bridge
    before = bridge.wake_ups
    last = 0

    async def one(number: int) -> None:
        nonlocal last
        await session.execute(put, (b"%d" % (number % 50), number, value))
        turns_between.append(turns - last)
        last = turns

    for first in range(0, 1_000, 100):
        await asyncio.gather(*(one(number) for number in range(first, first + 100)))
    done = True
    await beating
    assert len(turns_between) == 1_000
    # A driver called in the blocking way would let the loop turn once a request at most.
    assert turns > 3 * len(turns_between)
    assert bridge.wake_ups - before <= 1_000


async def test_the_loop_turns_while_a_statement_is_prepared(
    keyspace: CassandraSettings, valve: Valve
) -> None:
    async with connected(behind(valve, keyspace)) as session:
        valve.hold()
        preparing = asyncio.ensure_future(session.prepare(GET + " LIMIT 7"))
        for _ in range(
            1_000
        ):  # this loop runs the valve too: it would never be opened if the loop stood still
            await asyncio.sleep(0)
        assert not preparing.done()
        valve.release()
        prepared = await preparing
        assert await session.prepare(GET + " LIMIT 7") is prepared


async def test_sockets_do_not_wait_for_acknowledgements(session: CassandraSession) -> None:
    pools = list(session._driver._session._pools.values())
    assert pools
    for pool in pools:
        connection = pool._connection._socket
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_write_whose_reply_is_lost_is_repeated_with_the_same_timestamp(
    session: CassandraSession, keyspace: CassandraSettings, valve: Valve
) -> None:
    part = secrets.token_bytes(8)
    written = await session.prepare("SELECT WRITETIME(value) FROM rows WHERE part = ?")

    async def timestamp() -> int | None:
        rows = await session.execute(written, (part,))
        return rows[0][0] if rows else None

    async with connected(behind(valve, keyspace, try_timeout_seconds=0.2)) as lossy:
        put = await lossy.prepare(PUT)
        valve.hold()
        writing = asyncio.ensure_future(lossy.execute(put, (part, 1, b"x")))
        await until(timestamp, message="the write arrives though its reply does not")
        first = await timestamp()
        valve.cut()
        valve.release()
        await writing
        assert await timestamp() == first
        retries = lossy._metrics.write.retries._value.get()
        assert retries >= 1


async def test_a_conditional_write_without_an_answer_has_an_unknown_outcome_and_is_not_repeated(
    session: CassandraSession, keyspace: CassandraSettings, valve: Valve
) -> None:
    part = secrets.token_bytes(8)
    get = await session.prepare(GET)
    async with connected(behind(valve, keyspace)) as lossy:
        claim = await lossy.prepare(CLAIM)
        valve.hold()
        with pytest.raises(Unavailable) as caught:
            await lossy.apply(claim, (part, 1, b"x"), timeout_seconds=1.0)
        assert caught.value.reason == OUTCOME_UNKNOWN
        valve.release()
        assert len(await session.execute(get, (part,), consistency=Consistency.LOCAL_SERIAL)) == 1
        valve.hold()
        claiming = asyncio.ensure_future(lossy.apply(claim, (part, 2, b"x")))
        await until(lambda: _has(session, part, 2), message="the second claim arrives")
        valve.cut()
        with pytest.raises(Unavailable) as caught:
            await claiming
        assert caught.value.reason == OUTCOME_UNKNOWN


async def test_a_read_goes_on_after_its_connection_broke(keyspace: CassandraSettings, valve: Valve) -> None:
    part = secrets.token_bytes(8)
    async with connected(behind(valve, keyspace)) as session:
        put, get = await session.prepare(PUT), await session.prepare(GET)
        await session.execute(put, (part, 1, b"x"))
        for _ in range(3):
            valve.cut()
            assert [row.value for row in await session.execute(get, (part,))] == [b"x"]


async def test_a_server_that_is_gone_is_unavailable_after_the_deadline(
    keyspace: CassandraSettings, valve: Valve
) -> None:
    async with connected(behind(valve, keyspace, request_timeout_seconds=1.0)) as session:
        get = await session.prepare(GET)
        valve.hold()
        with pytest.raises(Unavailable) as caught:
            await session.execute(get, (b"",))
        assert caught.value.reason == "STORE_UNAVAILABLE"
        valve.release()


async def test_a_statement_that_makes_no_sense_is_a_fault_of_ours(session: CassandraSession) -> None:
    with pytest.raises(TidewireError) as caught:
        await session.prepare("SELECT nothing FROM rows")
    assert type(caught.value) is TidewireError
    with pytest.raises(TidewireError, match="no_such_table"):
        await session.prepare("SELECT * FROM no_such_table")


async def test_a_closed_session_says_so(keyspace: CassandraSettings) -> None:
    session = await connect(keyspace)
    get = await session.prepare(GET)
    await session.close()
    await session.close()
    with pytest.raises(Unavailable, match="closed"):
        await session.execute(get, (b"",))


async def _has(session: CassandraSession, part: bytes, number: int) -> bool:
    get = await session.prepare(GET)
    rows = await session.execute(get, (part,), consistency=Consistency.LOCAL_SERIAL)
    return number in {row.id for row in rows}
