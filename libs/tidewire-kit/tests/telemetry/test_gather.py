"""Gathering and splitting against a model that does it row by row."""

import math
import random
import struct
from collections import defaultdict
from copy import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewire.events.v1.telemetry_record_pb2 import TelemetryRecord
from tidewire_kit.directory.table import DeviceTable
from tidewire_kit.ids import TenantId, partition_of
from tidewire_kit.telemetry import packing, split
from tidewire_kit.telemetry.admitted import Admitted, Origin, Source
from tidewire_kit.telemetry.gather import gather
from tidewire_kit.telemetry.metric_set import MetricSet
from tidewire_kit.telemetry.record import decode_record

PARTITIONS = 4
Cell = tuple[bytes, bytes, str, int, bytes]  # tenant, device, metric, time, value


def uid(kind: str, number: int) -> bytes:
    return random.Random(f"{kind}{number}").randbytes(16)


def device_table(tenant: TenantId, devices: int) -> DeviceTable:
    table = DeviceTable(tenant, PARTITIONS)
    for number in range(devices):
        device_uid = uid(f"device {tenant.hex()}", number)
        table.put(f"d{number}", device_uid, admitted=True, revision=1, created_us=0, ancestors=())
    return table


TABLES = {
    tenant: device_table(tenant, size)
    for tenant, size in ((TenantId(b"a" * 16), 9), (TenantId(b"b" * 16), 500))
}
SETS = [
    MetricSet(("temperature",)),
    MetricSet(("temperature", "humidity")),
    MetricSet(("volts", "on", "count")),
]


@st.composite
def admitted(draw: st.DrawFn, sequence: int) -> Admitted:
    tenant = draw(st.sampled_from(list(TABLES)))
    table = TABLES[tenant]
    metrics = draw(st.sampled_from(SETS))
    rows = draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.normal(size=(len(metrics.names), rows)).round(1)
    complete = draw(st.booleans())
    if not complete:
        values[rng.random(values.shape) < 0.4] = np.nan
    source = Source(uid("publisher", sequence % 3), uid("batch", sequence), sequence, 10**15 - sequence)
    slots = rng.integers(0, len(table), rows)
    times = rng.integers(0, 5, rows)
    cuts = sorted(draw(st.sets(st.integers(1, rows - 1), max_size=2))) if rows > 1 else []
    first = draw(st.integers(0, 2))
    origins = [
        Origin(source, first + number, end - start)
        for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, rows], strict=True))
    ]
    return Admitted(tenant, table, metrics, origins, slots, times, values, complete)


@st.composite
def traffic(draw: st.DrawFn) -> list[Admitted]:
    return [draw(admitted(number)) for number in range(draw(st.integers(1, 12)))]


def value_of(outgoing: Any) -> bytes:
    return b"".join(outgoing.value)


def cells_of(frame: Admitted) -> list[Cell]:
    uids = frame.devices.uids[frame.slots]
    times, values = frame.time_unix_us.tolist(), frame.values
    return [
        (frame.tenant, uids[row].tobytes(), metric, times[row], struct.pack("<d", values[column, row]))
        for row in range(len(frame.slots))
        for column, metric in enumerate(frame.metrics.names)
    ]


def by_series(cells: list[Cell]) -> dict[tuple[bytes, bytes, str], list[tuple[int, bytes]]]:
    series = defaultdict(list)
    for tenant, device, metric, time, value in cells:
        series[tenant, device, metric].append((time, value))
    return series


@given(traffic())
@settings(deadline=None)
def test_every_series_comes_out_once_in_order_and_in_its_partition(frames: list[Admitted]) -> None:
    got: list[Cell] = []
    for outgoing in gather(frames, PARTITIONS):
        record = decode_record(value_of(outgoing))
        for table in record.tables:
            uids = table.device_uids[table.device_index]
            for row in range(table.rows):
                device = uids[row].tobytes()
                assert partition_of(table.tenant, device, PARTITIONS) == outgoing.partition
                for column, metric in enumerate(table.metrics):
                    value = struct.pack("<d", table.values[column, row])
                    got.append((table.tenant, device, metric, int(table.time_unix_us[row]), value))
            assert len(np.unique(table.device_uids, axis=0)) == len(table.device_uids)
    assert by_series(got) == by_series([cell for frame in frames for cell in cells_of(frame)])


@given(traffic())
@settings(deadline=None)
def test_counts_and_segments_describe_their_rows(frames: list[Admitted]) -> None:
    sent = defaultdict(int)
    for frame in frames:
        sent[frame.origins[0].source.batch_id] += int(np.count_nonzero(~np.isnan(frame.values)))
    got = defaultdict(int)
    total = 0
    for outgoing in gather(frames, PARTITIONS):
        record = decode_record(value_of(outgoing))
        total += record.readings
        received = [us for table in record.tables for us in table.segment_received_us.tolist()]
        assert record.received_us == min(received)
        for table in record.tables:
            ends = table.segment_rows.cumsum()
            for segment in range(table.segments):
                rows = slice(int(ends[segment] - table.segment_rows[segment]), int(ends[segment]))
                readings = int(np.count_nonzero(~np.isnan(table.values[:, rows])))
                assert readings == table.segment_readings[segment]
                sequence = int(table.segment_sequences[segment])
                batch_id = table.segment_batch_ids[segment].tobytes()
                assert batch_id == uid("batch", sequence)
                assert table.segment_publisher_uids[segment].tobytes() == uid("publisher", sequence % 3)
                assert table.segment_received_us[segment] == 10**15 - sequence
                got[batch_id] += readings
    assert got == dict(sent)
    assert total == sum(sent.values())


Digests = dict[tuple[int, bytes, bytes], list[int]]  # (partition, tenant, batch id)


def digests_of(frames: list[Admitted]) -> Digests:
    found: Digests = defaultdict(list)
    for outgoing in gather(frames, PARTITIONS):
        for table in decode_record(value_of(outgoing)).tables:
            for batch_id, value in zip(table.segment_batch_ids, table.segment_digests.tolist(), strict=True):
                found[outgoing.partition, table.tenant, batch_id.tobytes()].append(value)
    return {key: sorted(values) for key, values in found.items()}


@given(traffic(), st.randoms(use_true_random=False), st.integers(20, 400))
@settings(deadline=None)
def test_digests_do_not_depend_on_what_is_gathered_together(
    frames: list[Admitted], shuffler: random.Random, segment_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "SEGMENT_BYTES", segment_bytes)
        together = digests_of(frames)
        alone: Digests = {}
        for frame in frames:
            alone |= digests_of([frame])
        assert together == alone
        shuffled = list(frames)
        shuffler.shuffle(shuffled)
        assert digests_of(shuffled) == together


@given(traffic(), st.data())
@settings(deadline=None)
def test_another_row_value_metric_or_frame_gives_another_digest(
    frames: list[Admitted], data: st.DataObject
) -> None:
    frame = frames[0]
    before = digests_of([frame])
    row = data.draw(st.integers(0, len(frame.slots) - 1))
    changed = Admitted(
        frame.tenant, frame.devices, frame.metrics, [copy(origin) for origin in frame.origins],
        frame.slots.copy(), frame.time_unix_us.copy(), frame.values.copy(), frame.complete,
    )  # fmt: skip
    match data.draw(st.sampled_from(["time", "value", "frame", "metrics", "without"])):
        case "time":
            changed.time_unix_us[row] += 1
        case "value":
            value = changed.values[0, row]
            changed.values[0, row] = 1.0 if np.isnan(value) else math.nextafter(value, 1e9)
        case "frame":
            for origin in changed.origins:
                origin.frame += 10
        case "metrics":
            changed.metrics = MetricSet(tuple(f"{name}_2" for name in frame.metrics.names))
        case "without":
            keep = np.arange(len(frame.slots)) != row
            if not keep.any():
                return
            changed.slots, changed.time_unix_us = frame.slots[keep], frame.time_unix_us[keep]
            changed.values = np.ascontiguousarray(frame.values[:, keep])
            ends = np.cumsum([origin.rows for origin in changed.origins])
            changed.origins[int(np.searchsorted(ends, row, side="right"))].rows -= 1
            changed.origins = [origin for origin in changed.origins if origin.rows]
    after = digests_of([changed])
    partition = int(frame.devices.partition[frame.slots[row]])
    key = (partition, frame.tenant, frame.origins[0].source.batch_id)
    assert before[key] != after.get(key)


def test_swapped_small_values_change_the_digest() -> None:
    # Small whole numbers differ in a few upper bits only; a weak hash would not see the swap.
    tenant, table = next(iter(TABLES.items()))
    seen = set()
    for first in range(40):
        for second in range(40):
            values = np.array([[float(first), float(second)], [float(second), float(first)]])
            source = Source(b"p" * 16, b"b" * 16, 0, 0)
            slots, times = np.array([0, 0]), np.array([1, 2])
            frame = Admitted(tenant, table, SETS[1], [Origin(source, 0, 2)], slots, times, values, True)
            (digest,) = digests_of([frame]).values()
            seen.add(digest[0])
    assert len(seen) == 1600


@given(traffic(), st.integers(600, 3000), st.integers(60, 300))
@settings(deadline=None)
def test_large_gatherings_become_several_records_and_lose_nothing(
    frames: list[Admitted], record_bytes: int, segment_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "SEGMENT_BYTES", segment_bytes)
        whole = gather(frames, PARTITIONS)
        patch.setattr(packing, "RECORD_BYTES", record_bytes)
        cut = gather(frames, PARTITIONS)
    assert [outgoing.partition for outgoing in cut] == sorted(outgoing.partition for outgoing in cut)

    def rows(records: list[Any]) -> list[list[Any]]:
        found: list[list[Any]] = [[] for _ in range(PARTITIONS)]
        for outgoing in records:
            for table in decode_record(value_of(outgoing)).tables:
                devices = table.device_uids[table.device_index].tolist()
                cells = np.ascontiguousarray(table.values.T).view(np.uint64)
                found[outgoing.partition] += zip(
                    devices, table.time_unix_us.tolist(), cells.tolist(), strict=True
                )
        return found

    assert rows(cut) == rows(whole)
    assert sum(TelemetryRecord.FromString(value_of(o)).readings for o in cut) == sum(
        TelemetryRecord.FromString(value_of(o)).readings for o in whole
    )
    # A record holds several segments only while they fit.
    for outgoing in cut:
        tables = decode_record(value_of(outgoing)).tables
        if sum(table.segments for table in tables) > 1 and len(tables) > 1:
            assert len(value_of(outgoing)) <= record_bytes


def test_a_batch_of_four_mebibytes_for_one_device_fits_the_log() -> None:
    tenant, table = next(iter(TABLES.items()))
    rows = 4 * 2**20 // 20
    values = np.arange(rows, dtype=np.float64).reshape(1, rows)
    source = Source(b"p" * 16, b"b" * 16, 0, 0)
    frame = Admitted(
        tenant,
        table,
        SETS[0],
        [Origin(source, 0, rows)],
        np.zeros(rows, np.intp),
        np.arange(rows),
        values,
        True,
    )
    records = gather([frame], PARTITIONS)
    assert {outgoing.partition for outgoing in records} == {int(table.partition[0])}
    assert max(len(value_of(outgoing)) for outgoing in records) < 1_000_000
    tables = [table for outgoing in records for table in decode_record(value_of(outgoing)).tables]
    got = np.concatenate([table.values[0] for table in tables])
    np.testing.assert_array_equal(got, values[0])


def test_equal_metric_sets_share_a_table_unless_that_would_reorder_a_device() -> None:
    tenant, table = next(iter(TABLES.items()))
    same_partition = [slot for slot in range(9) if table.partition[slot] == table.partition[0]]
    source = Source(b"p" * 16, b"b" * 16, 0, 0)

    def frame(metrics: MetricSet, slot: int) -> Admitted:
        values = np.ones((len(metrics.names), 1))
        return Admitted(
            tenant, table, metrics, [Origin(source, 0, 1)], np.array([slot]), np.array([1]), values, True
        )

    def tables(*frames: Admitted) -> list[tuple[int, int]]:
        (outgoing,) = gather(list(frames), PARTITIONS)
        return [(len(found.metrics), found.rows) for found in decode_record(value_of(outgoing)).tables]

    a, b = same_partition[:2]
    alone, pair, other = SETS
    assert tables(frame(alone, a), frame(pair, b), frame(alone, a)) == [(1, 2), (2, 1)]
    assert tables(frame(alone, a), frame(pair, a), frame(alone, a)) == [(1, 1), (2, 1), (1, 1)]
    assert tables(frame(alone, a), frame(other, a), frame(alone, a)) == [(1, 2), (3, 1)]
