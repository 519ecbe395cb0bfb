import struct

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewire_kit.ids import TenantId, new_uid
from tidewire_storage.domain.block_format import encode_block, read_block
from tidewire_storage.domain.block_header import COLD, HEADER_BYTES, BlockDamaged, BlockHeader
from tidewire_storage.domain.blocks import BlockKey, TopicPartitionKey
from tidewire_storage.domain.rows import SortedTable

KEY = BlockKey(TenantId(new_uid()), TopicPartitionKey(new_uid(), 3), 0, 7, 100, 200)
VALUE = st.floats(allow_infinity=False, allow_nan=True)


@st.composite
def tables(draw: st.DrawFn) -> SortedTable:
    counts = draw(st.lists(st.integers(1, 60), min_size=1, max_size=4))
    rows = sum(counts)
    metrics = tuple(f"m{number}" for number in range(draw(st.integers(1, 3))))
    uids = np.frombuffer(b"".join(new_uid() for _ in counts), np.uint8).reshape(-1, 16)
    times = np.array(draw(st.lists(st.integers(-(1 << 60), 1 << 60), min_size=rows, max_size=rows)), np.int64)
    values = [np.array(draw(st.lists(VALUE, min_size=rows, max_size=rows))) for _ in metrics]
    arrival = np.arange(rows) if draw(st.booleans()) else None
    return SortedTable(metrics, uids, np.array(counts, np.uint32), times, values, arrival)


@settings(deadline=None, max_examples=50)
@given(st.lists(tables(), min_size=1, max_size=3))
def test_what_was_encoded_is_decoded_bit_by_bit(some: list[SortedTable]) -> None:
    block = encode_block(KEY, 3_600_000_000, some)
    header, readers = read_block(block.data)
    assert header.key == KEY
    assert (header.rows, header.readings) == (block.facts.rows, block.facts.readings)
    assert len(readers) == len(some)
    for table, reader in zip(some, readers, strict=True):
        found = reader.table()
        assert found.metrics == table.metrics
        assert found.device_uids.tobytes() == table.device_uids.tobytes()
        assert found.row_counts.tolist() == table.row_counts.tolist()
        assert found.time_unix_us.tolist() == table.time_unix_us.tolist()
        for column, expected in zip(found.values, table.values, strict=True):
            assert column.tobytes() == expected.tobytes(), "NaN and -0.0 included"
        assert (found.arrival is None) == (table.arrival is None)
        if table.arrival is not None and found.arrival is not None:
            assert found.arrival.tolist() == table.arrival.tolist()


def a_block() -> bytes:
    uids = np.frombuffer(new_uid() + new_uid(), np.uint8).reshape(2, 16)
    table = SortedTable(("m",), uids, np.array([50, 50], np.uint32), np.arange(100), [np.arange(100.0)])
    return encode_block(KEY, 0, [table]).data


def test_any_changed_byte_is_noticed() -> None:
    data = a_block()
    for place in [*range(HEADER_BYTES), *range(HEADER_BYTES, len(data), 7)]:
        broken = bytearray(data)
        broken[place] ^= 0x10
        with pytest.raises(BlockDamaged):
            read_block(bytes(broken))


def test_a_block_that_ends_early_is_noticed() -> None:
    data = a_block()
    for length in (0, 10, HEADER_BYTES - 1, HEADER_BYTES, len(data) - 1):
        with pytest.raises(BlockDamaged):
            read_block(data[:length])


def test_a_newer_version_says_so() -> None:

    data = bytearray(a_block())
    data[4] = COLD + 1
    size = HEADER_BYTES - 8
    data[size:HEADER_BYTES] = struct.pack("<Q", xxhash.xxh3_64_intdigest(bytes(data[:size])))
    with pytest.raises(BlockDamaged, match="version 4 is newer"):
        BlockHeader(bytes(data))
