"""What the embedded store alone has to cope with: files and rows that a killed or hindered process left behind."""

import sqlite3
from pathlib import Path

import pytest

from tidewire_kit.errors import TidewireError
from tidewire_kit.ids import TenantId, new_uid
from tidewire_kit.owner import NO_ENTRIES, PieceOfTable
from tidewire_storage.adapters.embedded import EmbeddedStore
from tidewire_storage.domain.block_format import encode_block
from tidewire_storage.domain.blocks import BlockKey, EpochSpan, TopicPartitionKey
from tidewire_storage.domain.rows import Piece, sort_pieces
from tidewire_storage.ports import Flush, PartitionFlush
from tidewire_testkit.telemetry import make_table

TENANT = TenantId(new_uid())
PLACE = TopicPartitionKey(new_uid(), 0)


def flush(first: int, expected: int | None) -> Flush:
    rows = sort_pieces(
        ("m",), [Piece(first, PieceOfTable(make_table(TENANT, ["m"], [(new_uid(), 1, [1.0])]), 0))]
    )
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
