import uuid

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tidewire.type.v1 import telemetry_pb2
from tidewire_client import InvalidArgument
from tidewire_client.encoding import Frame, encode_batch
from tidewire_client.gather import Columns, Gatherer

NAMES = st.text(alphabet="abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=63)


@st.composite
def frames(draw, devices):
    metrics = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    rows = draw(st.integers(1, 300))
    index = None
    if devices > 1 or draw(st.booleans()):
        index = draw(hnp.arrays(np.uint32, rows, elements=st.integers(0, devices - 1)))
    return Frame(
        tuple(metrics),
        index,
        draw(hnp.arrays(np.int64, rows, elements=st.integers(-(2**62), 2**62))),
        draw(hnp.arrays(np.float64, (len(metrics), rows), elements=st.floats(allow_nan=True, width=64))),
    )


@settings(deadline=None)
@given(data=st.data(), sequence=st.integers(0, 2**64 - 1))
def test_bytes_are_what_the_generated_code_reads(data, sequence):
    devices = data.draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    tables = data.draw(st.lists(frames(len(devices)), min_size=1, max_size=3))
    batch_id = uuid.uuid4()
    encoded = encode_batch(batch_id, sequence, devices, tables)
    read = telemetry_pb2.TelemetryBatch.FromString(encoded.payload)
    assert read.batch_id == str(batch_id)
    assert read.sequence == sequence
    assert list(read.devices) == devices
    for table, frame in zip(read.frames, tables, strict=True):
        assert tuple(table.metrics) == frame.metrics
        assert list(table.device_index) == ([] if frame.device_index is None else frame.device_index.tolist())
        assert list(table.time_unix_us) == frame.time_unix_us.tolist()
        np.testing.assert_array_equal(np.array(table.values), frame.values.reshape(-1))
    assert encoded.rows == sum(frame.rows for frame in tables)
    assert encoded.readings == sum(int((~np.isnan(frame.values)).sum()) for frame in tables)


def test_a_batch_that_no_message_can_hold_is_refused_here():
    rows = 600_000
    frame = Frame(("a",), None, np.zeros(rows, np.int64), np.zeros((1, rows)))
    with pytest.raises(InvalidArgument, match="make batches smaller"):
        encode_batch(uuid.uuid4(), 1, ["d"], [frame])


def test_refused_rows_are_found_again_in_the_bytes():
    frame = Frame(("a",), np.array([1, 0, 1], np.uint32), np.array([10, 20, 30]), np.zeros((1, 3)))
    encoded = encode_batch(uuid.uuid4(), 1, ["x", "y"], [frame])
    assert encoded.rows_at(0, [0, 2]) == [("y", 10), ("y", 30)]


def test_rows_and_columns_gather_into_one_frame_a_metric_set_in_their_order():
    gatherer = Gatherer(1000, 1_000_000)
    assert gatherer.add_row("x", 1, {"a": 1.0})
    assert not gatherer.add_row("y", 2, {"a": 2.0})
    gatherer.add_columns(Columns("z", [3, 4], ["a"], [3.0, 4.0]))
    gatherer.add_columns(Columns(["x", "q"], [5, 6], ["a"], [[5.0, 6.0]]))
    gatherer.add_row("x", 7, {"a": 7.0})
    gatherer.add_row("x", 7, {"b": 70.0})
    assert gatherer.cells == 8
    devices, tables = gatherer.take()
    assert gatherer.take() is None
    first, second = tables
    assert [devices[i] for i in first.device_index] == ["x", "y", "z", "z", "x", "q", "x"]
    assert first.time_unix_us.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert first.values.tolist() == [[1, 2, 3, 4, 5, 6, 7]]
    assert second.metrics == ("b",)


def test_columns_may_be_filled_again_after_they_were_added():
    gatherer = Gatherer(1000, 1_000_000)
    values, times = np.array([[1.0, 2.0]]), np.array([1, 2])
    gatherer.add_columns(Columns("x", times, ["a"], values))
    values[:], times[:] = 9.0, 9
    _, (frame,) = gatherer.take()
    assert frame.values.tolist() == [[1.0, 2.0]]
    assert frame.time_unix_us.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("d", [1.5], ["a"], [1.0]), "time_unix_us"),
        (("d", [1, 2], ["a", "b"], [[1.0, 2.0]]), "values"),
        (("d", [1], ["a", "a"], [[1.0], [2.0]]), "metrics"),
        ((["d"], [1, 2], ["a"], [1.0, 2.0]), "devices"),
        (("", [1], ["a"], [1.0]), "devices"),
        ((["d"], [1, 2], ["a"], [1.0, 2.0], [0, 1]), "device_index"),
        ((["d"], [1, 2], ["a"], [1.0, 2.0], [0]), "device_index"),
    ],
)
def test_columns_that_do_not_fit_together_are_refused_by_name(arguments, field):
    with pytest.raises(InvalidArgument) as caught:
        Columns(*arguments)
    assert caught.value.field == field


def test_datetime64_is_taken_as_utc():
    columns = Columns("d", np.array(["2026-01-01T00:00:01"], "datetime64[s]"), ["a"], [1.0])
    assert columns.time_unix_us.tolist() == [1_767_225_601_000_000]
