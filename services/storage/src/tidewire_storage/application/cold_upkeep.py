"""Looking after the cold tier again and again: rounds of moving and folding, and an audit of what lies there.

A round that fails is repeated after a pause that doubles, up to a limit; nothing is dropped here before its object is
verified, so readings wait where they are. The audit compares objects with the blocks that name them: objects that
nothing names are removed once they are old enough, and objects that are missing are reported.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from tidewire_kit.clock import Clock
from tidewire_kit.ids import TenantId
from tidewire_kit.lasting import ended
from tidewire_kit.observability.logs import get_logger
from tidewire_storage.application.cold import ColdTier
from tidewire_storage.application.directories import Directories
from tidewire_storage.application.sweep import MAX_US, MIN_US
from tidewire_storage.domain.blocks import COLD_BLOCK
from tidewire_storage.domain.cold_format import ColdDirectory, partition_of_object
from tidewire_storage.ports import BlockReader, ColdStore

logger = get_logger(__name__)

ORPHAN_SECONDS = 6 * 3600.0
"""No process takes as long from writing an object to naming it."""
_LONGEST_SECONDS = 900.0
_PREFIX = "tenant="


@dataclass(frozen=True, slots=True)
class ColdAudit:
    """What lies in the partitions of this process."""

    objects: int
    bytes: int
    readings: int
    missing: int
    """Objects that a block names and that are not there, or not of the size they had."""
    removed: int
    """Objects that nothing named, and that are gone now."""


async def audit(
    store: BlockReader,
    directories: Directories,
    cold: ColdStore,
    tenants: Collection[TenantId],
    partitions: Collection[int],
    now_us: int,
    orphan_seconds: float = ORPHAN_SECONDS,
) -> ColdAudit:
    """Compares objects with blocks. Raises Unavailable."""
    by_tenant: dict[str, dict[str, tuple[int, int]]] = {tenant.hex(): {} for tenant in tenants}
    for one in await cold.objects():
        owner = one.name.partition("/")[0].removeprefix(_PREFIX)
        if partition_of_object(one.name) in partitions:
            by_tenant.setdefault(owner, {})[one.name] = one.size, one.modified_us
    objects = size = readings = missing = 0
    orphans: list[str] = []
    for owner, there in by_tenant.items():
        try:
            tenant = TenantId(bytes.fromhex(owner))
        except ValueError:
            continue  # not ours
        named: dict[str, int] = {}
        for block in await store.find(tenant, None, MIN_US, MAX_US):
            if block.key.level == COLD_BLOCK and block.key.place.partition in partitions:
                (directory,) = await directories.of([block])
                if isinstance(directory, ColdDirectory):
                    named[directory.name] = directory.object_bytes
                    readings += block.facts.readings
        for name, length in named.items():
            if there.get(name, (-1, 0))[0] != length:
                missing += await _is_missing(store, directories, cold, tenant, name, length)
        objects += len(named)
        size += sum(named.values())
        orphans += [
            name
            for name, (_, modified_us) in there.items()
            if name not in named and modified_us <= now_us - int(orphan_seconds * 1e6)
        ]
    if orphans:
        await cold.remove(orphans)
        logger.info("cold_orphans_removed", objects=len(orphans))
    if missing:
        logger.error("cold_objects_missing", objects=missing, place=cold.place)
    return ColdAudit(objects, size, readings, missing, len(orphans))


async def _is_missing(
    store: BlockReader, directories: Directories, cold: ColdStore, tenant: TenantId, name: str, length: int
) -> bool:
    """Whether an object that was not listed is not there, and still has to be: it may be new, or gone by now."""
    found = await cold.ranges(name, [(length - 1, 2)])
    if found is not None and len(found[0]) == 1:
        return False
    for block in await store.find(tenant, None, MIN_US, MAX_US):
        if block.key.level == COLD_BLOCK:
            (directory,) = await directories.of([block])
            if isinstance(directory, ColdDirectory) and directory.name == name:
                return True
    return False


class ColdUpkeep:
    """Two loops. All methods on one loop of the process."""

    def __init__(
        self,
        tier: ColdTier,
        look: Callable[[], Awaitable[ColdAudit]],
        clock: Clock,
        *,
        move_seconds: float,
        audit_seconds: float,
        on_round: Callable[[int], None] = lambda at_us: None,
        on_failure: Callable[[], None] = lambda: None,
        on_audit: Callable[[ColdAudit], None] = lambda found: None,
    ) -> None:
        """`on_round` gets the time at which a round has ended well."""
        self._tier = tier
        self._look = look
        self._clock = clock
        self._move_seconds = move_seconds
        self._audit_seconds = audit_seconds
        self._on_round = on_round
        self._on_failure = on_failure
        self._on_audit = on_audit
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begins."""
        self._tasks = [
            asyncio.create_task(
                self._repeat("move", self._move_seconds, self._move), name="storage cold move"
            ),
            asyncio.create_task(
                self._repeat("audit", self._audit_seconds, self._audit), name="storage cold audit"
            ),
        ]

    async def close(self) -> None:
        """Stops, in the middle of a round if need be. Idempotent."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def ended(self) -> str | None:
        """See Housekeeping."""
        return ended(*self._tasks)

    async def _move(self) -> None:
        await self._tier.round()
        self._on_round(self._clock.now_us())

    async def _audit(self) -> None:
        self._on_audit(await self._look())

    async def _repeat(self, name: str, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        failures = 0
        while True:
            try:
                await work()
                if failures:
                    logger.info("cold_tier_works_again", round=name)
                failures = 0
            except Exception as error:  # noqa: BLE001 - the next round may do better
                self._on_failure()
                if not failures:
                    logger.warning("cold_tier_failed", round=name, error=f"{type(error).__name__}: {error}")
                failures += 1
            pause = seconds if not failures else max(seconds, min(_LONGEST_SECONDS, 2.0**failures))
            await asyncio.sleep(pause)
