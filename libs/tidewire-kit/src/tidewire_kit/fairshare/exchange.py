"""Tells the other processes of a service this one's demand, and hears theirs: the compacted topic `tidewire.demand.v1`.

One record per process and second, only after a second with demand, so an idle platform writes nothing. Shares are made
of the reports as they come back from the log, this process's own too: all processes reckon with the same numbers, and
a process whose reports do not come back knows that it is cut off. Started and closed by a service's composition root.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Sequence
from typing import Protocol

from google.protobuf.message import DecodeError

from tidewire_kit import topics
from tidewire_kit.clock import Clock
from tidewire_kit.errors import TidewireError
from tidewire_kit.fairshare.board import Board, TenantDemand, decode, encode
from tidewire_kit.lasting import ended
from tidewire_kit.log.port import MessageLog, TableItem
from tidewire_kit.observability.logs import get_logger

logger = get_logger(__name__)

REPORT_SECONDS = 1.0
CUT_OFF_SECONDS = 5.0
"""A report that has not come back by then: this process does not trust its view any more."""


class Participant(Protocol):
    """Whoever has quotas to share; both methods are called on the loop, about once a second, and must be quick."""

    def demand(self, board: Board, seconds: float) -> Sequence[TenantDemand]:
        """What was asked for; `seconds` since the last call. Tenants without demand since then are left out."""

    def adopt(self, board: Board, now: float) -> None:
        """Takes the shares that follow from the board. `now`: seconds of the monotonic clock."""


class DemandExchange:
    """One per process. `board` may be read at any time."""

    def __init__(self, log: MessageLog, clock: Clock, service: str) -> None:
        """`service`: whose processes share quotas, as announced to the log's members."""
        self._log = log
        self._clock = clock
        self._service = service
        self._own = uuid.uuid4().hex
        self._sequence = 0
        self._unseen_since: float | None = None
        """When the oldest report was sent that has not come back."""
        self._replayed = False
        self._left: set[str] = set()
        """Processes that are gone and whose reports are still in the topic."""
        self._tasks: list[asyncio.Task[None]] = []
        self._publishing: asyncio.Task[None] | None = None
        self._failing = ""
        self.board = Board(self._own)

    async def start(self, participant: Participant) -> None:
        """Begins to report and to share; returns at once."""
        self._look()
        self._tasks = [
            asyncio.create_task(self._follow(), name="demand reader"),
            asyncio.create_task(self._tick(participant), name="demand reports"),
        ]

    async def close(self) -> None:
        """Withdraws this process's report. Idempotent."""
        tasks, self._tasks = self._tasks, []
        if self._publishing is not None:
            tasks.append(self._publishing)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if tasks and self._sequence:
            with contextlib.suppress(TidewireError):
                await self._log.put(topics.DEMAND, [(self._key(self._own), None)])

    def ended(self) -> str | None:
        """Says so when reports are not written or read any more; see `tidewire_kit.lasting`."""
        return ended(*self._tasks)

    # Inside

    def _key(self, process: str) -> bytes:
        return f"{self._service}/{process}".encode()

    def _look(self) -> None:
        """Brings the board's view of who is there up to date."""
        now = self._clock.monotonic()
        board = self.board
        board.members = max(1, len(self._log.members(self._service)), board.fresh(now))
        cut_off = self._unseen_since is not None and now - self._unseen_since > CUT_OFF_SECONDS
        board.informed = self._replayed and not cut_off

    async def _tick(self, participant: Participant) -> None:
        last = self._clock.monotonic()
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            now = self._clock.monotonic()
            try:
                self._look()
                demand = participant.demand(self.board, now - last)
                last = now
                # Whoever notices what a killed process left removes it; twice does no harm.
                self._left.update(name for name in self.board.forget(now) if name != self._own)
                if demand or self._left:
                    self._publish(demand, now)
                participant.adopt(self.board, now)
            except Exception:
                logger.exception("quota_shares_failed")

    def _publish(self, demand: Sequence[TenantDemand], now: float) -> None:
        if self._publishing is not None and not self._publishing.done():
            return  # the log is slow; averages lose nothing by a report that is left out
        items: list[TableItem] = [(self._key(name), None) for name in self._left]
        self._left.clear()
        if demand:
            self._sequence += 1
            if self._unseen_since is None:
                self._unseen_since = now
            items.append((self._key(self._own), encode(demand, self._sequence, self._clock.now_us())))
        self._publishing = asyncio.create_task(self._put(items))

    async def _put(self, items: list[TableItem]) -> None:
        try:
            await self._log.put(topics.DEMAND, items)
        except TidewireError as error:
            self._note(error.reason, "demand_report_failed", error.message)
        else:
            self._failing = ""

    async def _follow(self) -> None:
        while True:
            try:
                reader = self._log.table(topics.DEMAND)
                try:
                    async for batch in reader:
                        for key, value in batch:
                            self._take(key, value)
                        if not batch:
                            self._replayed = True
                            self._look()
                finally:
                    await reader.close()
            except TidewireError as error:
                self._note(error.reason, "demand_reader_failed", error.message)
            self._replayed = False
            await asyncio.sleep(REPORT_SECONDS)

    def _take(self, key: bytes, value: bytes | None) -> None:
        service, _, process = key.decode(errors="replace").partition("/")
        if service != self._service:
            return
        if value is None:
            self.board.remove(process)
            return
        try:
            sequence, reported_us, tenants = decode(bytes(value))
        except (ValueError, DecodeError) as error:
            self._note(process, "demand_report_unreadable", str(error))
            return
        seen_at = self._clock.monotonic()
        if (
            not self._replayed
        ):  # only of what was there before us the age must be taken from somebody else's clock
            seen_at -= max(0.0, (self._clock.now_us() - reported_us) / 1e6)
        if process == self._own:
            self._unseen_since = None if sequence >= self._sequence else seen_at
        self.board.put(process, tenants, seen_at)

    def _note(self, what: str, event: str, why: str) -> None:
        if what != self._failing:
            logger.warning(event, reason=why)
        self._failing = what
