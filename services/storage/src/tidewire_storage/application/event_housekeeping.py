"""Housekeeping of events: deletion, retention and the regular recount; beside storing and listing."""

import asyncio
from collections.abc import Awaitable, Callable

from tidewire_kit.clock import Clock
from tidewire_kit.directory import Directory
from tidewire_kit.ids import TenantId
from tidewire_kit.lasting import ended
from tidewire_kit.observability.logs import get_logger
from tidewire_storage.ports import EventAccount, EventStore

logger = get_logger(__name__)


class EventHousekeeping:
    """Three loops; each round is idempotent, and one that fails is logged and tried again at the next."""

    def __init__(
        self,
        store: EventStore,
        directory: Directory,
        clock: Clock,
        *,
        purge_seconds: float,
        expire_seconds: float,
        recount_seconds: float,
        on_recount: Callable[[EventAccount], None] = lambda account: None,
        on_removed: Callable[[str, int], None] = lambda why, events: None,
    ) -> None:
        self._store = store
        self._directory = directory
        self._clock = clock
        self._on_recount = on_recount
        self._on_removed = on_removed
        self._rounds: list[tuple[str, float, Callable[[], Awaitable[None]]]] = [
            ("purge", purge_seconds, self.purge),
            ("expire", expire_seconds, self.expire),
            ("recount", recount_seconds, self.recount),
        ]
        self._generation = -1
        self._tenants: set[TenantId] = set()
        self._devices: set[tuple[TenantId, bytes]] = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begins; the directory must be ready."""
        self._tasks = [
            asyncio.create_task(self._repeat(name, seconds, work), name=f"events {name}")
            for name, seconds, work in self._rounds
        ]

    async def close(self) -> None:
        """Stops, in the middle of a round if need be. Idempotent."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def ended(self) -> str | None:
        """Says so when a loop has ended though nobody closed it; see `tidewire_kit.lasting`."""
        return ended(*self._tasks)

    async def purge(self) -> None:
        """Removes what belongs to deleted tenants and devices, also those deleted while storage was down."""
        generation = self._directory.generation
        if generation == self._generation:
            return
        tenants = {view.uid for view in self._directory.tenants() if view.deleted}
        devices: set[tuple[TenantId, bytes]] = set()
        for tombstone in self._directory.tombstones():
            if tombstone.kind == "tenant":
                tenants.add(tombstone.tenant)
            elif tombstone.kind == "device":
                devices.add((tombstone.tenant, tombstone.uid))
        tenants -= self._tenants
        devices -= self._devices
        if tenants or devices:
            self._on_removed("deleted", await self._store.bury(tenants, devices))
            self._tenants |= tenants
            self._devices |= devices
        self._generation = generation

    async def expire(self) -> None:
        """Removes events that are older than their tenant's retention."""
        for view in self._directory.tenants():
            if view.retention.raw_seconds is not None:
                before_us = self._clock.now_us() - int(view.retention.raw_seconds * 1e6)
                self._on_removed("expired", await self._store.expire(view.uid, before_us))

    async def recount(self) -> None:
        """Compares what is there with what should be."""
        account = await self._store.account()
        self._on_recount(account)
        if account.difference:
            logger.error("events_do_not_add_up", difference_events=account.difference)

    async def _repeat(self, name: str, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        failed = False
        while True:
            try:
                await work()
                failed = False
            except Exception as error:  # noqa: BLE001 - the next round may do better
                if not failed:
                    logger.warning(
                        "event_housekeeping_failed", round=name, error=f"{type(error).__name__}: {error}"
                    )
                failed = True
            await asyncio.sleep(seconds)
