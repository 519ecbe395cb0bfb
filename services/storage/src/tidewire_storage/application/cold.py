"""The cold tier: readings of old days move from the store into Parquet objects, and are looked after there.

Rounds of an owner's upkeep. Everything is one act: rows are read from blocks of either tier, slice by slice of devices,
written as objects of one day each, read back, and then put in the blocks' place by one change of the store. Killed
before that change, objects are left that nothing names, and are found and removed; killed after it, the same is true
of the objects that were replaced.
"""

import asyncio
import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewire_kit.clock import Clock
from tidewire_kit.ids import TenantId
from tidewire_kit.observability.logs import get_logger
from tidewire_storage.application.cold_rewriting import Rewriting, rows_of_day
from tidewire_storage.application.directories import Directories
from tidewire_storage.application.encoding import Buried
from tidewire_storage.application.sweep import MAX_US, MIN_US
from tidewire_storage.domain.blocks import (
    COLD_BLOCK,
    EPOCH_BLOCK,
    BlockKey,
    StoredBlock,
    TopicPartitionKey,
)
from tidewire_storage.domain.cold_format import ColdDirectory, encode, object_name
from tidewire_storage.domain.rollups import DAY_US
from tidewire_storage.domain.rows import uid_list
from tidewire_storage.ports import ColdStore, ColdUnavailable, Exchange, Store

logger = get_logger(__name__)

_NONCE_BYTES = 8

DeviceNames = Callable[[TenantId, Sequence[bytes]], list[str]]
"""Names of devices by uid; "" where it is not known any more."""


@dataclass(frozen=True, slots=True)
class ColdLimits:
    """When what moves."""

    after_us: int
    """Days that ended as long ago move."""
    fold_us: int
    """Objects of one day become one after so long without a further one."""


@dataclass(frozen=True, slots=True)
class ColdReport:
    """What a round has done, for metrics."""

    why: str
    """`moved`, `folded` or `purged`."""
    objects: int
    bytes: int
    readings: int


class ObjectDiffers(ColdUnavailable):
    """An object that was put reads back as something else. It is removed, and put again by the next round."""


class ColdTier:
    """The use case. All methods on one loop."""

    def __init__(
        self,
        store: Store,
        directories: Directories,
        cold: ColdStore,
        owned: Callable[[], Collection[TopicPartitionKey]],
        buried: Callable[[], Buried],
        lock: asyncio.Lock,
        clock: Clock,
        tenants: Callable[[], Collection[TenantId]],
        names: DeviceNames,
        limits: ColdLimits,
        on_report: Callable[[ColdReport], None] = lambda report: None,
    ) -> None:
        """`lock` is that of sealing: what is buried with it held does not come back."""
        self._store = store
        self._directories = directories
        self._cold = cold
        self._owned = owned
        self._buried = buried
        self._lock = lock
        self._clock = clock
        self._tenants = tenants
        self._names = names
        self._limits = limits
        self._on_report = on_report
        self._busy = asyncio.Lock()
        """Held for one rewriting: memory is for one, and a purge comes between two."""
        self._unnamed: set[str] = set()
        """Objects that no block names any more, and that are still there."""
        self._purged_tenants: set[TenantId] = set()
        self._purged: dict[tuple[TenantId, TopicPartitionKey], frozenset[bytes]] = {}

    async def round(self) -> int:
        """Moves what is old enough, and folds. Returns the number of exchanges. Raises Unavailable, StoreFull."""
        done = 0
        await self.purge()  # partitions may have come since it was asked for
        for place in list(self._owned()):
            for tenant in list(self._tenants()):
                done += await self.move(tenant, place)
                done += await self.fold(tenant, place)
        return done

    async def move(self, tenant: TenantId, place: TopicPartitionKey) -> int:
        """Moves a tenant's blocks that hold nothing but old days."""
        batches = await self._movable(tenant, place)
        return await self._rewrite_all("moved", tenant, place, batches)

    async def fold(self, tenant: TenantId, place: TopicPartitionKey) -> int:
        """Makes one of the objects of a day that came one after the other."""
        batches = await self._foldable(tenant, place)
        return await self._rewrite_all("folded", tenant, place, batches)

    async def purge(self) -> None:
        """Removes deleted tenants' objects, and deleted devices' rows from objects. Raises Unavailable.

        Of the partitions of this process; call it again when there are others.
        """
        buried = self._buried()
        await self._remove_unnamed()
        for tenant in set(buried.tenants) - self._purged_tenants:
            objects = await self._cold.objects(f"tenant={tenant.hex()}/")
            await self._cold.remove([one.name for one in objects])
            self._purged_tenants.add(tenant)
        for tenant, devices in buried.devices.items():
            if tenant in buried.tenants:
                continue
            for place in list(self._owned()):
                if self._purged.get((tenant, place)) != frozenset(devices):
                    await self._purge_place(tenant, place, frozenset(devices))
                    self._purged[tenant, place] = frozenset(devices)

    async def _purge_place(
        self, tenant: TenantId, place: TopicPartitionKey, devices: frozenset[bytes]
    ) -> None:
        for block in await self._readings(tenant, place, MAX_US):
            if block.key.level != COLD_BLOCK:
                continue
            (directory,) = await self._directories.of([block])
            held = not isinstance(directory, ColdDirectory) or directory.holds(devices)
            if held and not await self._rewrite_all("purged", tenant, place, [[block]]):
                raise ColdUnavailable("an object changed while a device was removed from it")

    async def _readings(self, tenant: TenantId, place: TopicPartitionKey, end_us: int) -> list[StoredBlock]:
        """Blocks with anything before a time, in order of arrival."""
        found = await self._store.find(tenant, place, MIN_US, end_us)
        return sorted(
            found, key=lambda block: (block.key.first_offset, block.key.end_offset, block.key.slice)
        )

    async def _movable(self, tenant: TenantId, place: TopicPartitionKey) -> list[list[StoredBlock]]:
        """Runs of blocks that move together: of one day of log time, and none between them that stays."""
        before_us = (self._clock.now_us() - self._limits.after_us) // DAY_US * DAY_US
        blocks = await self._readings(tenant, place, before_us)
        if all(block.key.level == COLD_BLOCK for block in blocks):
            return []
        unmerged = {epoch.epoch for epoch in await self._store.unmerged(place)}
        runs: list[list[StoredBlock]] = [[]]
        for block in blocks:
            if block.key.level == COLD_BLOCK:
                continue
            old = block.facts.max_time_us < before_us and block.key.level >= EPOCH_BLOCK
            if not old or block.key.epoch in unmerged:
                runs.append([])
                continue
            if runs[-1] and runs[-1][0].facts.hour_us // DAY_US != block.facts.hour_us // DAY_US:
                runs.append([])
            runs[-1].append(block)
        return [run for run in runs if run]

    async def _foldable(self, tenant: TenantId, place: TopicPartitionKey) -> list[list[StoredBlock]]:
        """Runs of objects of one day that several moves wrote, with no block between them that is not cold."""
        blocks = await self._readings(tenant, place, MAX_US)
        days: dict[int, list[StoredBlock]] = {}
        for block in blocks:
            if block.key.level == COLD_BLOCK:
                days.setdefault(block.facts.min_time_us // DAY_US, []).append(block)
        near = [block for block in blocks if block.key.level != COLD_BLOCK]
        before_us = self._clock.now_us() - self._limits.fold_us
        found: list[list[StoredBlock]] = []
        for day, some in days.items():
            if len({(block.key.first_offset, block.key.end_offset) for block in some}) < 2:
                continue
            between = [
                block.key.first_offset
                for block in near
                if block.facts.min_time_us < (day + 1) * DAY_US and block.facts.max_time_us >= day * DAY_US
            ]
            runs: dict[int, list[StoredBlock]] = {}
            for block in some:
                runs.setdefault(int(np.searchsorted(sorted(between), block.key.first_offset)), []).append(
                    block
                )
            for run in runs.values():
                if len({(block.key.first_offset, block.key.end_offset) for block in run}) > 1:
                    directories = await self._directories.of(run)
                    if all(
                        isinstance(one, ColdDirectory) and one.written_us <= before_us for one in directories
                    ):
                        found.append(run)
        return found

    async def _rewrite_all(
        self, why: str, tenant: TenantId, place: TopicPartitionKey, batches: Iterable[list[StoredBlock]]
    ) -> int:
        done = 0
        for batch in batches:
            if tenant in self._buried().tenants:
                return done
            async with self._busy:
                done += await self._rewrite(why, tenant, place, batch)
        return done

    async def _rewrite(
        self, why: str, tenant: TenantId, place: TopicPartitionKey, sources: Sequence[StoredBlock]
    ) -> bool:
        """Writes the sources' rows as objects and puts these in their place. False: a source is gone."""
        found = await self._directories.of(sources)
        directories = [one for one in found if one is not None]
        if len(directories) < len(sources):
            return False
        taken = await self._store.blocks_of_epoch(place, sources[0].key.epoch)
        key = BlockKey(
            tenant,
            place,
            1 + max((block.key.slice for block in taken), default=-1),
            sources[0].key.epoch,
            min(block.key.first_offset for block in sources),
            max(block.key.end_offset for block in sources),
            COLD_BLOCK,
        )
        dropped = self._buried().devices.get(tenant, frozenset())
        work = Rewriting(key, sources, directories, dropped)
        done = False
        try:
            for chosen in await asyncio.to_thread(work.slices):
                await self._write_slice(work, chosen)
            exchange = Exchange(place, tuple(sources), tuple(work.blocks), work.ledger())
            async with self._lock:  # short, as sealing and deleting wait for it
                now = self._buried()
                if tenant not in now.tenants and now.devices.get(tenant, frozenset()) == dropped:
                    done = await self._store.exchange(exchange)
        except BaseException:
            # Whether the exchange happened may be unknown: what is not named is removed later.
            logger.info("cold_rewriting_broken_off", why=why, objects=len(work.names))
            raise
        replaced = [one.name for one in directories if isinstance(one, ColdDirectory)]
        self._unnamed |= {*replaced} if done else {*work.names}
        await self._remove_unnamed()
        if done:
            self._on_report(ColdReport(why, len(work.names), work.object_bytes, work.after))
            logger.info(
                "cold_rewritten", why=why, tenant=tenant.hex(), objects=len(work.names), readings=work.after
            )
        return done

    async def _remove_unnamed(self) -> None:
        names = set(self._unnamed)
        await self._cold.remove(names)
        self._unnamed -= names

    async def _write_slice(self, work: Rewriting, chosen: NDArray[np.uint8]) -> None:
        asked = work.asked(chosen)
        data = await self._directories.pages([one for one, _ in asked])
        if None in data:
            raise ColdUnavailable("a block was replaced while it was read; the next round goes on")
        rows = await asyncio.to_thread(work.rows, chosen, asked, data)
        names = self._names(work.key.tenant, uid_list(chosen))
        for day in np.unique(rows.time // DAY_US).tolist():
            name = object_name(
                work.key.tenant, day, work.key.place.partition, secrets.token_bytes(_NONCE_BYTES)
            )
            rows_then = await asyncio.to_thread(rows_of_day, rows, day)
            data_of_object, block = await asyncio.to_thread(
                encode,
                work.next_key(),
                work.sources[0].facts.hour_us,
                name,
                self._clock.now_us(),
                rows_then,
                chosen,
                names,
            )
            work.names.append(name)
            await self._cold.put(name, data_of_object)
            back = await self._cold.ranges(name, [(0, len(data_of_object) + 1)])
            if back is None or back[0] != data_of_object:
                raise ObjectDiffers(f"{name} in {self._cold.place} is not what was written")
            work.add(block, len(data_of_object))
