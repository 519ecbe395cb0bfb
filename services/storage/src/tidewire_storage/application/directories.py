"""Directories of blocks in memory: a query for one device then reads its pages and nothing else.

One for all queries of a process. A directory takes some tens of bytes for each device of its block. Pages come from the
store, or of blocks in the cold tier from their objects: who asks need not know.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from tidewire_storage.domain.block_header import BlockDamaged
from tidewire_storage.domain.blocks import COLD_BLOCK, StoredBlock
from tidewire_storage.domain.cold_format import ColdDirectory, open_directory
from tidewire_storage.domain.sealed_format import Directory
from tidewire_storage.ports import BlockReader, ColdStore, ColdUnavailable, RangesOf

MOST_BYTES = 64 << 20
_OBJECTS_AT_ONCE = 8


@dataclass(slots=True)
class ColdUse:
    """Whether a question was answered from the cold tier too."""

    used: bool = False


cold_use: ContextVar[ColdUse | None] = ContextVar("cold_use", default=None)
"""Set by whoever wants to know it of what is asked below."""


class Directories:
    """The directories asked for last. All methods on one loop."""

    def __init__(
        self, store: BlockReader, most_bytes: int = MOST_BYTES, *, cold: ColdStore | None = None
    ) -> None:
        self._store = store
        self._cold = cold
        self._most_bytes = most_bytes
        self._held: OrderedDict[object, tuple[Directory, int]] = OrderedDict()
        self._bytes = 0

    async def of(self, blocks: Sequence[StoredBlock]) -> list[Directory | None]:
        """Directories of blocks that have one, in order; None: gone since found. Raises BlockDamaged, Unavailable."""
        found = {
            block.identity: self._held[block.identity][0] for block in blocks if block.identity in self._held
        }
        missing = [block for block in blocks if block.identity not in found]
        asked = [RangesOf(block, [(0, block.head_bytes)]) for block in missing]
        for block, data in zip(missing, await self._store.read_ranges(asked) if asked else (), strict=True):
            if data is not None:
                found[block.identity] = open_directory(data[0])
                self._hold(block, found[block.identity])
        for identity in found:
            if identity in self._held:
                self._held.move_to_end(identity)
        return [found.get(block.identity) for block in blocks]

    async def pages(self, asked: Sequence[RangesOf]) -> list[list[bytes] | None]:
        """Pages of blocks, by the spans that their directories say; None: gone since found.

        Raises BlockDamaged, Unavailable, ColdUnavailable.
        """
        near = [one for one in asked if one.block.key.level != COLD_BLOCK]
        found = dict(zip(map(id, near), await self._store.read_ranges(near) if near else (), strict=True))
        far = [one for one in asked if one.block.key.level == COLD_BLOCK and one.ranges]
        for first in range(0, len(far), _OBJECTS_AT_ONCE):
            some = far[first : first + _OBJECTS_AT_ONCE]
            pages = await asyncio.gather(*map(self._pages_of_object, some))
            found |= dict(zip(map(id, some), pages, strict=True))
        return [found.get(id(one), None if one.ranges else []) for one in asked]

    async def _pages_of_object(self, asked: RangesOf) -> list[bytes] | None:
        if self._cold is None:
            raise ColdUnavailable("TIDEWIRE_STORAGE_COLD_URL is not set")
        (directory,) = await self.of([asked.block])
        if directory is None:
            return None
        assert isinstance(directory, ColdDirectory)
        if (use := cold_use.get()) is not None:
            use.used = True
        found = await self._cold.ranges(directory.name, asked.ranges)
        if found is None and await self._is_there(asked.block):
            raise BlockDamaged(f"{directory.name} is missing in {self._cold.place}; restore it")
        return found

    async def _is_there(self, block: StoredBlock) -> bool:
        """Whether a block is still found as it was."""
        facts = block.facts
        now = await self._store.find(
            block.key.tenant, block.key.place, facts.min_time_us, facts.max_time_us + 1
        )
        return any(other.identity == block.identity for other in now)

    def _hold(self, block: StoredBlock, directory: Directory) -> None:
        self._held[block.identity] = directory, block.head_bytes
        self._bytes += block.head_bytes
        while self._bytes > self._most_bytes:
            _, (_, size) = self._held.popitem(last=False)
            self._bytes -= size
