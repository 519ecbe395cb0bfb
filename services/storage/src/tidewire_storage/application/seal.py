"""Sealing: the flushed blocks of an epoch that has ended become one sealed block a tenant.

A round of housekeeping. Flushes make a block every two seconds; sealed blocks are few, smaller, and hold one device's
rows side by side. The store puts them in the place of the flushed ones at once, so that every query sees either; who
comes late, or twice, finds the epoch sealed and changes nothing.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from tidewire_kit.ids import TenantId
from tidewire_kit.observability.logs import get_logger
from tidewire_kit.owner import Ledger, LedgerCounts
from tidewire_storage.application.encoding import Buried
from tidewire_storage.domain.block_format import encode_block, read_block
from tidewire_storage.domain.blocks import Block, BlockKey, EpochCoverage, StoredBlock, TopicPartitionKey
from tidewire_storage.domain.merging import merge
from tidewire_storage.ports import Seal, Sealing

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SealReport:
    """An epoch that was sealed, for metrics."""

    readings: int
    flushed_bytes: int
    sealed_bytes: int


class SealEpochs:
    """The use case. All methods on one loop."""

    def __init__(
        self,
        store: Sealing,
        owned: Callable[[], Collection[TopicPartitionKey]],
        buried: Callable[[], Buried],
        pressed: Callable[[], bool] = lambda: False,
        on_seal: Callable[[SealReport], None] = lambda report: None,
    ) -> None:
        """`owned` are the partitions of this process, `buried` what it is not to store any more.

        While `pressed` says so sealing waits, as readings have to be visible within seconds. But never more than one
        epoch a partition: what is stored now would have to be sealed later, and take the disk meanwhile.
        """
        self._store = store
        self._owned = owned
        self._buried = buried
        self._pressed = pressed
        self._on_seal = on_seal
        self.lock = asyncio.Lock()
        """Held while an epoch is sealed: what is buried with it held does not come back."""
        self.busy = False
        """Whether a round is sealing something; merging takes as long as many seals, and had better wait."""

    async def round(self) -> int:
        """Seals the epochs of the owned partitions that have ended and are there in full. Returns how many."""
        sealed = 0
        try:
            for place in list(self._owned()):
                waiting = await self._store.unsealed(place)
                for number, epoch in enumerate(waiting, start=1):
                    if number == len(waiting) and self._pressed():
                        break
                    self.busy = True
                    async with self.lock:
                        sealed += await self._seal(place, epoch)
        finally:
            self.busy = False
        return sealed

    async def _seal(self, place: TopicPartitionKey, epoch: EpochCoverage) -> bool:
        blocks = await self._store.blocks_of_epoch(place, epoch.epoch)
        data = await self._store.read(blocks)
        if any(raw is None for raw in data):
            return False  # removed since they were found; the next round finds what is left
        seal = await asyncio.to_thread(_seal_of, place, epoch.epoch, blocks, data, self._buried())
        if not await self._store.seal(seal):
            return False
        self._on_seal(
            SealReport(
                sum(block.facts.readings for block in seal.blocks),
                sum(len(raw) for raw in data if raw is not None),
                sum(len(block.data) for block in seal.blocks),
            )
        )
        return True


def _seal_of(
    place: TopicPartitionKey,
    epoch: int,
    blocks: Sequence[StoredBlock],
    data: Sequence[bytes | None],
    buried: Buried,
) -> Seal:
    by_tenant: dict[TenantId, list[tuple[StoredBlock, bytes]]] = {}
    for block, raw in sorted(zip(blocks, data, strict=True), key=lambda item: item[0].key.first_offset):
        assert raw is not None
        by_tenant.setdefault(block.key.tenant, []).append((block, raw))
    sealed: list[Block] = []
    ledger: Ledger = {}
    for tenant, some in by_tenant.items():
        first, last = some[0][0], some[-1][0]
        key = BlockKey(tenant, place, 0, epoch, first.key.first_offset, last.key.end_offset, level=1)
        counts = ledger.setdefault((tenant, first.facts.hour_us), LedgerCounts())
        if tenant in buried.tenants:
            counts.purged += sum(block.facts.readings for block, _ in some)
            continue
        merged = merge(
            (
                (block.key.first_offset, (reader.table() for reader in read_block(raw)[1]))
                for block, raw in some
            ),
            buried.devices.get(tenant, frozenset()),
        )
        counts.purged += merged.purged
        counts.stored -= (
            merged.collapsed
        )  # a later reading has taken their place, as if they had been sent again
        counts.duplicate += merged.collapsed
        if merged.tables:
            sealed.append(encode_block(key, first.facts.hour_us, merged.tables))
    return Seal(place, (epoch,), tuple(blocks), tuple(sealed), ledger)
