"""Packed columns are those of a message, whatever the numbers."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewire.storage.v1 import storage_pb2 as pb
from tidewire.type.v1.columns_pb2 import SeriesColumns
from tidewire_storage.application.read_series import SeriesPart
from tidewire_storage.conversions import part_encoded
from tidewire_storage.wire import packed_doubles, packed_fixed64, packed_varints

NUMBER = {field.name: field.number for field in pb.ReportResponse.DESCRIPTOR.fields}


@settings(deadline=None)
@given(
    st.lists(st.integers(0, (1 << 32) - 1) | st.integers(0, 200), max_size=200),
    st.lists(st.integers(0, (1 << 63) - 1) | st.integers(0, 200), max_size=200),
    st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=200),
    st.lists(st.floats(allow_nan=False), max_size=200),
)
def test_generated_code_reads_the_same(
    small: list[int], whole: list[int], fixed: list[int], real: list[float]
) -> None:
    data = b"".join(
        [
            packed_varints(NUMBER["subject_index"], np.array(small, np.int64)),
            packed_varints(NUMBER["readings"], np.array(whole, np.int64)),
            packed_fixed64(NUMBER["first_time_unix_us"], np.array(fixed, np.int64)),
            packed_doubles(NUMBER["avg"], np.array(real)),
        ]
    )
    assert pb.ReportResponse.FromString(data) == pb.ReportResponse(
        subject_index=small, readings=whole, first_time_unix_us=fixed, avg=real
    )


@settings(deadline=None)
@given(st.integers(0, 3), st.integers(0, 300), st.text(max_size=200))
def test_a_part_of_a_series_is_read_the_same(metrics: int, rows: int, token: str) -> None:
    names = tuple(f"m{number}" for number in range(metrics))
    times, values = np.arange(rows) - 5, [np.arange(rows) + number / 2 for number in range(metrics)]
    answer = part_encoded("tenants/a/devices/b", SeriesPart(names, times, values, token))
    flat = [float(value) for column in values for value in column]
    assert pb.ReadSeriesResponse.FromString(answer.SerializeToString()) == pb.ReadSeriesResponse(
        columns=SeriesColumns(
            device="tenants/a/devices/b", metrics=names, time_unix_us=times.tolist(), values=flat
        ),
        next_page_token=token,
    )
