"""What the embedded store alone has to cope with: files and rows that a killed or hindered process left behind."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from tidewire_kit.errors import TidewireError
from tidewire_kit.ids import TenantId, new_uid
from tidewire_kit.owner import NO_ENTRIES, LedgerCounts, PieceOfTable
from tidewire_storage.adapters.embedded import EmbeddedStore
from tidewire_storage.adapters.embedded.files import BlockFile
from tidewire_storage.domain.block_format import encode_block, verified
from tidewire_storage.domain.blocks import EPOCH_BLOCK, BlockKey, EpochSpan, StoredBlock, TopicPartitionKey
from tidewire_storage.domain.rows import Piece, SortedTable, sort_pieces
from tidewire_storage.ports import Flush, PartitionFlush, Seal
from tidewire_testkit.telemetry import make_table

TENANT = TenantId(new_uid())
DEVICE = new_uid()
PLACE = TopicPartitionKey(new_uid(), 0)


def one_row(tenant: TenantId, offset: int, device: bytes = DEVICE) -> SortedTable:
    table = make_table(tenant, ["m"], [(device, 1, [1.0])])
    return sort_pieces(("m",), [Piece(offset, PieceOfTable(table, 0))])


def flush(first: int, expected: int | None) -> Flush:
    rows = one_row(TENANT, first)
    block = encode_block(BlockKey(TENANT, PLACE, 0, 0, first, first + 1), 0, [rows])
    span = EpochSpan(0, 0, 0, first, first + 1, 1, 1, 1, False)
    return Flush([block], [PartitionFlush(PLACE, expected, first + 1, (span,), NO_ENTRIES, 0)])


async def test_a_file_left_by_a_killed_process_is_in_nobodys_way(tmp_path: Path) -> None:
    """Killed after it made the file, before its row was committed: the next process gets the same number."""
    (tmp_path / "blocks").mkdir()
    (tmp_path / "blocks" / "0000000001.blk").touch()
    store = EmbeddedStore(tmp_path)
    await store.open()
    await store.commit(flush(0, None))
    assert len(await store.find(TENANT, None, 0, 2)) == 1
    await store.sweep()
    assert [path.name for path in (tmp_path / "blocks").iterdir()] == ["0000000002.blk"]
    await store.close()


async def test_a_flush_that_is_stored_is_not_said_to_have_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tidying up after it may fail, as on a full disk; then it is tidied up later."""
    store = EmbeddedStore(tmp_path)
    await store.open()
    other = sqlite3.connect(tmp_path / "catalog.db", isolation_level=None)
    other.execute("CREATE TRIGGER hindered BEFORE DELETE ON dedup BEGIN SELECT RAISE(ABORT, 'full'); END")
    other.execute("INSERT INTO dedup VALUES (x'00', 0, 1, 1, 70000, x'')")
    other.execute("INSERT INTO dedup VALUES (x'00', 0, 2, 1, 70000, x'')")
    failed = []
    for offset in range(70):
        try:
            await store.commit(flush(offset, offset or None))
        except (TidewireError, sqlite3.Error) as error:
            failed.append(error)
    assert failed == []
    other.close()
    await store.close()


def sealed(tenants: Sequence[TenantId], blocks: Sequence[StoredBlock]) -> Seal:
    """Epoch 0 sealed, with a block of one reading for each tenant, in this order."""
    made = [
        encode_block(BlockKey(tenant, PLACE, 0, 0, 0, 1, level=EPOCH_BLOCK), 0, [one_row(tenant, 0)])
        for tenant in tenants
    ]
    return Seal(PLACE, (0,), tuple(blocks), tuple(made), {})


def two_tenants() -> tuple[list[TenantId], Flush]:
    """A flush that ends epoch 0, with a block of each of two tenants."""
    tenants = [TenantId(new_uid()), TenantId(new_uid())]
    blocks = [
        encode_block(BlockKey(tenant, PLACE, 0, 0, 0, 1), 0, [one_row(tenant, 0)]) for tenant in tenants
    ]
    span = EpochSpan(0, 0, 0, 0, 1, 2, 2, 2, True)
    ledger = {(tenant, 0): LedgerCounts(accepted=1, stored=1) for tenant in tenants}
    return tenants, Flush(blocks, [PartitionFlush(PLACE, None, 1, (span,), NO_ENTRIES, 0, ledger)])


async def test_a_block_that_was_replaced_is_never_taken_for_what_got_its_number(tmp_path: Path) -> None:
    """SQLite gives numbers of removed rows again: here the one tenant's to the other's sealed block."""
    store = EmbeddedStore(tmp_path, file_bytes=1)
    await store.open()
    tenants, stored = two_tenants()
    await store.commit(stored)
    found = await store.blocks_of_epoch(PLACE, 0)
    assert await store.seal(sealed(tenants[::-1], found))
    now = await store.blocks_of_epoch(PLACE, 0)
    assert {block.token.block_id for block in found} == {block.token.block_id for block in now}
    await store.sweep()  # the files that they were in are gone
    assert await store.read(found) == [None, None]
    assert None not in await store.read(now)
    await store.close()


async def test_a_sweep_leaves_alone_what_another_process_has_sealed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = EmbeddedStore(tmp_path, file_bytes=1), EmbeddedStore(tmp_path, file_bytes=1)
    await store.open()
    await other.open()
    tenants, stored = two_tenants()
    await store.commit(stored)
    found = await store.blocks_of_epoch(PLACE, 0)
    await store.bury([], [(tenants[0], DEVICE)])  # so that the file is rewritten without it
    new_file, results = store._new_file, []

    def sealed_meanwhile(connection: sqlite3.Connection, clean_seq: int) -> BlockFile:
        results.append(other._seal(other._connection(), sealed(tenants[::-1], found)))
        return new_file(connection, clean_seq)

    monkeypatch.setattr(store, "_new_file", sealed_meanwhile)
    await store.sweep()
    monkeypatch.undo()
    assert results == [True]
    now = await store.blocks_of_epoch(PLACE, 0)
    assert {block.token.block_id for block in found} == {block.token.block_id for block in now}
    for block, data in zip(now, await store.read(now), strict=True):
        assert data is not None
        assert verified(data).key == block.key
    assert await store.difference() == 0
    await store.sweep()  # now with the other's file
    assert [block.key.tenant for block in await store.blocks_of_epoch(PLACE, 0)] == [tenants[1]]
    assert await store.difference() == 0
    await other.close()
    await store.close()
