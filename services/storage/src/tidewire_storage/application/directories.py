"""Directories of sealed blocks in memory: a query for one device then reads its pages and nothing else.

One for all queries of a process. A directory takes some tens of bytes for each device of its block.
"""

from collections import OrderedDict
from collections.abc import Sequence

from tidewire_storage.domain.blocks import StoredBlock
from tidewire_storage.domain.sealed_format import Directory
from tidewire_storage.ports import BlockReader, RangesOf

MOST_BYTES = 64 << 20


class Directories:
    """The directories asked for last. All methods on one loop."""

    def __init__(self, store: BlockReader, most_bytes: int = MOST_BYTES) -> None:
        self._store = store
        self._most_bytes = most_bytes
        self._held: OrderedDict[object, tuple[Directory, int]] = OrderedDict()
        self._bytes = 0

    async def of(self, blocks: Sequence[StoredBlock]) -> list[Directory | None]:
        """Directories of sealed blocks, in order; None: gone since found. Raises BlockDamaged, Unavailable."""
        found = {
            block.identity: self._held[block.identity][0] for block in blocks if block.identity in self._held
        }
        missing = [block for block in blocks if block.identity not in found]
        asked = [RangesOf(block, [(0, block.head_bytes)]) for block in missing]
        for block, data in zip(missing, await self._store.read_ranges(asked) if asked else (), strict=True):
            if data is not None:
                found[block.identity] = Directory(data[0])
                self._hold(block, found[block.identity])
        for identity in found:
            if identity in self._held:
                self._held.move_to_end(identity)
        return [found.get(block.identity) for block in blocks]

    def _hold(self, block: StoredBlock, directory: Directory) -> None:
        self._held[block.identity] = directory, block.head_bytes
        self._bytes += block.head_bytes
        while self._bytes > self._most_bytes:
            _, (_, size) = self._held.popitem(last=False)
            self._bytes -= size
