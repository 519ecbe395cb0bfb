"""The bytes of blocks that were found, or what has become of them since. Reads only."""

from collections.abc import Sequence

from tidewire_storage.adapters.cassandra import rows
from tidewire_storage.adapters.cassandra.attempts import Attempts
from tidewire_storage.adapters.cassandra.reading import NAMED
from tidewire_storage.adapters.cassandra.tables import Tables, gather_all
from tidewire_storage.domain.block_header import BlockDamaged
from tidewire_storage.domain.blocks import StoredBlock
from tidewire_storage.ports import RangesOf


async def read_blocks(
    tables: Tables, attempts: Attempts, blocks: Sequence[StoredBlock]
) -> list[bytes | None]:
    """The bytes of blocks, in order; None: removed since they were found."""

    async def read(block: StoredBlock) -> bytes | None:
        data = await attempts.read(block)
        if data is not None:
            return data
        row = await tables.row(NAMED, *rows.epoch_block_key(block))
        if row is None:
            return None
        now = rows.block_of(row, row.tenant, block.key.place, block.key.epoch)
        if now.token != block.token:
            return await read(now)  # rewritten since
        raise BlockDamaged(
            f"its bytes are not in storage_blocks (epoch {now.key.epoch}, {now.key.first_offset})"
        )

    return await gather_all(read(block) for block in blocks)


async def read_ranges(
    tables: Tables, attempts: Attempts, asked: Sequence[RangesOf]
) -> list[list[bytes] | None]:
    """Parts of blocks, in order; None: removed or rewritten since they were found."""

    async def read(one: RangesOf) -> list[bytes] | None:
        data = await attempts.read_ranges(one)
        if data is not None:
            return data
        block = one.block
        row = await tables.row(NAMED, *rows.epoch_block_key(block))
        if (
            row is None
            or rows.block_of(row, row.tenant, block.key.place, block.key.epoch).token != block.token
        ):
            return None
        raise BlockDamaged(
            f"its bytes are not in storage_blocks (epoch {block.key.epoch}, {block.key.first_offset})"
        )

    return await gather_all(read(one) for one in asked)
