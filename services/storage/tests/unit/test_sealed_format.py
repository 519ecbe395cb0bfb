"""Sealed blocks: what was encoded is decoded, as a whole and page by page, and no page is taken for another."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewire_kit.ids import TenantId, new_uid
from tidewire_storage.domain import sealed_format
from tidewire_storage.domain.block_format import encode_block, read_block, verified, without_devices
from tidewire_storage.domain.block_header import BlockDamaged
from tidewire_storage.domain.blocks import Block, BlockKey, TopicPartitionKey
from tidewire_storage.domain.rows import SortedTable
from tidewire_storage.domain.sealed_format import Directory

KEY = BlockKey(TenantId(new_uid()), TopicPartitionKey(new_uid(), 3), 0, 7, 100, 200, level=1)


def table_of(counts: list[int], metrics: int = 1, seed: int = 0) -> SortedTable:
    """Devices with so many rows each; times rise within a device."""
    source = np.random.default_rng(seed)
    uids = np.frombuffer(b"".join(new_uid() for _ in counts), np.uint8).reshape(-1, 16)
    times = np.concatenate([np.sort(source.choice(10_000_000, rows, replace=False)) for rows in counts])
    values = [source.normal(size=len(times)).round(2) for _ in range(metrics)]
    values[0][source.random(len(times)) < 0.1] = np.nan
    names = tuple(f"m{number}" for number in range(metrics))
    return SortedTable(names, uids, np.array(counts, np.uint32), times.astype(np.int64), values)


def same(found: SortedTable, expected: SortedTable) -> None:
    assert found.metrics == expected.metrics
    assert found.device_uids.tobytes() == expected.device_uids.tobytes()
    assert found.row_counts.tolist() == expected.row_counts.tolist()
    assert found.time_unix_us.tolist() == expected.time_unix_us.tolist()
    for column, other in zip(found.values, expected.values, strict=True):
        assert column.tobytes() == other.tobytes()


COUNTS = st.lists(
    st.one_of(st.integers(1, 30), st.integers(600, 1_500), st.just(40_000)), min_size=1, max_size=8
)


@settings(deadline=None, max_examples=30)
@given(COUNTS, st.integers(1, 3), st.data())
def test_whole_and_by_pages_it_is_what_was_encoded(
    counts: list[int], metrics: int, data: st.DataObject
) -> None:
    table = table_of(counts, metrics)
    block = encode_block(KEY, 3_600_000_000, [table])
    header, (reader,) = read_block(block.data)
    assert (header.key, header.hour_us) == (KEY, 3_600_000_000)
    assert (header.rows, header.readings) == (table.rows, table.readings())
    same(reader.table(), table)

    (sealed,) = Directory(block.data[: block.head_bytes]).tables
    wanted = np.array(data.draw(st.lists(st.booleans(), min_size=len(counts), max_size=len(counts))))
    start = data.draw(st.integers(0, 10_000_000))
    end = data.draw(st.integers(start, 10_000_000))
    found: dict[bytes, list[int]] = {}
    for page in sealed.wanted_pages(wanted, start, end):
        position, length = sealed.span(page)
        part = sealed.page(page, block.data[position : position + length]).table()
        at = 0
        for uid, rows in zip(part.device_uids, part.row_counts.tolist(), strict=True):
            found.setdefault(uid.tobytes(), []).extend(part.time_unix_us[at : at + rows].tolist())
            at += rows
    for number, first in enumerate(table.run_starts().tolist()):
        if wanted[number]:
            times = table.time_unix_us[first : first + counts[number]]
            expected = set(times[(times >= start) & (times < end)].tolist())
            assert expected <= set(found.get(table.device_uids[number].tobytes(), ()))


def test_pages_are_neither_small_nor_large() -> None:
    block = encode_block(KEY, 0, [table_of([40] * 100 + [1_500] * 3 + [50_000])])
    (table,) = Directory(block.data).tables
    rows = []
    for page in range(table.pages):
        position, length = table.span(page)
        rows.append(int(table.page(page, block.data[position : position + length]).row_counts.sum()))
    assert sum(rows) == 40 * 100 + 1_500 * 3 + 50_000
    assert max(rows) <= sealed_format.MOST_PAGE_ROWS
    assert all(count >= sealed_format.PAGE_ROWS for count in rows[:4])
    assert table.wanted_pages(np.arange(104) == 103, 0, 1 << 60) == list(range(table.pages - 4, table.pages))


def a_block() -> Block:
    return encode_block(KEY, 0, [table_of([50, 1_200, 30], 2), table_of([5])])


def test_any_changed_byte_is_noticed() -> None:
    data = a_block().data
    for place in range(0, len(data), 13):
        broken = bytearray(data)
        broken[place] ^= 0x40
        with pytest.raises(BlockDamaged):
            verified(bytes(broken))
    with pytest.raises(BlockDamaged):
        verified(data[:-1])


def test_a_page_is_not_taken_for_another() -> None:
    block = a_block()
    table = Directory(block.data).tables[0]
    assert table.pages >= 2
    position, length = table.span(1)
    with pytest.raises(BlockDamaged, match="checksum"):
        table.page(0, block.data[position : position + length])


def test_devices_are_taken_out() -> None:
    table = table_of([20, 2_000, 17_000, 30])
    block = encode_block(KEY, 0, [table])
    gone = {table.device_uids[2].tobytes(), table.device_uids[0].tobytes()}
    held, without = without_devices(block.data, gone)
    assert held
    assert without is not None
    assert without.key == KEY
    assert without.head_bytes
    same(read_block(without.data)[1][0].table(), table.keep_devices(np.array([False, True, False, True])))
    assert without_devices(without.data, gone) == (False, None)
    assert without_devices(block.data, {uid.tobytes() for uid in table.device_uids}) == (True, None)
