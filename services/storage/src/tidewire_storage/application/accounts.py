"""The loss ledger, usage, and cuts: what administrators ask of storage."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from tidewire_kit.clock import Clock
from tidewire_kit.errors import Unavailable
from tidewire_kit.ids import TenantId
from tidewire_kit.log.port import MessageLog
from tidewire_storage.application.ledger_days import by_hour
from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_storage.domain.rollups import DAY_US
from tidewire_storage.ports import BlockReader, LedgerAccount, TenantUsage

_POLL_SECONDS = 0.05
_CUT_SECONDS = 20.0
_SEAL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class LedgerAnswer:
    """The ledger, and what has not reached it yet."""

    account: LedgerAccount
    in_flight_readings: int
    lag_records: int


class Accounts:
    """The use cases. `tenant` None means the whole platform; who may ask that is checked before."""

    def __init__(
        self,
        store: BlockReader,
        log: MessageLog,
        clock: Clock,
        topic: str,
        in_flight: Callable[[], int],
    ) -> None:
        """`in_flight` tells the readings that this process has taken and not yet stored."""
        self._store = store
        self._log = log
        self._clock = clock
        self._topic = topic
        self._in_flight = in_flight

    async def ledger(self, tenant: TenantId | None, start_us: int, end_us: int) -> LedgerAnswer:
        """The ledger for hours that begin in [start_us, end_us), its blocks counted again."""
        first_us, last_us = start_us - start_us % DAY_US, end_us + -end_us % DAY_US
        account = by_hour(await self._store.ledger(tenant, first_us, last_us), start_us, end_us)
        return LedgerAnswer(account, self._in_flight(), await self.lag_records())

    async def difference(self) -> int:
        """Readings of the whole platform that are missing (positive) or there twice."""
        return await self._store.difference()

    async def lag_records(self) -> int:
        """Durable records of the log that are not stored."""
        incarnation = self._log.incarnation(self._topic)
        ends = await self._log.end_offsets(self._topic)
        begins = await self._log.begin_offsets(self._topic)
        stored = await self._store.progress_offsets(incarnation)
        return sum(
            max(0, end - stored.get(partition, begin))
            for partition, (begin, end) in enumerate(zip(begins, ends, strict=True))
        )

    async def usage(self, tenant: TenantId | None) -> list[TenantUsage]:
        """What a tenant keeps, or each."""
        return await self._store.usage(tenant)

    async def cut_epochs(self, max_seconds: float = _CUT_SECONDS) -> int:
        """Ends every partition's epoch, whichever process owns it. Returns the partitions that had something to cut.

        Unavailable when some partition has no owner; the others are cut then.
        """
        request = await self._store.request_cut()
        partitions = self._log.partitions(self._topic)
        deadline = self._clock.monotonic() + min(max_seconds, _CUT_SECONDS)
        while True:
            noted = await self._store.cuts_noted(request)
            if len(noted) >= partitions:
                return sum(noted.values())
            if self._clock.monotonic() >= deadline:
                why = f"{partitions - len(noted)} of {partitions} partitions have no owner yet; try again shortly"
                raise Unavailable("storage", why, reason="PARTITIONS_WITHOUT_OWNER")
            await asyncio.sleep(_POLL_SECONDS)

    async def seal_epochs(self, max_seconds: float = _SEAL_SECONDS) -> int:
        """As `cut_epochs`, and returns when no epoch that has ended is left to be sealed by its owner.

        Unavailable when that takes too long; it goes on then.
        """
        deadline = self._clock.monotonic() + min(max_seconds, _SEAL_SECONDS)
        cut = await self.cut_epochs(max_seconds)
        incarnation = self._log.incarnation(self._topic)
        places = [
            TopicPartitionKey(incarnation, number) for number in range(self._log.partitions(self._topic))
        ]
        for place in places:
            while await self._store.unsealed(place):
                if self._clock.monotonic() >= deadline:
                    why = "what was stored is being sealed, which takes longer; ask again to wait for it"
                    raise Unavailable("storage", why, reason="STILL_SEALING")
                await asyncio.sleep(_POLL_SECONDS)
        return cut
