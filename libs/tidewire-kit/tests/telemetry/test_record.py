"""The record codec against the public schema."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewire.events.v1 import telemetry_record_pb2
from tidewire_kit.ids import TenantId
from tidewire_kit.telemetry.record import Record, RecordError, Table, decode_record, encode_record


@st.composite
def tables(draw: st.DrawFn) -> Table:
    metrics = tuple(f"metric_{number}" for number in range(draw(st.integers(1, 4))))
    row_counts = draw(st.lists(st.integers(1, 60), min_size=1, max_size=5))
    rows, segments = sum(row_counts), len(row_counts)
    devices = draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.normal(size=(len(metrics), rows + 2))
    values[:, ::7] = np.nan
    return Table(
        TenantId(rng.bytes(16)),
        metrics,
        rng.integers(0, 256, (devices, 16), np.uint8),
        rng.integers(0, devices, rows, np.uint32),
        rng.integers(0, 2**50, rows, np.int64),
        values[:, 1:-1],  # not contiguous, as the producer's slices
        rng.integers(0, 256, (segments, 16), np.uint8),
        rng.integers(0, 256, (segments, 16), np.uint8),
        rng.integers(0, 2**64, segments, np.uint64, endpoint=False),
        rng.integers(0, 2**64, segments, np.uint64, endpoint=False),
        np.array(row_counts, np.uint32),
        rng.integers(0, 100, segments, np.uint32),
        rng.integers(0, 2**60, segments, np.int64),
    )


def assert_same(got: Table, want: Table) -> None:
    assert (got.tenant, got.metrics) == (want.tenant, want.metrics)
    for name in Table.__slots__[2:]:
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name), err_msg=name)
        assert getattr(got, name).dtype == getattr(want, name).dtype


def join(given_tables: list[Table]) -> bytes:
    return b"".join(encode_record(given_tables, 12345, 1_700_000_000_000_000))


@settings(deadline=None)
@given(st.lists(tables(), max_size=3))
def test_what_is_encoded_is_decoded(given_tables: list[Table]) -> None:
    record = decode_record(memoryview(join(given_tables)))
    assert (record.readings, record.received_us) == (12345, 1_700_000_000_000_000)
    assert len(record.tables) == len(given_tables)
    for got, want in zip(record.tables, given_tables, strict=True):
        assert_same(got, want)


@settings(deadline=None)
@given(st.lists(tables(), min_size=1, max_size=3))
def test_the_bytes_are_those_of_the_public_message(given_tables: list[Table]) -> None:
    public = telemetry_record_pb2.TelemetryRecord.FromString(join(given_tables))
    assert public.readings == 12345
    for message, table in zip(public.tables, given_tables, strict=True):
        assert message.tenant_uid == table.tenant
        assert list(message.metrics) == list(table.metrics)
        assert message.device_uids == table.device_uids.tobytes()
        assert list(message.device_index) == table.device_index.tolist()
        assert list(message.time_unix_us) == table.time_unix_us.tolist()
        np.testing.assert_array_equal(np.array(message.values), table.values.reshape(-1))
        assert list(message.segment_row_counts) == table.segment_rows.tolist()
        assert list(message.segment_digests) == table.segment_digests.tolist()
    assert public.SerializeToString(deterministic=True) == join(given_tables)


@settings(deadline=None)
@given(st.lists(tables(), min_size=1, max_size=2))
def test_split_columns_are_read_with_the_public_schema(given_tables: list[Table]) -> None:
    # Concatenating two tables' bodies merges them: every column then has two elements, which is legal.
    first = given_tables[0]
    public = telemetry_record_pb2.TelemetryRecord.FromString(join([first]))
    body = public.tables[0].SerializeToString()
    more = telemetry_record_pb2.TelemetryTable(
        device_index=[0], time_unix_us=[5], segment_row_counts=[1], segment_digests=[9],
        segment_sequences=[1], segment_readings=[1], segment_received_time_unix_us=[1],
        segment_publisher_uids=public.tables[0].segment_publisher_uids + b"p" * 16,
        segment_batch_ids=public.tables[0].segment_batch_ids + b"b" * 16,
    )  # fmt: skip
    whole = telemetry_record_pb2.TelemetryTable.FromString(body + more.SerializeToString())
    whole.values[:] = np.arange(len(first.metrics) * (first.rows + 1)).tolist()
    merged = body + more.SerializeToString()
    # Replace the values by sending them again is not possible, so send the rest of the cells as a second piece.
    cells = len(whole.time_unix_us) * len(first.metrics) - first.values.size
    merged += telemetry_record_pb2.TelemetryTable(values=[1.5] * cells).SerializeToString()
    length = len(merged)
    header = bytearray(b"\x0a")
    while length > 0x7F:
        header.append(length & 0x7F | 0x80)
        length >>= 7
    header.append(length)
    table = decode_record(bytes(header) + merged).tables[0]
    assert table.rows == first.rows + 1
    assert table.time_unix_us[-1] == 5
    np.testing.assert_array_equal(table.values.reshape(-1)[: first.values.size], first.values.reshape(-1))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_a_record_error_or_a_record(value: bytes) -> None:
    try:
        record = decode_record(value)
    except RecordError:
        return
    assert isinstance(record, Record)


@settings(deadline=None)
@given(tables(), st.data())
def test_truncated_bytes_are_a_record_error_or_fewer_fields(table: Table, data: st.DataObject) -> None:
    whole = join([table])
    cut = data.draw(st.integers(0, len(whole) - 1))
    try:
        record = decode_record(whole[:cut])
    except RecordError:
        return
    assert len(record.tables) <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tenant_uid": b"short"}, "tenant_uid has 5 bytes"),
        ({"device_uids": b"x" * 17}, "device_uids has 17 bytes"),
        ({"values": [1.0]}, "2 times, 2 device indexes and 1 values of 1 metrics"),
        ({"device_index": [0, 7]}, "device_index 7 of 1 devices"),
        ({"segment_row_counts": [1]}, "segments cover 1 of 2 rows"),
        ({"segment_readings": [1, 1]}, "segment columns of different length"),
    ],
)
def test_each_inconsistency_is_named(change: dict[str, object], message: str) -> None:
    fields: dict[str, object] = {
        "tenant_uid": b"t" * 16, "metrics": ["a"], "device_uids": b"d" * 16, "device_index": [0, 0],
        "time_unix_us": [1, 2], "values": [1.0, 2.0], "segment_publisher_uids": b"p" * 16,
        "segment_batch_ids": b"b" * 16, "segment_digests": [1], "segment_sequences": [1],
        "segment_row_counts": [2], "segment_readings": [2], "segment_received_time_unix_us": [1],
    }  # fmt: skip
    table = telemetry_record_pb2.TelemetryTable(**(fields | change))  # type: ignore[arg-type]
    value = telemetry_record_pb2.TelemetryRecord(tables=[table]).SerializeToString()
    with pytest.raises(RecordError, match=message):
        decode_record(value)
