"""Reports over a real log: who hears whom, what a cut-off process does, and what becomes of a dead one's report."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from tidewire_kit import topics
from tidewire_kit.clock import SystemClock
from tidewire_kit.errors import Unavailable
from tidewire_kit.fairshare import Board, DemandExchange, TenantDemand, board, exchange
from tidewire_kit.ids import TenantId, new_uid
from tidewire_kit.log.embedded import EmbeddedLog, EmbeddedLogSettings
from tidewire_kit.log.port import MemberProfile, TableItem
from tidewire_testkit.polling import until

ACME = TenantId(new_uid())


class Asked:
    """A participant that is asked for the same each second; 0: nothing."""

    def __init__(self, readings: float) -> None:
        self.readings = readings
        self.share = 0.0

    def demand(self, board: Board, seconds: float) -> Sequence[TenantDemand]:
        return [TenantDemand(ACME, self.readings, 1.0)] if self.readings else []

    def adopt(self, board: Board, now: float) -> None:
        self.share = board.shares(ACME, 100.0, 100.0, now)[0]


class DeafLog:
    """A log whose `put` fails while it is `down`."""

    def __init__(self, log: EmbeddedLog) -> None:
        self._log = log
        self.down = False
        self.puts = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    async def put(self, topic: str, items: Sequence[TableItem]) -> None:
        self.puts += 1
        if self.down:
            raise Unavailable("message log", "is down")
        await self._log.put(topic, items)


async def open_log(path: Path) -> EmbeddedLog:
    log = EmbeddedLog(path, EmbeddedLogSettings(min_free_bytes=0, preallocate_bytes=1 << 16))
    await log.start()
    await log.ensure_topics(topics.specs(1))
    await log.announce(MemberProfile("ingestion"))
    return log


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "REPORT_SECONDS", 0.05)
    monkeypatch.setattr(exchange, "CUT_OFF_SECONDS", 0.4)


@pytest.fixture
async def logs(tmp_path: Path) -> AsyncIterator[list[EmbeddedLog]]:
    opened = [await open_log(tmp_path) for _ in range(2)]
    yield opened
    for log in opened:
        await log.close()


async def test_two_processes_divide_by_demand_and_who_stops_leaves_everything_to_the_other(
    logs: list[EmbeddedLog],
) -> None:
    asked = [Asked(30.0), Asked(70.0)]
    exchanges = [DemandExchange(log, SystemClock(), "ingestion") for log in logs]
    for each, participant in zip(exchanges, asked, strict=True):
        await each.start(participant)
    try:
        await until(lambda: [round(each.share, 6) for each in asked] == [0.3, 0.7])
        assert [each.board.members for each in exchanges] == [2, 2]
        await exchanges[1].close()
        await until(lambda: asked[0].share == 1.0)
    finally:
        for each in exchanges:
            await each.close()


async def test_processes_of_another_service_are_nobodys_business(logs: list[EmbeddedLog]) -> None:
    mine, theirs = Asked(1.0), Asked(1000.0)
    exchanges = [
        DemandExchange(logs[0], SystemClock(), "ingestion"),
        DemandExchange(logs[1], SystemClock(), "routing"),
    ]
    for each, participant in zip(exchanges, (mine, theirs), strict=True):
        await each.start(participant)
    try:
        await until(lambda: mine.share == 1.0 and theirs.share == 1.0)
        assert exchanges[0].board.fresh(0.0) == 1
    finally:
        for each in exchanges:
            await each.close()


async def test_a_process_whose_reports_do_not_come_back_takes_an_equal_part_until_they_do(
    logs: list[EmbeddedLog],
) -> None:
    deaf, asked = DeafLog(logs[0]), Asked(10.0)
    mine = DemandExchange(deaf, SystemClock(), "ingestion")  # type: ignore[arg-type]
    await mine.start(asked)
    try:
        await until(lambda: asked.share == 1.0)
        deaf.down = True
        await until(lambda: asked.share == 0.5)
        deaf.down = False
        await until(lambda: asked.share == 1.0)
    finally:
        await mine.close()


async def test_without_demand_nothing_is_written(logs: list[EmbeddedLog]) -> None:
    deaf, asked = DeafLog(logs[0]), Asked(0.0)
    mine = DemandExchange(deaf, SystemClock(), "ingestion")  # type: ignore[arg-type]
    await mine.start(asked)
    await until(lambda: asked.share == 0.5, message="it has looked around")
    await mine.close()
    assert deaf.puts == 0


async def test_what_a_dead_process_left_is_removed_and_what_is_no_report_does_no_harm(
    logs: list[EmbeddedLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "FORGET_SECONDS", 0.3)
    left = board.encode([TenantDemand(ACME, 5.0, 1.0)], 3, SystemClock().now_us())
    await logs[1].put(topics.DEMAND, [(b"ingestion/dead", left), (b"ingestion/odd", b"\xff\xff")])
    asked = Asked(10.0)
    mine = DemandExchange(logs[0], SystemClock(), "ingestion")
    await mine.start(asked)
    reader = logs[1].table(topics.DEMAND)
    seen: dict[bytes, bytes | None] = {}

    async def follow() -> None:
        async for items in reader:
            seen.update(items)

    following = asyncio.create_task(follow())
    try:
        await until(lambda: asked.share == 1.0)
        await until(lambda: seen.get(b"ingestion/dead", b"") is None)
    finally:
        await mine.close()
        await reader.close()
        await following
