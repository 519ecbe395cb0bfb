"""What the Cassandra store computes before it asks a server."""

import numpy as np

from tidewire_kit.ids import TenantId, new_uid
from tidewire_storage.adapters.cassandra import rows
from tidewire_storage.adapters.cassandra.heads import attempt_us, new_attempt, now_us
from tidewire_storage.adapters.cassandra.tables import decode_entry, encode_entry
from tidewire_storage.domain.block_format import encode_block
from tidewire_storage.domain.blocks import BlockKey, TopicPartitionKey
from tidewire_storage.domain.rows import SortedTable
from tidewire_storage.domain.series import states_from_bytes, states_of

TENANT = TenantId(new_uid())
PLACE = TopicPartitionKey(new_uid(), 3)
DAY = rows.DAY_US


def table(devices: int = 3) -> SortedTable:
    uids = np.frombuffer(b"".join(new_uid() for _ in range(devices)), np.uint8).reshape(-1, 16)
    times = np.arange(devices, dtype=np.int64)
    values = [np.linspace(0.0, 1.0, devices), np.full(devices, np.nan)]
    return SortedTable(("m", "n"), uids, np.ones(devices, np.uint32), times, values)


def test_an_entry_comes_back_as_it_was_written() -> None:
    mutations = [
        ("catalog", (TENANT, PLACE.incarnation, 3, -5, "a b|c", None, 1 << 62)),
        ("dedup", (b"", bytes(range(256)), True)),
    ]
    assert decode_entry(encode_entry(mutations)) == mutations


def test_states_of_many_devices_come_back_from_one_value() -> None:
    states = states_of(TENANT, table(), 17 << 20)
    again = states_from_bytes(TENANT, states.metrics, states.to_bytes())
    for name in ("device_uids", "first_us", "last_us", "value", "arrival"):
        np.testing.assert_array_equal(getattr(again, name), getattr(states, name))
    nobody = states.where(np.zeros(3, np.bool_))
    assert len(states_from_bytes(TENANT, nobody.metrics, nobody.to_bytes()).device_uids) == 0
    last = states.where(np.array([False, False, True]))
    assert last.pack() == states.pack()[2:]


def test_a_block_lies_by_the_span_that_it_covers() -> None:
    spans = [0, DAY - 1, DAY, 32 * DAY - 1, 32 * DAY, 1024 * DAY - 1, 1024 * DAY, 1 << 61]
    assert [rows.level_of(5, 5 + span) for span in spans] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_row_of_either_table_gives_the_block_back() -> None:
    block = encode_block(BlockKey(TENANT, PLACE, 0, 7, 100, 120), 3_600_000_000, [table(), table(1)])
    named = rows.stored(block, new_attempt(), None)
    for name, values in rows.put(named):
        columns = {
            "catalog": (
                *[
                    "tenant",
                    "incarnation",
                    "log_partition",
                    "day",
                    "level",
                    "min_time_us",
                    "max_time_us",
                    "epoch",
                ],
            ),
            "epoch_block": (*["incarnation", "log_partition", "epoch"],),
        }[name]
        rest = {
            "catalog": "first_offset slice",
            "epoch_block": "first_offset tenant slice min_time_us max_time_us",
        }[name].split()
        facts = [
            "end_offset",
            "hour_us",
            "row_count",
            "readings",
            "length",
            "chunks",
            "attempt",
            "expires_us",
            "metric_sets",
            "block_level",
            "head_bytes",
        ]
        row = type("Row", (), dict(zip([*columns, *rest, *facts], values, strict=True)))
        assert rows.block_of(row, TENANT, PLACE, row.epoch) == named


def test_chunks_are_the_block_in_order() -> None:
    block = encode_block(BlockKey(TENANT, PLACE, 0, 7, 100, 120), 0, [table(40_000)])
    chunks = list(rows.chunks_of(block, b"a", 0))
    assert len(chunks) == rows.token_of(rows.stored(block, b"a", None)).chunks > 1
    assert [chunk[-3] for chunk in chunks] == list(range(len(chunks)))
    assert b"".join(chunk[-2] for chunk in chunks) == block.data


def test_attempts_know_when_they_began() -> None:
    before = now_us()
    attempt = new_attempt()
    assert before <= attempt_us(attempt) <= now_us()
    assert len(attempt) == 16
    assert attempt != new_attempt()
