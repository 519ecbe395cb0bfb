"""Housekeeping: sealing and merging, what retention and deletion remove, and the ledger's regular recount.

Runs beside ingest and queries.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from tidewire_kit.clock import Clock
from tidewire_kit.directory import Directory, Retention
from tidewire_kit.errors import TidewireError
from tidewire_kit.ids import TenantId
from tidewire_kit.lasting import ended
from tidewire_kit.observability.logs import get_logger
from tidewire_storage.application.accounts import Accounts
from tidewire_storage.application.ingest import IngestReadings
from tidewire_storage.application.merge import MergeEpochs
from tidewire_storage.application.seal import SealEpochs
from tidewire_storage.ports import SweepPutOff, Upkeep

logger = get_logger(__name__)


class Housekeeping:
    """Five loops; each round is idempotent, and one that fails is logged and tried again at the next."""

    def __init__(
        self,
        store: Upkeep,
        ingest: IngestReadings,
        sealing: SealEpochs,
        merging: MergeEpochs,
        directory: Directory,
        clock: Clock,
        accounts: Accounts,
        *,
        seal_seconds: float,
        purge_seconds: float,
        expire_seconds: float,
        recount_seconds: float,
        on_recount: Callable[[int], None] = lambda difference: None,
        on_removed: Callable[[str, int], None] = lambda why, readings: None,
        retention: Callable[[TenantId], Retention] | None = None,
        purge_cold: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`retention`: how long a tenant's readings and rollups are kept, if not as the registry says.

        `purge_cold` removes what was deleted from the cold tier; it may raise, and is then called again.
        """
        self._retention = retention
        self._purge_cold = purge_cold
        self._store = store
        self._ingest = ingest
        self._sealing = sealing
        self._merging = merging
        self._directory = directory
        self._clock = clock
        self._accounts = accounts
        self._rounds: list[tuple[str, float, Callable[[], Awaitable[None]]]] = [
            ("seal", seal_seconds, self.seal),
            ("merge", seal_seconds, self.merge),
            ("purge", purge_seconds, self.purge),
            ("expire", expire_seconds, self.expire),
            ("recount", recount_seconds, self.recount),
        ]
        self._on_recount = on_recount
        self._on_removed = on_removed
        self._tenants: set[TenantId] = set()
        self._devices: dict[TenantId, frozenset[bytes]] = {}
        self._generation = -1
        self._swept = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begins; the directory must be ready."""
        self._tasks = [
            asyncio.create_task(self._repeat(name, seconds, work), name=f"storage {name}")
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
        if self._directory.generation != self._generation:
            generation = (
                self._directory.generation
            )  # before looking: what comes meanwhile is for the next round
            await self._bury_new()
            self._generation = generation
        if not self._swept:
            failure: TidewireError | None = None
            if self._purge_cold is not None:
                try:
                    await self._purge_cold()
                except TidewireError as error:
                    failure = error  # what lies here goes meanwhile
            try:
                removed = await self._store.sweep()
            except SweepPutOff:
                return  # until the next round
            self._on_removed("deleted", removed)
            if failure is not None:
                raise failure
            self._swept = True

    async def _bury_new(self) -> None:
        tenants = {view.uid for view in self._directory.tenants() if view.deleted}
        devices: list[tuple[TenantId, bytes]] = []
        for tombstone in self._directory.tombstones():
            if tombstone.kind == "tenant":
                tenants.add(tombstone.tenant)
            elif tombstone.kind == "device" and tombstone.uid not in self._devices.get(tombstone.tenant, ()):
                devices.append((tombstone.tenant, tombstone.uid))
        tenants -= self._tenants
        if not tenants and not devices:
            return
        of_tenant = dict(self._devices)
        for tenant in {tenant for tenant, _ in devices}:
            uids = frozenset(uid for owner, uid in devices if owner == tenant)
            of_tenant[tenant] = of_tenant.get(tenant, frozenset()) | uids
        async with self._sealing.lock:
            new = await self._ingest.bury(
                self._tenants | tenants, of_tenant, lambda: self._store.bury(tenants, devices)
            )
        self._tenants |= tenants
        self._devices = of_tenant
        self._swept = False  # also when another process noted them first: each cleans its own files
        logger.info("purge_begins", tombstones=len(tenants) + len(devices), new=new)

    async def seal(self) -> None:
        """Seals what has ended."""
        await self._sealing.round()

    async def merge(self) -> None:
        """Merges what is sealed. A loop of its own, as one takes as long as many seals: they take turns."""
        await self._merging.round()

    async def expire(self) -> None:
        """Removes blocks that are wholly older than their tenant's retention."""
        expired = 0
        for view in self._directory.tenants():
            retention = view.retention if self._retention is None else self._retention(view.uid)
            for seconds, rollups in ((retention.raw_seconds, False), (retention.rollup_seconds, True)):
                if seconds is not None:
                    before_us = self._clock.now_us() - int(seconds * 1e6)
                    expired += await self._store.expire(view.uid, before_us, rollups=rollups)
        if expired:
            self._on_removed("expired", expired)
        with contextlib.suppress(SweepPutOff):
            await self._store.sweep()

    async def recount(self) -> None:
        """Counts what is there, and compares it with what should be."""
        difference = await self._accounts.difference()
        self._on_recount(difference)
        if difference:
            logger.error("ledger_does_not_add_up", difference_readings=difference)

    async def _repeat(self, name: str, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        failed = False
        while True:
            try:
                await work()
                failed = False
            except Exception as error:  # noqa: BLE001 - the next round may do better
                if not failed:
                    logger.warning(
                        "housekeeping_failed", round=name, error=f"{type(error).__name__}: {error}"
                    )
                failed = True
            await asyncio.sleep(seconds)
